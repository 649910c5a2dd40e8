"""The tasks."""

import warnings

from celery.utils.log import get_task_logger
from flask import current_app
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from wsgi import celery

logger = get_task_logger(__name__)


@celery.task(bind=True)
def train(self, hidden):
    """Train a network of `hidden` neurons to read digits; tell after each epoch how well it does."""
    if not 1 <= hidden <= 1000:
        raise ValueError(f"{hidden} neurons cannot be trained: ask for 1 to 1000")
    epochs = current_app.config["EPOCHS"]
    images, digits = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(
        images / 16, digits, test_size=current_app.config["TEST_SHARE"], random_state=0, stratify=digits
    )
    model = MLPClassifier((hidden,), random_state=0, max_iter=8, warm_start=True, batch_size=50)
    history = []
    for epoch in range(epochs):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(train_x, train_y)
        history.append(round(float(model.score(test_x, test_y)), 4))
        self.update_state(state="PROGRESS", meta={"epoch": epoch + 1, "epochs": epochs, "accuracy": history[-1]})
        logger.info("epoch %d of %d: %.1f%% right", epoch + 1, epochs, 100 * history[-1])
    return {"hidden": hidden, "images": len(train_x), "accuracy": history[-1], "history": history}
