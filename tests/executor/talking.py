"""An application whose tasks print and log."""

from __future__ import annotations

import logging
import subprocess
import sys

from celery.utils.log import get_task_logger

from raycelery import Celery

print("talking is imported")
app = Celery("talking")
app.conf.ray_app = "tests.executor.talking"
app.conf.ray_idle_seconds = 5
logger = get_task_logger(__name__)


@app.task
def says(word: str) -> str:
    print("printed", word)
    print(f"\x1b[31mred\x1b[0m {word}", file=sys.stderr)
    sys.stdout.write("\rhalf of it")
    sys.stdout.write("\rall of it ")
    sys.stdout.write(word)
    logger.info("logged %s", word)
    logging.getLogger("some.library").error("error %s", word)
    return word


@app.task
def runs(word: str) -> int:
    return subprocess.run(["echo", f"echoed {word}"], check=True).returncode


@app.task
def same(number: int) -> None:
    print("the same line")


@app.task
def calls(word: str) -> None:
    says.delay(f"below {word}")


@app.task
def last(values: list[int], word: str) -> int:
    print("last", word)
    return sum(values)


@app.task
def gives(value: int) -> int:
    return value


@app.task
def fails(word: str) -> None:
    raise ValueError(f"fails {word}")


@app.task(bind=True)
def again(self, word: str) -> str:  # type: ignore[no-untyped-def]
    if self.request.retries < 1:
        raise self.retry(countdown=0.01, exc=OSError(f"again {word}"))
    return word


@app.task
def many(count: int) -> None:
    for number in range(count):
        print("many", number)
