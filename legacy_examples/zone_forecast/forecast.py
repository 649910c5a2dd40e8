"""One partition's forecast: departures of a zone in a part of the day, for the next seven days."""

import numpy as np
import pandas as pd
from data import DAYPARTS, LAST_DAY, catalog, tables
from pandas.tseries.holiday import USFederalHolidayCalendar
from sklearn.ensemble import ExtraTreesRegressor, VotingRegressor
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

WEEK = 7
#: Days at the end of the history on which model and baseline are compared, forecast a week at a time.
BACKTEST_DAYS = 28
#: A day's features reach this far back; the first days of a history have none.
REACH = 28
WEEKS_BACK = (1, 2, 3, 4)
#: Share of the same weekday of last week in a forecast beside the model: timetables repeat themselves.
LAST_WEEK = 1 / 3


def holiday_distance(days: pd.DatetimeIndex) -> np.ndarray:
    """For each day, how many days the nearest US federal holiday is away."""
    margin = pd.Timedelta(days=60)
    holidays = USFederalHolidayCalendar().holidays(days[0] - margin, days[-1] + margin)
    return np.abs(days.values[:, None] - holidays.values[None, :]).min(axis=1) / np.timedelta64(1, "D")


class Forecast:
    """Departures of one zone in one part of the day.

    All features of a day were known a week before it, so one model serves each of the next seven days, and a backtest
    never sees what it is to forecast: weather and neighbours enter as they were, not as they will be.

    Arguments:
        origin: the airport of departure.
        dest: the airport of arrival.
        daypart: one of ``data.DAYPARTS``.

    Raises:
        ValueError: there is no such partition, or it is one that ``data.partitions`` leaves out.
    """

    def __init__(self, origin: str, dest: str, daypart: str) -> None:
        if (origin, dest, daypart) not in tables().departures:
            raise ValueError(f"there is no partition {origin} {dest} {daypart}: use one of data.partitions()")
        self.origin, self.dest, self.daypart = origin, dest, daypart
        self.facts = catalog().loc[(origin, dest, daypart)]
        self.method: str = self.facts["method"]
        if self.method == "refused":
            days, last = self.facts["days"], self.facts["last"]
            raise ValueError(
                f"{origin} {dest} {daypart} departed too rarely or too long ago (days: {days}, last: {last:%Y-%m-%d}):"
                " use one of data.partitions()"
            )
        self.history = pd.Series(dtype=float)
        self.future = pd.date_range(LAST_DAY + pd.Timedelta(days=1), periods=WEEK)
        self.table = pd.DataFrame()
        self.model: VotingRegressor | None = None

    def load(self) -> "Forecast":
        """Take the partition's history out of the tables."""
        self.history = tables().departures[self.origin, self.dest, self.daypart]
        return self

    def features(self) -> "Forecast":
        """One row of features per day of the history and of the week after it."""
        days = self.history.index.append(self.future)
        known = self.history.reindex(days)
        weeks = {f"weeks_{n}": known.shift(n * WEEK) for n in WEEKS_BACK}
        table = pd.DataFrame(weeks, index=days)
        same_weekday = table.to_numpy()
        table["weekday_mean"] = same_weekday.mean(axis=1)
        table["weekday_median"] = np.median(same_weekday, axis=1)

        last_week = known.shift(WEEK)
        for n in (7, 28, 56):
            table[f"mean_{n}"] = last_week.rolling(n, min_periods=1).mean()
        for name, series in self._neighbours().items():
            table[name] = series.reindex(days).shift(WEEK).rolling(28, min_periods=1).mean()

        table = pd.concat([table, tables().weather[self.origin].reindex(days).shift(WEEK)], axis=1)
        distance = pd.Series(holiday_distance(days), days)
        table["holiday"], table["near_holiday"] = distance == 0, distance <= 2
        table["holiday_last_week"] = (distance == 0).shift(WEEK, fill_value=False)
        table["near_holiday_last_week"] = (distance <= 2).shift(WEEK, fill_value=False)
        for weekday in range(WEEK):
            table[f"weekday_{weekday}"] = days.day_of_week == weekday
        self.table = table.astype(float)
        return self

    def _neighbours(self) -> dict[str, pd.Series]:
        """The whole zone, and the parts of the day before and after, into which delays move departures."""
        found = {"zone": tables().zones[self.origin, self.dest]}
        position = DAYPARTS.index(self.daypart)
        for name, other in (("part_before", position - 1), ("part_after", position + 1)):
            key = (self.origin, self.dest, DAYPARTS[other % len(DAYPARTS)])
            if 0 <= other < len(DAYPARTS) and key in tables().departures:
                found[name] = tables().departures[key]
        return found

    def training_rows(self, until: pd.Timestamp = LAST_DAY) -> pd.DataFrame:
        """The features of all days up to one on which the partition had been in service long enough to have them."""
        return self.table.loc[self.facts["first"] + pd.Timedelta(days=REACH) : until]

    def fit(self, until: pd.Timestamp = LAST_DAY) -> "Forecast":
        """Train on the history up to a day. Partitions with too few days have a moving average instead of a model."""
        if self.method == "model":
            rows = self.training_rows(until)
            linear = make_pipeline(StandardScaler(), Ridge(alpha=100.0))
            trees = ExtraTreesRegressor(n_estimators=40, min_samples_leaf=8, max_features=0.5, random_state=0)
            self.model = VotingRegressor([("linear", linear), ("trees", trees)])
            self.model.fit(rows.to_numpy(), self.history[rows.index].to_numpy())
        return self

    def predict(self, days: pd.DatetimeIndex) -> np.ndarray:
        """Departures on days of the week after the one up to which it was fitted; whole, as departures are."""
        rows = self.table.loc[days]
        if self.model is None:
            expected = rows["weekday_mean"].to_numpy()
        else:
            last_week = rows["weeks_1"].to_numpy()
            expected = (1 - LAST_WEEK) * self.model.predict(rows.to_numpy()) + LAST_WEEK * last_week
        return np.rint(np.clip(expected, 0.0, None))

    def backtest(self, end: pd.Timestamp = LAST_DAY) -> dict[str, float | None]:
        """Forecast the last four weeks one by one, each trained on what came before it, and compare with the truth.

        The baseline is the same weekday of the week before.
        """
        errors = {"model": 0.0, "baseline": 0.0}
        departed = 0.0
        for ahead in range(BACKTEST_DAYS, 0, -WEEK):
            until = end - pd.Timedelta(days=ahead)
            days = pd.date_range(until + pd.Timedelta(days=1), periods=WEEK)
            truth = self.history[days].to_numpy()
            errors["model"] += np.abs(self.fit(until).predict(days) - truth).sum()
            errors["baseline"] += np.abs(self.table.loc[days, "weeks_1"].to_numpy() - truth).sum()
            departed += truth.sum()
        measured: dict[str, float | None] = {"backtest_departures": float(departed)}
        for name, error in errors.items():
            measured[f"{name}_mae"] = float(error / BACKTEST_DAYS)
            measured[f"{name}_wape"] = float(error / departed) if departed else None
        return measured

    def run(self) -> dict:
        """Load, backtest, train on the whole history, and forecast; the answer can be written as JSON."""
        self.load().features()
        measured = self.backtest()
        expected = self.fit().predict(self.future)
        return {
            "zone": f"{self.origin}-{self.dest}",
            "origin": self.origin,
            "dest": self.dest,
            "daypart": self.daypart,
            "method": self.method,
            "rows": len(self.training_rows()),
            **measured,
            "forecast": [
                {"date": f"{day:%Y-%m-%d}", "departures": int(count)}
                for day, count in zip(self.future, expected, strict=True)
            ],
        }
