"""Train a model per zone and part of the day, and write all forecasts to a CSV file.

python train_all.py                                     # all zones
python train_all.py --zones 3 --output forecasts.csv    # the three with most departures
"""

import argparse
import csv
import sys
import time
from pathlib import Path

from celery.exceptions import TimeoutError
from celery_app import app
from data import Partition, catalog, partitions
from kombu.exceptions import OperationalError
from tasks import train_zone
from tqdm import tqdm

COLUMNS = ("origin", "dest", "daypart", "date", "departures", "method", "model_mae", "baseline_mae")


def publish(jobs: list[Partition]) -> list:
    """One task per partition."""
    try:
        return [train_zone.delay(*job) for job in tqdm(jobs, desc="publish", unit="task")]
    except OperationalError as error:
        broker = app.conf.broker_url
        sys.exit(f"cannot reach the broker {broker}: start redis-server or set CELERY_BROKER_URL ({error})")
    except RuntimeError as error:
        if "result store" not in str(error):
            raise
        backend = app.conf.result_backend
        sys.exit(f"cannot reach the results {backend}: start redis-server or set CELERY_RESULT_BACKEND")


def collect(results: list, timeout: float) -> tuple[list[dict], list[str]]:
    """Wait for the tasks; what they returned, and the errors of those that failed, in the order of the tasks."""
    done, failed = [], []
    with tqdm(results, desc="train", unit="task") as progress:
        for result in progress:
            answer = result.get(timeout=timeout, propagate=False)
            if result.successful():
                done.append(answer)
            else:
                failed.append(f"{result.id}: {answer!r}")
            progress.set_postfix(done=len(done), failed=len(failed))
    return done, failed


def write(forecasts: list[dict], output: Path) -> None:
    """One line per partition and day."""
    with output.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        for forecast in forecasts:
            writer.writerows({**forecast, **day} for day in forecast["forecast"])


def compare(forecasts: list[dict]) -> str:
    """How the models did in the backtest, against the same weekday of the week before."""
    departures = sum(one["backtest_departures"] for one in forecasts)
    lines = []
    for name in ("model", "baseline"):
        mae = sum(one[f"{name}_mae"] for one in forecasts) / len(forecasts)
        share = mae * 28 * len(forecasts) / departures
        lines.append(f"{name:8}  off by {mae:.3f} departures a day and partition, {share:.1%} of all departures")
    better = sum(one["model_mae"] < one["baseline_mae"] for one in forecasts)
    worse = sum(one["model_mae"] > one["baseline_mae"] for one in forecasts)
    equal = len(forecasts) - better - worse
    lines.append(f"the model is better on {better} partitions, equal on {equal}, worse on {worse}")
    return "\n".join(lines)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Train a model per zone and part of the day.")
    parser.add_argument("--zones", type=int, help="train only this many zones, those with most departures first")
    parser.add_argument("--output", type=Path, default=Path("forecasts.csv"), help="CSV file (%(default)s)")
    parser.add_argument("--timeout", type=float, default=600, help="seconds to wait for one task (%(default)s)")
    arguments = parser.parse_args()

    try:
        methods = catalog()["method"].value_counts()
        jobs = partitions(arguments.zones)
    except (RuntimeError, ValueError) as error:
        sys.exit(str(error))
    print(
        f"{len(catalog())} partitions: {methods['model']} have enough days for a model,"
        f" {methods['average']} for a moving average, {methods['refused']} are refused"
    )
    began = time.monotonic()
    try:
        done, failed = collect(publish(jobs), arguments.timeout)
    except TimeoutError:
        sys.exit(
            f"a task has no result after {arguments.timeout:g} s:"
            " is a worker running? 'celery -A celery_app worker -c 2' starts one"
        )
    write(done, arguments.output)
    wall = time.monotonic() - began
    cpu = sum(one["cpu_seconds"] for one in done)
    processes = len({one["pid"] for one in done})
    print(f"{len(done)} trained, {len(failed)} failed in {wall:.1f} s; {cpu:.1f} CPU seconds in {processes} processes")
    for method, name in (("model", "with a model"), ("average", "with a moving average")):
        forecasts = [one for one in done if one["method"] == method]
        if forecasts:
            print(f"\n{len(forecasts)} partitions {name}, backtested on their last 28 days:\n{compare(forecasts)}")
    if failed:
        print("\nfailed:", *failed, sep="\n  ", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
