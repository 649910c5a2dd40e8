"""Start trainings on the server and follow their progress.

python train.py                                   # networks of 16, 32 and 64 neurons
python train.py 100 --url http://127.0.0.1:8000
"""

import argparse
import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request


def call(url, **form):
    data = urllib.parse.urlencode(form).encode() if form else None
    with urllib.request.urlopen(url, data, timeout=120) as response:
        return json.load(response)


def follow(url, patience):
    """Poll a training until it ends; what it said last."""
    seen, deadline = None, time.monotonic() + patience
    while time.monotonic() < deadline:
        status = call(url)
        if status["state"] not in ("PENDING", "STARTED", "PROGRESS"):
            return status
        if status["state"] == "PROGRESS" and status["info"] != seen:
            seen = status["info"]
            print("epoch {epoch} of {epochs}: {accuracy:.1%} right".format(**seen), file=sys.stderr)
        time.sleep(0.1)
    sys.exit(f"{url} has not ended after {patience:g} s: is a celery worker running?")


def main():
    parser = argparse.ArgumentParser(description="Train networks that read digits.")
    parser.add_argument("hidden", nargs="*", type=int, default=[16, 32, 64], help="neurons (16 32 64)")
    parser.add_argument("--url", default="http://127.0.0.1:5000", help="of the server (%(default)s)")
    parser.add_argument("--patience", type=float, default=300, help="seconds to wait for a training (%(default)s)")
    arguments = parser.parse_args()

    failed = 0
    try:
        started = [(hidden, call(f"{arguments.url}/trainings", hidden=hidden)["id"]) for hidden in arguments.hidden]
        for hidden, task_id in started:
            status = follow(f"{arguments.url}/trainings/{task_id}", arguments.patience)
            if status["state"] == "SUCCESS":
                print("{hidden:4} neurons: {accuracy:.1%} of the digits read right".format(**status["info"]))
            else:
                failed += 1
                print(f"{hidden:4} neurons: {status['state']}, {status['error']}: {status['message']}")
    except urllib.error.URLError as error:
        sys.exit(f"cannot reach {arguments.url}: start the server with 'flask --app wsgi run' ({error})")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
