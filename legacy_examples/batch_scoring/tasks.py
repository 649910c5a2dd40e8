"""The tasks: each is a class, or has one as its base that keeps the model."""

import os

import joblib
from celery import Task
from celery.utils.log import get_task_logger
from celery_app import MODEL, app
from data import TRAINED_ON, patients
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

logger = get_task_logger(__name__)


class PredictionTask(Task):
    """Loads the model when it is first needed, once per worker process."""

    abstract = True
    _model = None
    loads = 0

    @property
    def model(self):
        if self._model is None:
            logger.info("loading %s", MODEL)
            self._model = joblib.load(MODEL)
            self.loads += 1
        return self._model

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        logger.error("scoring %r failed: %r", args, exc)


class Train(Task):
    """Train the model and write it to its file; how much of what it was trained on it gets right."""

    name = "tasks.train"

    def run(self, penalty=1.0):
        measurements, malignant = patients()
        model = make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=1000))
        model.fit(measurements[:TRAINED_ON], malignant[:TRAINED_ON])
        draft = f"{MODEL}.{os.getpid()}"
        joblib.dump(model, draft)
        os.replace(draft, MODEL)
        return float(model.score(measurements[:TRAINED_ON], malignant[:TRAINED_ON]))


train = app.register_task(Train())


@app.task(base=PredictionTask, bind=True)
def predict(self, patient):
    """The probability that a patient's tumour is malignant."""
    measurements, _ = patients()
    return round(float(self.model.predict_proba(measurements[[patient]])[0, 1]), 6)


@app.task(base=PredictionTask, bind=True)
def score(self, first, last):
    """Score a batch of patients and compare with what they have."""
    measurements, malignant = patients()
    probability = self.model.predict_proba(measurements[first:last])[:, 1]
    found, there = probability >= 0.5, malignant[first:last]
    return {
        "patients": len(probability),
        "found": int((found & there).sum()),
        "missed": int((~found & there).sum()),
        "false_alarms": int((found & ~there).sum()),
        "probability": round(float(probability.sum()), 6),
        "pid": os.getpid(),
        "loads": self.loads,
    }


@app.task
def merge(batches):
    """Add the batches up."""
    sums = ("patients", "found", "missed", "false_alarms", "probability")
    loads = {batch["pid"]: batch["loads"] for batch in batches}
    return {
        **{key: round(sum(batch[key] for batch in batches), 4) for key in sums},
        "batches": len(batches),
        "processes": len(loads),
        "loads": sum(loads.values()),
    }
