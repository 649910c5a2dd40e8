"""How long each command takes for a code base of so many lines: ``python -m tests.migration.speed [LINES] [--jobs N]``

The code base is written anew to a scratch folder: packages of models, views, tasks that call each other across files,
and modules that have nothing to do with Celery, which are most, as they are in real ones.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PLAIN = '''"""Prices of part {number}."""

import logging
import math
from dataclasses import dataclass, field

logger = logging.getLogger(__name__)


@dataclass
class Price{number}:
    """One price."""

    amount: float
    tax: float = 0.2
    history: list[float] = field(default_factory=list)

    def gross(self, factor: float = 1.0) -> float:
        # as the tax office has it
        if self.amount < 0 or not math.isfinite(self.amount):
            raise ValueError(f"{{self.amount!r}} is no amount")
        self.history.append(self.amount * factor)
        return round(self.amount * factor * (1 + self.tax), 2)

    def delay(self, days: int) -> "Price{number}":
        return Price{number}(self.amount * 1.01 ** days, self.tax, [*self.history, self.amount])


def total(prices, *, limit=None):
    found = {{price.amount: price.gross() for price in prices if limit is None or price.amount < limit}}
    logger.info("%d prices", len(found))
    return sum(found.values())


'''
TASKS = '''from celery import chain, group, shared_task
from celery.utils.log import get_task_logger

from shop.part{before}.tasks import price as price_before

logger = get_task_logger(__name__)


@shared_task(bind=True, autoretry_for=(OSError,), max_retries=3)
def price(self, amount, tax=0.2):
    """The price of part {number}."""
    logger.info("price of %s, try %d", amount, self.request.retries)
    return amount * (1 + tax)


@shared_task
def both(amounts):
    results = [price.delay(amount) for amount in amounts]
    price_before.delay(1)
    group(price.s(amount) for amount in amounts)()
    chain(price.s(1), price_before.s())()
    return [result.get(timeout=10) for result in results]


'''
VIEWS = """from celery.result import AsyncResult

from shop.part{number}.tasks import both, price


def start(request):
    return {{"id": price.delay(request["amount"]).id, "all": both.delay([1, 2, 3]).id}}


def status(request, task_id):
    result = AsyncResult(task_id)
    return {{"state": result.state, "info": result.info}}


"""
FILES = {"models.py": PLAIN * 5, "forms.py": PLAIN * 4, "tasks.py": TASKS, "views.py": VIEWS}


def write(folder: Path, lines: int) -> int:
    """Write a code base of so many lines at least; how many there are."""
    written = number = 0
    (folder / "shop").mkdir(parents=True)
    (folder / "shop" / "__init__.py").touch()
    while written < lines:
        part = folder / "shop" / f"part{number}"
        part.mkdir()
        (part / "__init__.py").touch()
        for name, template in FILES.items():
            text = template.format(number=number, before=max(0, number - 1))
            (part / name).write_text(text, encoding="utf-8")
            written += text.count("\n")
        number += 1
    return written


def main(lines: int, jobs: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "project"
        written = write(folder, lines)
        files = sum(1 for _ in folder.rglob("*.py"))
        print(f"{written} lines in {files} files, {jobs} processes")
        for command in ("check", "shim", "actors"):
            begun = time.monotonic()
            subprocess.run(
                [sys.executable, "-m", "raycelery.migrate", command, "--jobs", str(jobs), str(folder)],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
            )  # fmt: skip
            print(f"{command}: {time.monotonic() - begun:.1f} s", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lines", nargs="?", type=int, default=100_000)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    main(options.lines, options.jobs)
