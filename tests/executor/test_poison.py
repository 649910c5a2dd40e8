"""A message that breaks the executor itself does not go round for ever."""

from __future__ import annotations

import pickle

from raycelery.protocol import questions
from raycelery.protocol.operations import ChordPart, Completion
from tests import sample
from tests.support import RaySession, until


def test_a_message_that_breaks_executors_is_given_up(ray_session: RaySession) -> None:
    sample.add.delay(1, 1).get(timeout=60)
    client = sample.app.client
    # What no producer sends: a chord's completion whose payload no executor understands.
    spec = sample.app.producer.descriptions.described()
    completion = Completion(spec.key, "broken", b"no pickle", pickle.dumps({"id": "a", "root_id": "a"}))
    client.store(ChordPart("broken", "broken-1", 0.0, b"", 1, 60, completion))
    assert client.call(questions.Pending()) == 1
    until(lambda: not client.call(questions.Pending()), 90, "it is not dropped")
    assert sample.add.delay(2, 2).get(timeout=60) == 4
    assert pickle.loads(pickle.dumps(spec)).key == spec.key
