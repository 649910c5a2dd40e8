"""Run the pipeline for some destinations, whatever becomes of each, then report on those that came through.

python run.py
python run.py MIA SEA HNL
"""

import argparse
import json
import shutil
import sys
import time

import source
from celery import chain, chord, group
from celery.exceptions import TimeoutError
from tasks import clean, dead_letter, fetch, fit, report, report_failed

DESTINATIONS = ["ORD", "LAX", "BOS", "MIA", "SEA", "HNL", "LGA"]


def pipeline(destination):
    steps = chain(fetch.s(destination), clean.s(), fit.s())
    return steps.on_error(dead_letter.s(destination=destination))


def written(name, count, timeout):
    """What errbacks wrote; they run after the one who waits for the failure may have gone on."""
    path, deadline = source.STATE / name, time.monotonic() + timeout
    while time.monotonic() < deadline:
        lines = path.read_text().splitlines() if path.exists() else []
        if len(lines) >= count:
            return sorted((json.loads(line) for line in lines), key=json.dumps)
        time.sleep(0.05)
    raise TimeoutError(f"{path} has not got {count} lines")


def run(destinations, timeout):
    done, failed = [], []
    results = group(pipeline(destination) for destination in destinations).apply_async()
    for destination, result in zip(destinations, results):
        try:
            model = result.get(timeout=timeout)
        except (source.SourceUnavailable, source.BadData) as error:
            failed.append(destination)
            print(f"{destination}: {type(error).__name__}: {error}; asked {source.requests(destination)} times")
        else:
            done.append(destination)
            print(
                "{destination}: {flights} flights, {kept:.0%} of a delay is kept, {made_good} minutes made good;"
                " attempt {attempts} to fetch, {fits} to fit".format(**model)
            )
    for letter in written("dead_letters.jsonl", len(failed), timeout):
        print("dead letter: {destination} in {task} after {retries} retries: {error}".format(**letter))

    if done:
        ranking = chord([pipeline(destination) for destination in done], report.s()).apply_async()
        print("made good most on the way:", *ranking.get(timeout=timeout))
    if failed:
        # With a part that fails there is no report.
        body = report.s().on_error(report_failed.s())
        whole = chord([pipeline(destination) for destination in [*done, failed[0]]], body)()
        error = whole.get(timeout=timeout, propagate=False)
        print(f"no report with {failed[0]}: {whole.state}, {type(error).__name__}")
        print("noted:", *(entry["error"] for entry in written("failed_reports.jsonl", 1, timeout)))


def main():
    parser = argparse.ArgumentParser(description="Run the pipeline.")
    parser.add_argument("destinations", nargs="*", default=DESTINATIONS, help="airports (%(default)s)")
    parser.add_argument("--timeout", type=float, default=300, help="seconds to wait for an answer (%(default)s)")
    arguments = parser.parse_args()

    # The service forgets what it has refused, so each run goes as the one before.
    shutil.rmtree(source.STATE, ignore_errors=True)
    try:
        run(arguments.destinations, arguments.timeout)
    except TimeoutError as error:
        sys.exit(f"{error}: is a worker running? 'celery -A celery_app worker' starts one")
    return 0


if __name__ == "__main__":
    sys.exit(main())
