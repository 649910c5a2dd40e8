"""Errors of tasks: each is the failure of its own task, and arrives as its own class wherever that can be."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from celery import chain, chord, group
from celery.exceptions import ChordError, NotRegistered, WorkerLostError
from celery.result import AsyncResult

from raycelery.errors import RemoteError, ResultLoadError, TaskNotRegistered
from raycelery.protocol import questions
from tests import failing, records, sample
from tests.support import until

SECONDS = 60

pytestmark = pytest.mark.usefixtures("warm_ray")


def executors() -> set[int]:
    """Return the processes of the sample application's executors."""
    return set(sample.app.client.call(questions.Stats())["executor_pids"].values())


# -- what is no Exception ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "error", "args"),
    [
        ("cancelled", asyncio.CancelledError, ("by hand",)),
        ("own", failing.Interruption, ("stop", 3)),
        ("exit of a generator", GeneratorExit, ()),
    ],
)
def test_what_is_no_exception_is_the_failure_of_its_task_and_the_executor_lives(
    kind: str, error: type[BaseException], args: tuple[Any, ...]
) -> None:
    failing.names.delay([], ".").get(timeout=SECONDS)
    before = executors()
    result = failing.interrupt.delay(kind)
    with pytest.raises(error) as caught:
        result.get(timeout=SECONDS)
    assert type(caught.value) is error
    assert caught.value.args == args
    assert result.state == "FAILURE"
    assert "in interrupt" in result.traceback
    assert before <= executors(), "no executor has ended"


def test_what_is_no_exception_reaches_handlers_errbacks_and_chords(tmp_path: Path) -> None:
    path, errors = tmp_path / "handled", tmp_path / "errors"
    failing.interrupted_and_handled.apply_async(
        kwargs={"path": str(path)}, link_error=sample.write_error.s(path=str(errors))
    ).get(timeout=SECONDS, propagate=False)
    assert [(one["handler"], one["error"]) for one in records.wait_for(path, 2)] == [
        ("on_failure", "Interruption"),
        ("after_return", "Interruption"),
    ]
    assert until(lambda: errors.exists() and errors.read_text()).endswith("Interruption stop\n")
    result = chord([sample.add.s(1, 1), failing.interrupt.s("own")], sample.tsum.s()).delay()
    with pytest.raises(ChordError, match="Interruption"):
        result.get(timeout=SECONDS, follow_parents=False)


@pytest.mark.parametrize(("code", "words"), [(3, "SystemExit(3)"), ("no database", "SystemExit('no database')")])
def test_a_task_that_exits_says_so_plainly(code: Any, words: str) -> None:
    with pytest.raises(WorkerLostError) as caught:
        failing.exit_code.delay(code).get(timeout=SECONDS)
    assert str(caught.value) == f"the task ended its process by raising {words}"


def test_the_reason_of_a_killed_executor_is_plain_text() -> None:
    with pytest.raises(WorkerLostError) as caught:
        sample.suicide.delay().get(timeout=SECONDS)
    text = str(caught.value)
    assert text.startswith("its process died: ")
    assert "\x1b" not in text
    assert "actor_id" not in text
    assert "\n" not in text


# -- as their own class -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("two arguments", failing.TwoArguments),
        ("keyword only", failing.KeywordOnly),
        ("lock", failing.Locked),
        ("nested", failing.Outer.Nested),
        ("local", failing.Local),
        ("file", failing.NoFile),
    ],
)
def test_an_error_that_plain_pickle_cannot_carry_arrives_as_its_own_class(kind: str, error: type[Exception]) -> None:
    result = failing.fail_hard.delay(kind)
    with pytest.raises(error) as caught:
        result.get(timeout=SECONDS)
    expected = failing.hard_error(kind)
    if kind != "lock":
        assert caught.value.args == expected.args
    assert str(caught.value) == str(expected) or kind == "lock"
    own = {name: value for name, value in vars(expected).items() if name != "lock"}
    assert vars(caught.value) == own
    assert "in fail_hard" in str(caught.value.__cause__)


def test_what_an_error_holds_that_cannot_be_pickled_is_told_in_words() -> None:
    error = failing.fail_hard.delay("lock").get(timeout=SECONDS, propagate=False)
    assert error.args[0] == "busy"
    assert "lock" in error.args[1]
    assert error.text == "busy"
    assert not hasattr(error, "lock")


def test_errors_travel_as_values_and_as_arguments_too() -> None:
    two, locked = failing.hard_errors.delay().get(timeout=SECONDS)
    assert (type(two), two.code) == (failing.TwoArguments, 7)
    assert type(locked["locked"]) is failing.Locked
    assert failing.text_of.delay(two).get(timeout=SECONDS) == "TwoArguments: EWR failed with 7"


def test_errors_are_their_own_class_with_json_too() -> None:
    """With Celery's own form of an error in JSON, which its own reader cannot always make an error of that class of."""
    conf, backend = sample.app.conf, sample.app.backend
    error = failing.TwoArguments("EWR", 7)
    conf.result_serializer = "json"
    try:
        json_backend = type(backend)(app=sample.app, serializer="json")
    finally:
        conf.result_serializer = "json"
    stored = json_backend.prepare_exception(error)
    assert stored["exc_type"] == "TwoArguments"
    read = json_backend.exception_to_python(stored)
    assert (type(read), read.args) == (failing.TwoArguments, error.args)


