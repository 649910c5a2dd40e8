"""The tasks that beat sends, and those that they send."""

import json
import os
from pathlib import Path

import departures
import joblib
import pandas as pd
from celery import chord, shared_task
from celery.utils.log import get_task_logger
from sklearn.ensemble import GradientBoostingRegressor

logger = get_task_logger(__name__)

MODELS = Path(os.environ.get("MODELS", "models"))
#: Days at the end of what is known that a model is tested on.
TEST_DAYS = 28


def _write(path, write):
    """Write a file so that nobody reads half of it."""
    MODELS.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    write(draft)
    os.replace(draft, path)


@shared_task(bind=True)
def retrain_all(self, airports, until=departures.LAST):
    """Train a model per airport on what is known until a day, then publish them together."""
    logger.info("training %s until %s", ", ".join(airports), until)
    raise self.replace(chord([retrain_one.s(airport, until) for airport in airports], publish.s(until=until)))


@shared_task(acks_late=True, soft_time_limit=600)
def retrain_one(airport, until):
    """Train one airport's model, and test it on the last four weeks."""
    table, count = departures.features(airport)
    table = table.loc[:until].dropna()
    count = count.loc[table.index]
    model = GradientBoostingRegressor(random_state=0, n_estimators=60, max_depth=3)
    model.fit(table[:-TEST_DAYS], count[:-TEST_DAYS])
    error = float((model.predict(table[-TEST_DAYS:]) - count[-TEST_DAYS:]).abs().mean())
    model.fit(table, count)
    path = MODELS / f"{airport}-{until}.joblib"
    _write(path, lambda draft: joblib.dump(model, draft))
    return {"airport": airport, "days": len(table), "error": round(error, 2), "file": path.name}


@shared_task
def publish(models, until):
    """Make the models those that are used."""
    current = {"until": until, "models": {model["airport"]: model for model in models}}
    _write(MODELS / "current.json", lambda draft: draft.write_text(json.dumps(current, indent=2)))
    return current


@shared_task
def check(largest_error):
    """Tell the airports whose model in use is off by more departures a day than it should be."""
    path = MODELS / "current.json"
    if not path.exists():
        return {"until": None, "airports": []}
    current = json.loads(path.read_text())
    worse = [airport for airport, model in current["models"].items() if model["error"] > largest_error]
    for airport in worse:
        logger.warning("the model of %s is off by more than %g departures a day", airport, largest_error)
    return {"until": current["until"], "airports": worse}


@shared_task
def clean_models(keep):
    """Remove all but the last models of each airport; the files that went."""
    removed = []
    for airport in departures.by_day().columns:
        removed += sorted(MODELS.glob(f"{airport}-*.joblib"))[:-keep]
    for path in removed:
        path.unlink()
    return [path.name for path in removed]


@shared_task
def tomorrow(airport):
    """The departures that the model in use expects on the day after the last one that it knows."""
    current = json.loads((MODELS / "current.json").read_text())
    model = joblib.load(MODELS / current["models"][airport]["file"])
    day = pd.Timestamp(current["until"]) + pd.Timedelta(days=1)
    table, _ = departures.features(airport)
    return [f"{day:%Y-%m-%d}", round(float(model.predict(table.loc[[day]])[0]), 1)]
