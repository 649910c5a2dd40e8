"""Makes the Flask application and, from its settings, the Celery application."""

from celery import Celery
from flask import Flask


def create_app():
    app = Flask(__name__)
    app.config.from_object("config")

    from views import trainings

    app.register_blueprint(trainings)
    return app


def make_celery(app):
    """A Celery application whose tasks run inside the Flask application's context."""
    celery = Celery(
        app.import_name,
        broker=app.config["CELERY_BROKER_URL"],
        backend=app.config["CELERY_RESULT_BACKEND"],
        include=["tasks"],
    )
    celery.conf.update(app.config)
    TaskBase = celery.Task

    class ContextTask(TaskBase):
        abstract = True

        def __call__(self, *args, **kwargs):
            with app.app_context():
                return TaskBase.__call__(self, *args, **kwargs)

    celery.Task = ContextTask
    return celery
