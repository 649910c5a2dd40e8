"""The tasks."""

import numpy as np
from celery import shared_task
from celery.utils.log import get_task_logger
from django.db.models import Avg, Count
from django.utils import timezone
from sklearn.linear_model import Ridge

from .models import Training

logger = get_task_logger(__name__)

WEEK, TEST_DAYS, LEAST_DAYS = 7, 28, 120


def features(counts, days):
    """The same weekday of the four weeks before, and the weekday."""
    return np.array(
        [
            [counts[day - WEEK * week] for week in range(1, 5)] + [float(day % WEEK == d) for d in range(WEEK)]
            for day in days
        ]
    )


@shared_task(bind=True, ignore_result=True)
def train(self, training_id):
    """Make a forecast and write it, or why there is none, to its row."""
    training = Training.objects.select_related("zone").get(pk=training_id)
    training.state = Training.State.RUNNING
    training.save(update_fields=["state"])
    counts = list(training.zone.history.values_list("count", flat=True))
    try:
        if len(counts) < LEAST_DAYS:
            raise ValueError(f"{training.zone} has {len(counts)} days: {LEAST_DAYS} are needed")
        known = range(4 * WEEK, len(counts))
        fit, test = known[:-TEST_DAYS], known[-TEST_DAYS:]
        model = Ridge().fit(features(counts, fit), [counts[day] for day in fit])
        predicted = model.predict(features(counts, test))
        training.error = round(float(np.abs(predicted - [counts[day] for day in test]).mean()), 3)
        model.fit(features(counts, known), [counts[day] for day in known])
        week = model.predict(features(counts, range(len(counts), len(counts) + WEEK)))
        training.forecast = [max(0, round(float(count))) for count in week]
        training.state = Training.State.DONE
    except ValueError as error:
        logger.warning("training %d: %s", training_id, error)
        training.problem = str(error)
        training.state = Training.State.FAILED
    training.finished = timezone.now()
    training.save()


@shared_task
def summary(training_ids):
    """How many trainings came to which end, and their error."""
    trainings = Training.objects.filter(pk__in=training_ids)
    states = trainings.order_by("state").values_list("state").annotate(Count("pk"))
    return {"states": dict(states), "error": trainings.aggregate(error=Avg("error"))["error"]}
