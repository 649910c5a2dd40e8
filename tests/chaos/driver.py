"""A program that calls tasks and is killed: it says which calls the dispatcher has taken.

    python -m tests.chaos.driver FILE FIRST COUNT

Prints a line for each portion: its task ids, once they are in the dispatcher's hands.
"""

from __future__ import annotations

import sys

from raycelery.protocol import questions
from tests.chaos.work import app, once

#: Calls in a portion.
PORTION = 20


def main() -> None:
    """Call tasks numbered from FIRST."""
    path, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    for start in range(first, first + count, PORTION):
        results = [once.delay(path, index, 0.001) for index in range(start, start + PORTION)]
        # What was sent before a question that is answered has come.
        app.client.call(questions.Pending())
        print(start, *(result.id for result in results), flush=True)
    print("all", flush=True)


if __name__ == "__main__":
    main()
