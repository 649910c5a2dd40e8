"""What a script sets on its application after it has made it is there in executors, or is refused by name."""

from __future__ import annotations

from pathlib import Path

from tests.scripts import Run


def package(folder: Path, **modules: str) -> None:
    """Write a package `shop`."""
    (folder / "shop").mkdir()
    for name, text in {"__init__": "", **modules}.items():
        (folder / "shop" / f"{name}.py").write_text(text)


def test_what_is_set_on_an_application(run: Run, tmp_path: Path) -> None:
    package(tmp_path, tasks="from celery import shared_task\n\n@shared_task\ndef hello():\n    return 'hello'\n")
    run(
        """
        from raycelery import Celery
        from celery import signals
        from kombu import Queue
        import hooks

        app = Celery("set", strict_typing=False)
        events = []

        class ContextTask(app.Task):
            def __call__(self, *args, **kwargs):
                events.append("context")
                return self.run(*args, **kwargs)

        # Flask's recipe.
        app.Task = ContextTask
        app.rate = 7
        app.user_options["worker"].add("--shop")
        app.autodiscover_tasks(["shop"])
        app.amqp.queues.add(Queue("odd", routing_key="even"))
        app.amqp.argsrepr_maxsize = 7

        @signals.worker_init.connect
        def init(sender=None, **_):
            events.append(f"worker_init {sender.app.main}")

        @signals.import_modules.connect
        def modules(**_):
            events.append("import_modules")

        @app.on_after_configure.connect
        def configured(sender, **_):
            sender.add_periodic_task(60, what.s())
            events.append("configured")

        @app.on_after_finalize.connect
        def finalized(sender, **_):
            events.append("finalized")

        app.on_after_finalize.connect(hooks.finalized)

        @app.task(bind=True)
        def what(self):
            return events, app.rate, self.max_retries, len(app.conf.beat_schedule)

        @app.task
        def sent():
            return app.amqp.queues["odd"].routing_key, app.amqp.argsrepr_maxsize, len(app.user_options["worker"])

        @app.task
        def untyped(x):
            return what.apply_async((1, 2, 3), countdown=600).revoke()

        @app.task
        def setting():
            return app.conf.get("shop_limit"), app.conf.task_ignore_result

        what.max_retries = 9
        app.finalize()  # calls the hooks here
        events.clear()
        seen, *others = what.delay().get(timeout=80)
        assert sorted(seen) == [
            "configured", "context", "finalized", "hooks", "import_modules", "worker_init set"], seen
        assert others == [7, 9, 1], others
        assert sent.delay().get(timeout=80) == ("even", 7, 1)
        assert app.send_task("shop.tasks.hello").get(timeout=80) == "hello"
        untyped.delay(1).get(timeout=80)
        assert setting.delay().get(timeout=80) == (None, False)
        app.conf.shop_limit = 3
        assert setting.delay().get(timeout=80) == (3, False)
        app.rate = 8
        assert what.delay().get(timeout=80)[1] == 8
        print("ok")
        """,
        hooks="""
        def finalized(sender, **_):
            import __main__
            __main__.events.append("hooks")
        """,
    )


def test_what_a_script_registers_with_kombu(run: Run) -> None:
    run("""
        import bz2, json
        from kombu import compression, serialization
        from kombu.utils.json import register_type
        from raycelery import Celery

        class Zone:
            def __init__(self, name):
                self.name = name

        def dump(value):
            return json.dumps(value)[::-1]

        def load(text):
            return json.loads(text[::-1])

        def shrink(data):
            return b"mine" + bz2.compress(data)

        def grow(data):
            return bz2.decompress(data[4:])

        serialization.register("reversed", dump, load, content_type="application/x-reversed")
        register_type(Zone, "zone", lambda zone: zone.name, Zone)
        compression.register(shrink, grow, "application/x-mine", aliases=["mine"])
        app = Celery("registered")
        app.conf.update(task_serializer="reversed", result_serializer="reversed", task_compression="mine",
                        accept_content=["reversed", "json"])

        @app.task
        def double(x):
            return x * 2

        @app.task(serializer="json")
        def name(zone):
            return zone.name

        assert double.delay(2).get(timeout=80) == 4
        assert name.delay(Zone("EWR")).get(timeout=80) == "EWR"
        print("ok")
    """)


def test_a_module_of_a_package_that_is_run_with_its_tasks(run: Run, tmp_path: Path) -> None:
    tasks = """
from raycelery import Celery
from .conf import LIMIT

app = Celery("relative")
app.config_from_object("__main__")
task_time_limit = 50
lock = __import__("threading").Lock()

@app.task
def limits():
    from . import conf
    from .conf import LIMIT as again
    return LIMIT, again, conf.LIMIT, app.conf.task_time_limit

if __name__ == "__main__":
    assert limits.delay().get(timeout=80) == (5, 5, 5, 50)
    print("ok")
"""
    package(tmp_path, conf="LIMIT = 5\n", tasks=tasks)
    run("import subprocess, sys\nsys.exit(subprocess.call([sys.executable, '-m', 'shop.tasks']))")


def test_what_cannot_travel_is_refused_by_its_name(run: Run) -> None:
    run("""
        import threading
        from kombu import serialization
        from raycelery import Celery
        from raycelery.errors import ArgumentError

        lock = threading.Lock()

        def guarded(*args, **kwargs):
            with lock:
                return args

        class Named(Celery):
            def __init__(self, name):
                super().__init__(name)

        def attribute(app):
            app.guard = lock

        def setting(app):
            app.conf.shop_guard = lock

        def packages(app):
            app.autodiscover_tasks(lambda: [lock])

        def hook(app):
            app.on_after_configure.connect(guarded)

        def task(app):
            app.tasks["refused.work"].guard = lock

        def serializer(app):
            serialization.register("guarded", guarded, guarded, content_type="application/x-guarded")

        def refused(change, word, app):
            @app.task(name="refused.work", shared=False)
            def work():
                pass
            if change:
                change(app)
            try:
                work.delay()
            except ArgumentError as exc:
                assert word in str(exc) and "refused" in str(exc) or "kombu" in word, exc
            else:
                raise AssertionError(word)

        for change, word in [
            (attribute, "guard"), (setting, "'shop_guard'"), (packages, "autodiscover_tasks"),
            (hook, "hooks"), (task, "'guard' of the task"), (serializer, "kombu"),
        ]:
            refused(change, word, Celery("refused", set_as_current=False))
        serialization.unregister("guarded")
        refused(None, "Named", Named("refused"))
        print("ok")
    """)
