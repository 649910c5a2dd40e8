from celery import bootsteps
from celery.app.log import Logging
from celery.loaders.app import AppLoader

from raycelery import Celery

app = Celery("parts")
told = []


class Log(Logging):
    def setup_logging_subsystem(self, *args, **kwargs):
        told.append("log")
        return super().setup_logging_subsystem(*args, **kwargs)


class Loader(AppLoader):
    def on_worker_process_init(self):
        told.append("loader")


class Step(bootsteps.Step):
    def __init__(self, worker, **options):
        told.append(f"step of {worker.app.main}")


app.log = Log(app)
app.loader = Loader(app)
app.steps["worker"].add(Step)


@app.task
def what():
    return sorted(told), type(app.log).__name__, type(app.loader).__name__


if __name__ == "__main__":
    found = what.delay().get(timeout=80)
    assert found == (["loader", "log", "step of parts"], "Log", "Loader"), found
    print("ok")
