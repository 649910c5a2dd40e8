"""Projects of Flask, Django and pydantic, laid out as their own guides do."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

import celery
import pytest

from tests.scripts import Run

PROGRAMS = Path(__file__).parent / "programs"


def _write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))


# As in https://flask.palletsprojects.com/en/stable/patterns/celery/
FLASK = {
    "shop/__init__.py": """
        from flask import Flask
        from raycelery import Celery, Task

        def celery_init_app(app: Flask) -> Celery:
            class FlaskTask(Task):
                def __call__(self, *args: object, **kwargs: object) -> object:
                    with app.app_context():
                        return self.run(*args, **kwargs)

            celery_app = Celery(app.name, task_cls=FlaskTask)
            celery_app.config_from_object(app.config["CELERY"])
            celery_app.set_default()
            app.extensions["celery"] = celery_app
            return celery_app

        def create_app() -> Flask:
            app = Flask(__name__)
            app.config.from_mapping(
                GREETING="hello",
                CELERY=dict(broker_url="redis://localhost", result_backend="redis://localhost",
                            task_ignore_result=True, ray_num_cpus=0.5),
            )
            import json, os
            app.config["CELERY"].update(json.loads(os.environ.get("FLASK_CELERY", "{}")))
            celery_init_app(app)

            from shop import views
            app.register_blueprint(views.bp)
            return app
    """,
    "shop/tasks.py": """
        from celery import shared_task
        from flask import current_app

        @shared_task(ignore_result=False)
        def add_together(a: int, b: int) -> int:
            return a + b

        @shared_task(ignore_result=False)
        def greet(name: str) -> str:
            return f"{current_app.config['GREETING']} {name}"
    """,
    "shop/views.py": """
        from celery.result import AsyncResult
        from flask import Blueprint, request
        from shop import tasks

        bp = Blueprint("tasks", __name__)

        @bp.post("/add")
        def start_add() -> dict[str, object]:
            a, b = request.form.get("a", type=int), request.form.get("b", type=int)
            return {"result_id": tasks.add_together.delay(a, b).id}

        @bp.get("/result/<id>")
        def task_result(id: str) -> dict[str, object]:
            result = AsyncResult(id)
            return {"ready": result.ready(), "value": result.get(timeout=90)}
    """,
    "make_celery.py": """
        from shop import create_app

        flask_app = create_app()
        celery_app = flask_app.extensions["celery"]
    """,
}


@pytest.mark.parametrize(
    ("entry", "env"),
    [
        ("make_celery:flask_app", {}),
        ("shop:create_app()", {"RAYCELERY_APP": "make_celery"}),
        ("shop:create_app()", {"FLASK_CELERY": '{"ray_app": "shop:create_app()"}'}),
    ],
)
def test_a_flask_factory(run: Run, tmp_path: Path, entry: str, env: dict[str, str]) -> None:
    _write(tmp_path, FLASK)
    module, _, name = entry.partition(":")
    script = f"""
        import {module}
        client = {module}.{name}.test_client()
        id = client.post("/add", data={{"a": 20, "b": 22}}).json["result_id"]
        assert client.get(f"/result/{{id}}").json["value"] == 42
        from shop.tasks import greet
        assert greet.delay("ada").get(timeout=90) == "hello ada"
        print("ok")
    """
    run(script, env=env)


def test_a_factory_that_executors_cannot_find_says_how_to_name_it(run: Run, tmp_path: Path) -> None:
    _write(tmp_path, FLASK)
    run("""
        import shop
        from raycelery.errors import ArgumentError
        app = shop.create_app()
        try:
            shop.tasks.greet.delay("ada")
        except ArgumentError as exc:
            assert "ray_app" in str(exc) and "shop:create_app()" in str(exc)
        print("ok")
    """)


# As in https://docs.celeryq.dev/en/stable/django/first-steps-with-django.html
DJANGO = {
    "proj/__init__.py": """
        from .celery import app as celery_app
        __all__ = ("celery_app",)
    """,
    "proj/celery.py": """
        import os
        from raycelery import Celery

        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "proj.settings")
        app = Celery("proj")
        app.config_from_object("django.conf:settings", namespace="CELERY")
        app.autodiscover_tasks()

        @app.task(bind=True, ignore_result=True)
        def debug_task(self):
            print(f"Request: {self.request!r}")
    """,
    "proj/settings.py": """
        from pathlib import Path
        BASE_DIR = Path(__file__).resolve().parent.parent
        SECRET_KEY = "x"
        INSTALLED_APPS = ["orders"]
        DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3",
                                 "OPTIONS": {"timeout": 60}}}
        DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
        TIME_ZONE = "America/New_York"
        USE_TZ = True
        RAY_OF_LIGHT = "the project's own"
        CELERY_BROKER_URL = "redis://localhost"
        CELERY_RESULT_BACKEND = "redis://localhost"
        CELERY_TASK_TIME_LIMIT = 600
        CELERY_RAY_QUEUES = {"reports": {"num_cpus": 2}}
    """,
    "orders/__init__.py": "",
    "orders/models.py": """
        from django.db import models

        class Order(models.Model):
            zone = models.CharField(max_length=10)
            seen = models.IntegerField(default=0)
    """,
    "orders/tasks.py": """
        from celery import shared_task
        from django.db import connection
        from orders.models import Order
        from raycelery.executor import request

        @shared_task
        def see(pk):
            order = Order.objects.get(pk=pk)
            order.seen += 1
            order.save()
            return order.zone

        @shared_task
        def connected():
            before = connection.connection is not None
            Order.objects.count()
            return before

        @shared_task
        def describe(order):
            return f"{order.pk} {order.zone}"

        @shared_task
        def cpus():
            return request.get("CPU")
    """,
}


def test_a_django_project(run: Run, tmp_path: Path) -> None:
    _write(tmp_path, DJANGO)
    run(PROGRAMS / "django_used.py")


@pytest.mark.skipif(celery.VERSION < (5, 5), reason="Celery has pydantic=True since 5.5")
def test_pydantic_tasks(run: Run) -> None:
    run(
        """
        from models import Request, app, hire
        from pydantic import ValidationError

        got = hire.delay({"name": "ada", "zones": ["EWR"]}).get(timeout=90)
        assert got == {"greeting": "ada", "count": 1}, got
        assert hire.delay(Request(name="bob", zones=["EWR", "JFK"]).model_dump()).get(timeout=90)["count"] == 2
        try:
            hire.delay({"name": "eve"}).get(timeout=90)
        except ValidationError as exc:
            assert "zones" in str(exc)
        else:
            raise AssertionError
        print("ok")
        """,
        models="""
        from pydantic import BaseModel
        from raycelery import Celery

        app = Celery("models")

        class Request(BaseModel):
            name: str
            zones: list[str]

        class Answer(BaseModel):
            greeting: str
            count: int

        @app.task(pydantic=True)
        def hire(request: Request) -> Answer:
            assert isinstance(request, Request)
            return Answer(greeting=request.name, count=len(request.zones))
        """,
    )