# -- what the caller cannot import ------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> str:
    (tmp_path / "only_there.py").write_text(
        "class Base(LookupError):\n"
        "    pass\n"
        "class ModelError(Base):\n"
        "    def __init__(self, zone, *, code):\n"
        "        super().__init__(zone)\n"
        "        self.code, self.model = code, Model(zone)\n"
        "    def __str__(self):\n"
        "        return f'{self.args[0]} failed with {self.code}'\n"
        "class Model:\n"
        "    def __init__(self, name):\n"
        "        self.name = name\n"
    )
    return str(tmp_path)


def test_an_error_whose_class_is_missing_here_can_be_looked_at(folder: str) -> None:
    result = failing.only_there.delay(folder, "raise")
    error = result.get(timeout=SECONDS, propagate=False)
    assert (type(error).__module__, type(error).__name__) == ("only_there", "ModelError")
    assert isinstance(error, RemoteError)
    assert isinstance(error, LookupError), "what is known of its bases catches it"
    assert (str(error), error.args, error.code) == ("EWR failed with 7", ("EWR",), 7)
    other = AsyncResult(result.id, app=sample.app)
    assert (other.state, other.ready(), other.failed()) == ("FAILURE", True, True)
    assert "raise module.ModelError" in other.traceback
    with pytest.raises(LookupError, match="EWR failed with 7"):
        other.get(timeout=SECONDS)
    assert failing.text_of.delay(error).get(timeout=SECONDS) == "ModelError: EWR failed with 7"


def test_a_value_whose_class_is_missing_here_raises_when_it_is_asked_for(folder: str) -> None:
    result = failing.only_there.apply_async((folder, "return"), link=sample.identity.si(1))
    with pytest.raises(ResultLoadError, match="No module named 'only_there'"):
        result.get(timeout=SECONDS)
    for each in (result, AsyncResult(result.id, app=sample.app)):
        assert (each.state, each.ready(), each.successful(), each.traceback) == ("SUCCESS", True, True, None)
        assert len(each.children) == 1
        with pytest.raises(ResultLoadError, match=result.id):
            _ = each.result
    assert isinstance(result.get(timeout=SECONDS, propagate=False), ResultLoadError)


def test_one_result_that_cannot_be_loaded_spoils_no_group(folder: str) -> None:
    result = group(
        sample.add.s(1, 1), failing.only_there.s(folder, "raise"), failing.only_there.s(folder, "return")
    ).apply_async()
    values = result.get(timeout=SECONDS, propagate=False)
    assert values[0] == 2
    assert type(values[1]).__name__ == "ModelError"
    assert isinstance(values[2], ResultLoadError)
    assert result.ready()
    with pytest.raises((LookupError, ResultLoadError)):
        result.get(timeout=SECONDS)


def test_a_chord_hands_on_what_only_its_body_can_load(folder: str) -> None:
    header = [failing.only_there.s(folder, "return"), failing.only_there.s(folder, "return")]
    body = failing.names.s(folder=folder)
    assert chord(header, body).delay().get(timeout=SECONDS) == ["Model", "Model"]


# -- what cannot even begin -------------------------------------------------------------------------------------


@pytest.mark.parametrize("serializer", [None, "msgpack"])
def test_a_chord_part_whose_arguments_cannot_be_loaded_fails_the_chord(serializer: str | None, tmp_path: Path) -> None:
    errors, path = tmp_path / "errors", tmp_path / "never"
    part = failing.take.s(failing.Unloadable() if serializer is None else 1).set(serializer=serializer)
    body = failing.note.s(path=str(path)).on_error(sample.write_error.s(path=str(errors)))
    result = chord([sample.add.s(1, 1), part], body).apply_async()
    cause = "not in this process" if serializer is None else "msgpack"
    with pytest.raises(ChordError, match=cause):
        result.get(timeout=SECONDS, follow_parents=False)
    assert f"{result.id} ChordError" in until(lambda: errors.exists() and errors.read_text())
    assert not path.exists()


def test_arguments_that_cannot_be_loaded_fail_what_follows(tmp_path: Path) -> None:
    errors = tmp_path / "errors"
    result = chain(failing.take.s(failing.Unloadable()), sample.identity.s()).apply_async(
        link_error=sample.write_error.s(path=str(errors))
    )
    with pytest.raises(RuntimeError, match="not in this process"):
        result.get(timeout=SECONDS)
    assert "RuntimeError not in this process" in until(lambda: errors.exists() and errors.read_text())


def test_an_unknown_task_says_what_to_import_and_what_it_may_have_meant() -> None:
    result = sample.app.send_task("tests.smaple.add", (1, 2))
    with pytest.raises(NotRegistered) as caught:
        result.get(timeout=SECONDS)
    assert type(caught.value) is TaskNotRegistered
    assert caught.value.args == ("tests.smaple.add",)
    text = str(caught.value)
    assert text.startswith("no task 'tests.smaple.add' is registered: did you remember to import its module?")
    assert "'tests.sample.add'" in text
    chorded = chord([sample.add.s(1, 1), sample.app.signature("no.such")], sample.tsum.s()).delay()
    with pytest.raises(ChordError, match=r"no\.such"):
        chorded.get(timeout=SECONDS, follow_parents=False)
