"""Applications and tasks that are made inside a function."""

from __future__ import annotations

from pathlib import Path

from tests import scripts
from tests.scripts import Run
from tests.support import RaySession


def test_factories_and_closures(run: Run) -> None:
    run(
        """
        from factory import create, make_task

        flask_like, celery, add_user = create("north", result_expires=600)
        assert add_user.delay("ada").get(timeout=90) == "ada of north"
        assert celery.conf.result_expires == 600

        twice, thrice = make_task(celery, "twice", 2), make_task(celery, "thrice", 3)
        assert (twice.delay(5).get(timeout=90), thrice.delay(5).get(timeout=90)) == (10, 15)
        print("ok")
        """,
        factory="""
        from raycelery import Celery, Task

        class Web:
            depth = 0
            def __init__(self, config):
                self.config = config
            def __enter__(self):
                Web.depth += 1
            def __exit__(self, *exc_info):
                Web.depth -= 1

        def create(tenant, **settings):
            web = Web({"TENANT": tenant})

            class ContextTask(Task):
                def __call__(self, *args, **kwargs):
                    with web:
                        return self.run(*args, **kwargs)

            celery = Celery("factory", task_cls=ContextTask)
            celery.conf.update(settings)

            @celery.task
            def add_user(name):
                assert Web.depth == 1
                return f"{name} of {web.config['TENANT']}"

            return web, celery, add_user

        def make_task(app, name, factor):
            @app.task(name=name)
            def times(x):
                return x * factor
            return times
        """,
    )


def test_module_globals_of_closures_are_the_modules_own(run: Run) -> None:
    run(
        """
        from flaskish import make_celery
        celery = make_celery("north")
        assert celery.tasks["count"].delay().get(timeout=90) == ("north", 1, "pushed")
        assert celery.tasks["count"].delay().get(timeout=90) == ("north", 2, "pushed")
        print("ok")
        """,
        flaskish="""
        import threading
        from raycelery import Celery
        from celery.signals import task_prerun

        lock = threading.Lock()  # could not be pickled
        counter = 0
        context = None

        def make_celery(tenant):
            app = Celery("flaskish")

            @app.task(name="count")
            def count():
                global counter
                with lock:
                    counter += 1
                return tenant, counter, context

            @task_prerun.connect(weak=False)
            def push(**_):
                global context
                context = "pushed"

            return app
        """,
    )


def test_two_projects_whose_modules_have_the_same_names(ray_session: RaySession, tmp_path: Path) -> None:
    script = """
    from project import where
    assert where.delay().get(timeout=90) == {name!r}
    print("ok")
    """
    project = """
    from raycelery import Celery
    app = Celery("namesakes")
    @app.task
    def where():
        import helper
        return helper.name
    """
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        scripts.run(folder, script.format(name=name), ray_session.address, project=project, helper=f"name = {name!r}")
