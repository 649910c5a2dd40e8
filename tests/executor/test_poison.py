"""A message that breaks the executor itself does not go round for ever."""

from __future__ import annotations

import pickle
import time

from tests import sample
from tests.support import RaySession


def test_a_message_that_breaks_executors_is_given_up(ray_session: RaySession) -> None:
    sample.add.delay(1, 1).get(timeout=60)
    client = sample.app.client
    # What no producer sends: a chord's completion whose payload no executor understands.
    spec = sample.app.producer.described()
    client.store(("part", "broken", "broken-1", 0.0, b"", 1, 60, (spec.key, "broken", b"not a pickle", "a", "a")))
    deadline = time.monotonic() + 90
    while client.call("pending") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert client.call("pending") == 0, "it was dropped, and said so in the log"
    assert sample.add.delay(2, 2).get(timeout=60) == 4
    assert pickle.loads(pickle.dumps(spec)).key == spec.key
