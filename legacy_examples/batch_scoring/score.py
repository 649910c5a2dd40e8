"""Train the model, score all patients in batches, and look at the first ones one by one.

python score.py
python score.py --batch 10
"""

import argparse
import sys

from celery import chord
from celery.exceptions import TimeoutError
from data import patients
from tasks import merge, predict, score, train


def main():
    parser = argparse.ArgumentParser(description="Score patients in batches.")
    parser.add_argument("--batch", type=int, default=25, help="patients in a batch (%(default)s)")
    parser.add_argument("--look-at", type=int, default=40, help="patients to score one by one (%(default)s)")
    parser.add_argument("--timeout", type=float, default=300, help="seconds to wait for an answer (%(default)s)")
    arguments = parser.parse_args()

    count = len(patients()[1])
    try:
        accuracy = train.delay(penalty=0.5).get(timeout=arguments.timeout)
        print(f"trained: {accuracy:.1%} right on what it was trained on")

        batches = [(first, min(first + arguments.batch, count)) for first in range(0, count, arguments.batch)]
        report = chord(score.s(*batch) for batch in batches)(merge.s()).get(timeout=arguments.timeout)
        print(
            f"{report['patients']} patients in {report['batches']} batches:"
            f" {report['found']} malignant found, {report['missed']} missed, {report['false_alarms']} false alarms,"
            f" {report['probability']:.2f} expected"
        )
        print(f"the model was loaded {report['loads']} times in {report['processes']} processes", file=sys.stderr)

        one_by_one = predict.chunks(((patient,) for patient in range(arguments.look_at)), 10)
        chunks = one_by_one.apply_async().get(timeout=arguments.timeout)
        for number, chunk in enumerate(chunks):
            print(f"patients {10 * number:3}...", *(f"{probability:.3f}" for probability in chunk))
    except TimeoutError:
        sys.exit(
            f"no answer after {arguments.timeout:g} s: is a worker running? 'celery -A celery_app worker' starts one"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
