"""The tasks: fetch, clean, fit; report; and what is done about those that fail."""

import json
from pathlib import Path

import numpy as np
import source
from celery.utils.log import get_task_logger
from celery_app import app
from sklearn.linear_model import LinearRegression

logger = get_task_logger(__name__)


@app.task(
    bind=True,
    autoretry_for=(source.SourceUnavailable,),
    retry_backoff=1,
    retry_backoff_max=10,
    retry_jitter=False,
    max_retries=2,
)
def fetch(self, destination):
    """Get the delays of a destination's flights from the service; ask again, later and later."""
    logger.info("fetching %s, attempt %d", destination, self.request.retries + 1)
    return {
        "destination": destination,
        "delays": source.fetch(destination),
        "attempts": self.request.retries + 1,
    }


@app.task
def clean(fetched):
    """Leave out the flights that never left or never arrived, and those off by more than three hours."""
    delays = [pair for pair in fetched["delays"] if None not in pair and max(map(abs, pair)) <= 180]
    if len(delays) < 30:
        raise source.BadData(f"{fetched['destination']} has {len(delays)} flights: 30 are needed")
    return {**fetched, "delays": delays}


@app.task(bind=True, max_retries=1, default_retry_delay=1)
def fit(self, cleaned):
    """How much of a minute's delay at departure is left on arrival."""
    if self.request.retries == 0 and cleaned["destination"] == "MIA":
        # As happens: the solver of the first try did not converge.
        raise self.retry(exc=RuntimeError("no convergence"), countdown=0.5)
    departure, arrival = np.array(cleaned["delays"], dtype=float).T
    model = LinearRegression().fit(departure[:, None], arrival)
    return {
        "destination": cleaned["destination"],
        "attempts": cleaned["attempts"],
        "fits": self.request.retries + 1,
        "flights": len(departure),
        "kept": round(float(model.coef_[0]), 3),
        "made_good": round(float(-model.intercept_), 1),
    }


@app.task
def report(models):
    """The destinations in the order of what is made good on the way."""
    ranking = sorted(models, key=lambda model: -model["made_good"])
    return [model["destination"] for model in ranking]


@app.task
def dead_letter(request, exc, traceback, destination):
    """An errback: keep what failed for good, and why."""
    entry = {"destination": destination, "task": request.task, "retries": request.retries, "error": repr(exc)}
    logger.error("%s failed for good: %r", destination, exc)
    _append("dead_letters.jsonl", entry)


@app.task
def report_failed(request, exc, traceback):
    """An errback of the report: some of its parts did not come."""
    _append("failed_reports.jsonl", {"error": type(exc).__name__})


def _append(name, entry):
    source.STATE.mkdir(parents=True, exist_ok=True)
    with open(Path(source.STATE, name), "a") as file:
        file.write(json.dumps(entry) + "\n")
