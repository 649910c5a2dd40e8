"""Canvas: chains, groups, chords, their errors, replacement and stamps; Celery composes, Ray runs."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import celery
import pytest
from celery import chain, chord, group, signature
from celery.canvas import StampingVisitor
from celery.exceptions import ChordError
from celery.utils.functional import maybe_list

from tests import records, sample, tasks, tuned
from tests.support import until

SECONDS = 60

pytestmark = pytest.mark.usefixtures("warm_ray")


def wait_for_lines(path: Path, count: int) -> list[str]:
    """Return the lines of a file once there are that many."""
    return until(lambda: path.exists() and len(lines := path.read_text().splitlines()) >= count and lines)


# -- chains -----------------------------------------------------------------------------------------------------


def test_chain_passes_results_on() -> None:
    result = chain(sample.add.s(1, 2), sample.add.s(3), sample.add.s(4)).apply_async()
    assert result.get(timeout=SECONDS) == 10
    assert result.parent.get(timeout=SECONDS) == 6
    assert result.parent.parent.get(timeout=SECONDS) == 3
    assert (sample.add.s(1, 2) | sample.identity.s()).delay().get(timeout=SECONDS) == 3


def test_an_immutable_signature_takes_no_result() -> None:
    assert (sample.add.s(1, 2) | sample.add.si(10, 10)).delay().get(timeout=SECONDS) == 20


def test_a_long_chain() -> None:
    assert chain(sample.add.s(0, 1), *[sample.add.s(1)] * 99).delay().get(timeout=SECONDS) == 100


def test_a_chain_stops_at_its_first_error(tmp_path: Path) -> None:
    after = tmp_path / "after"
    work = chain(sample.fail.si("EWR", 3), sample.touch.si(str(after)))
    result = work.apply_async()
    with pytest.raises(sample.ModelError):
        result.get(timeout=SECONDS)
    assert not after.exists()
    assert result.parent.state == "FAILURE"


def test_on_error_of_a_chain(tmp_path: Path) -> None:
    errors = tmp_path / "errors"
    work = chain(sample.identity.si(1), sample.fail.si("EWR", 3), sample.identity.si(2))
    result = work.on_error(sample.write_error.s(path=str(errors))).apply_async()
    assert wait_for_lines(errors, 1) == [f"{result.parent.id} ModelError ('EWR', 3)"]


def test_starmap_and_map_in_a_chain() -> None:
    work = chain(
        sample.identity.si([(1, 2), (3, 4)]), sample.add.starmap([(1, 2), (3, 4)]).set(immutable=True), sample.tsum.s()
    )
    assert work.delay().get(timeout=SECONDS) == 10


# -- groups -----------------------------------------------------------------------------------------------------


def test_group_keeps_its_order() -> None:
    assert group(sample.add.s(i, i) for i in range(50)).delay().get(timeout=SECONDS) == [2 * i for i in range(50)]


def test_group_takes_arguments_from_its_caller() -> None:
    assert group(sample.add.s(1), sample.add.s(2)).delay(10).get(timeout=SECONDS) == [11, 12]
    assert (sample.identity.s(5) | group(sample.add.s(1), sample.add.s(2))).delay().get(timeout=SECONDS) == [6, 7]


def test_a_group_made_from_a_generator_ends_a_chain() -> None:
    ended = (sample.add.s(1, 2) | group(sample.add.s(i) for i in range(3)))()
    assert ended.get(timeout=SECONDS) == [3, 4, 5]


def test_nested_groups_are_flattened() -> None:
    nested = group(group(sample.add.s(1, 1), sample.add.s(2, 2)), sample.add.s(3, 3))
    assert nested.delay().get(timeout=SECONDS) == [2, 4, 6]


def test_links_of_a_group(tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    work = group(sample.add.s(1, 1), sample.add.s(2, 2), sample.fail.si("EWR", 1))
    work.link(sample.write.si("first", str(good)))
    work.link_error(sample.write_error.s(path=str(bad)))
    result = work.apply_async()
    result.join(timeout=SECONDS, propagate=False)
    # Celery links a callback to a group's first task only, an errback to each of them.
    assert wait_for_lines(good, 1) == ["first"]
    assert wait_for_lines(bad, 1) == [f"{result.results[2].id} ModelError ('EWR', 1)"]


def test_an_empty_group() -> None:
    assert group().apply_async().get(timeout=SECONDS) == []


# -- chords -----------------------------------------------------------------------------------------------------


def test_chord_of_a_thousand() -> None:
    work = chord([sample.add.s(i, 1) for i in range(1000)], sample.tsum.s())
    assert work.apply_async().get(timeout=SECONDS) == sum(range(1, 1001))


def test_chord_gets_results_in_the_headers_order() -> None:
    header = [sample.nap.s(seconds) for seconds in (0.4, 0.0, 0.2)]
    assert chord(header, sample.identity.s()).delay().get(timeout=SECONDS) == [0.4, 0.0, 0.2]


def test_chord_with_an_empty_header() -> None:
    assert chord([], sample.tsum.s()).apply_async().get(timeout=SECONDS) == 0


def test_chord_with_a_header_of_one() -> None:
    assert chord([sample.add.s(1, 2)], sample.identity.s()).apply_async().get(timeout=SECONDS) == [3]


def test_chord_in_a_chain_and_a_chain_after_a_group() -> None:
    work = chain(sample.identity.si(1), chord([sample.add.s(1), sample.add.s(2)], sample.tsum.s()), sample.add.s(100))
    assert work.apply_async().get(timeout=SECONDS) == 105
    upgraded = chain(group(sample.add.si(i, i) for i in range(4)), sample.tsum.s(), sample.add.s(1))
    assert upgraded.apply_async().get(timeout=SECONDS) == 13


def test_chord_of_chains() -> None:
    header = [chain(sample.add.s(i, 1), sample.add.s(10)) for i in range(3)]
    assert chord(header, sample.identity.s()).apply_async().get(timeout=SECONDS) == [11, 12, 13]


def test_chord_whose_header_has_a_group_and_a_chord() -> None:
    header: list[Any] = [
        group(sample.add.s(1, 1), sample.add.s(2, 2)),
        chord([sample.add.s(3, 3), sample.add.s(4, 4)], sample.tsum.s()),
        sample.identity.s(5),
    ]
    # Celery flattens the inner group, and puts its tasks where it likes.
    assert sorted(chord(header, sample.identity.s()).apply_async().get(timeout=SECONDS)) == [2, 4, 5, 14]


def test_chord_whose_body_is_a_chord_a_group_or_a_chain() -> None:
    header = [sample.add.s(1, 1), sample.add.s(2, 2)]
    inner = chord([sample.tsum.s(), sample.tsum.s()], sample.tsum.s())
    assert chord(header, inner).apply_async().get(timeout=SECONDS) == 12
    assert chord(header, group(sample.tsum.s(), sample.identity.s())).apply_async().get(timeout=SECONDS) == [6, [2, 4]]
    assert chord(header, chain(sample.tsum.s(), sample.add.s(1))).apply_async().get(timeout=SECONDS) == 7


def test_groups_of_chords_in_a_chain() -> None:
    fan = group(chord([sample.add.s(i, 1), sample.add.s(i, 2)], sample.tsum.s()) for i in range(3))
    assert chain(fan, sample.tsum.s()).apply_async().get(timeout=SECONDS) == 3 + 5 + 7


def test_chord_error_fails_the_body_and_calls_errbacks(tmp_path: Path) -> None:
    errors = tmp_path / "errors"
    body = sample.tsum.s().on_error(sample.write_error.s(path=str(errors)))
    result = chord([sample.add.s(1, 1), sample.fail.si("JFK", 9)], body).apply_async()
    with pytest.raises(sample.ModelError):
        result.get(timeout=SECONDS)
    with pytest.raises(ChordError, match="JFK"):
        result.get(timeout=SECONDS, follow_parents=False)
    assert result.state == "FAILURE"
    assert wait_for_lines(errors, 1)[0].startswith(f"{result.id} ChordError")


def test_an_errback_of_the_chord_reaches_header_and_body(tmp_path: Path) -> None:
    errors = tmp_path / "errors"
    work = chord([sample.add.s(1, 1), sample.fail.si("JFK", 9)], sample.tsum.s())
    work.link_error(sample.write_error.s(path=str(errors)))
    result = work.apply_async()
    with pytest.raises(ChordError):
        result.get(timeout=SECONDS, follow_parents=False)
    assert any(line.startswith(f"{result.id} ChordError") for line in wait_for_lines(errors, 1))


def test_an_error_of_the_body_itself(tmp_path: Path) -> None:
    errors = tmp_path / "errors"
    body = sample.fail.si("LGA", 1).on_error(sample.write_error.s(path=str(errors)))
    result = chord([sample.add.s(1, 1), sample.add.s(2, 2)], body).apply_async()
    with pytest.raises(sample.ModelError):
        result.get(timeout=SECONDS)
    assert wait_for_lines(errors, 1) == [f"{result.id} ModelError ('LGA', 1)"]


@pytest.mark.skipif(celery.VERSION < (5, 7), reason="Celery calls these errbacks since 5.7")
def test_a_failed_chord_ends_the_chain_around_it(tmp_path: Path) -> None:
    after, errors = tmp_path / "after", tmp_path / "errors"
    body = sample.tsum.s().on_error(sample.write_error.s(path=str(errors)))
    work = chain(chord([sample.fail.si("EWR", 1), sample.add.si(1, 1)], body), sample.touch.si(str(after)))
    work.apply_async()
    assert "ChordError" in wait_for_lines(errors, 1)[0]
    assert not after.exists()


def test_an_errback_in_the_old_style() -> None:
    result = sample.fail.apply_async(("EWR", 1), link_error=tasks.old_errback.s())
    path = Path(tempfile.gettempdir()) / f"errback-{result.id}"
    records.wait_for(path, 1)
    path.unlink()


# -- replacement ------------------------------------------------------------------------------------------------


def test_replace_by_a_task_and_by_a_chord() -> None:
    assert sample.replaced.delay(5).get(timeout=SECONDS) == 5
    assert sample.fan_out.delay(4).get(timeout=SECONDS) == 12


def test_replace_by_a_group() -> None:
    assert tasks.replaced_by_group.delay(3).get(timeout=SECONDS) == [0, 2, 4]


def test_replacement_inside_chain_and_chord() -> None:
    assert chain(sample.replaced.s(3), sample.add.s(1)).delay().get(timeout=SECONDS) == 4
    assert chain(sample.fan_out.s(3), sample.add.s(1)).delay().get(timeout=SECONDS) == 7
    header = [sample.replaced.s(2), sample.fan_out.s(3), sample.add.s(1, 1)]
    assert chord(header, sample.identity.s()).delay().get(timeout=SECONDS) == [2, 6, 2]


def test_add_to_chord() -> None:
    header = [tasks.growing.s(5), sample.identity.s(1)]
    assert sorted(chord(header, sample.identity.s()).delay().get(timeout=SECONDS)) == [0, 1, 5]


# -- stamps -----------------------------------------------------------------------------------------------------


class Customer(StampingVisitor):  # type: ignore[misc]
    """Stamps every task with whom it is for."""

    def on_signature(self, sig: Any, **headers: Any) -> dict[str, Any]:
        return {"customer": "acme"}


def test_stamps_reach_every_request_of_a_canvas() -> None:
    work = chord([tasks.stamps_of.si(), tasks.stamps_of.si()], tasks.stamps_with.s())
    work.stamp(Customer())
    stamps = work.apply_async().get(timeout=SECONDS)
    assert [maybe_list(one["customer"]) for one in stamps] == [["acme"]] * 3


def test_stamps_by_keyword_and_for_links() -> None:
    work = sample.identity.si(1)
    work.link(tasks.stamps_of.si())
    work.stamp(Customer(), tenant="north")
    result = work.apply_async()
    result.get(timeout=SECONDS)
    stamps = result.children[0].get(timeout=SECONDS)
    assert maybe_list(stamps["customer"]) == ["acme"]
    assert maybe_list(stamps["tenant"]) == ["north"]


def test_stamped_headers_of_a_call_reach_request_and_result() -> None:
    result = tasks.stamps_of.apply_async(stamped_headers=["kind"], kind="nightly")
    assert result.get(timeout=SECONDS) == {"kind": "nightly"}
    extended = tuned.extended_stamps.apply_async((1,), {"y": 2}, stamped_headers=["kind"], kind="nightly")
    assert extended.get(timeout=SECONDS) == {"kind": "nightly"}
    meta = extended._get_task_meta()
    assert maybe_list(meta["kind"]) == ["nightly"]
    assert meta["stamped_headers"] == ["kind"]


def test_signatures_survive_json() -> None:
    import json

    work = chain(sample.add.s(1, 2), group(sample.add.s(1), sample.add.s(2)), sample.tsum.s())
    rebuilt = signature(json.loads(json.dumps(work)), app=sample.app)
    assert rebuilt.apply_async().get(timeout=SECONDS) == 9
