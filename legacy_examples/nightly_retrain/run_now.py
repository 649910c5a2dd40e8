"""Send what is on the schedule once, now and in its order, and wait for each; for the day after an outage.

python run_now.py                                # all of it
python run_now.py retrain-nightly --until 2013-11-30
"""

import argparse
import sys

from celery.exceptions import TimeoutError
from celery_app import app


def main():
    schedule = app.conf.beat_schedule
    parser = argparse.ArgumentParser(description="Run what is scheduled once, now.")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(schedule)}; all if none is given")
    parser.add_argument("--until", help="train on what was known until this day (2013-12-31)")
    parser.add_argument("--timeout", type=float, default=300, help="seconds to wait for one (%(default)s)")
    arguments = parser.parse_args()

    unknown = [name for name in arguments.names if name not in schedule]
    if unknown:
        parser.error(f"{', '.join(unknown)} is not on the schedule, which has {', '.join(schedule)}")
    for name in arguments.names or schedule:
        entry = schedule[name]
        kwargs = dict(entry.get("kwargs") or {})
        if arguments.until and entry["task"] == "tasks.retrain_all":
            kwargs["until"] = arguments.until
        result = app.send_task(entry["task"], entry.get("args"), kwargs, **entry.get("options", {}))
        try:
            print(f"{name}: {show(result.get(timeout=arguments.timeout))}")
        except TimeoutError:
            sys.exit(
                f"{name} has no result after {arguments.timeout:g} s: is a worker running for its queue?"
                " 'celery -A celery_app worker' starts one for all"
            )
    return 0


def show(value):
    if isinstance(value, dict) and "models" in value:
        models = value["models"].values()
        text = ", ".join("{airport} off by {error:.1f} departures a day".format(**model) for model in models)
        return f"until {value['until']}: {text}"
    return value


if __name__ == "__main__":
    sys.exit(main())
