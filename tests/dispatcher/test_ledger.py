"""What the journal says and what executors wrote down tell, together, exactly what must not run again."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from raycelery.dispatcher.begun import Place
from raycelery.dispatcher.ledger import Ledger
from raycelery.protocol.messages import Submission
from raycelery.protocol.records import Came, Lost
from raycelery.protocol.reports import Done, Recalled, Report
from raycelery.scheduler.events import UNKNOWN
from raycelery.scheduler.reports import begun_of


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_what_had_begun_is_known_wherever_the_journal_ends(data: st.DataObject) -> None:
    """Executors run ahead of what the dispatcher has heard, and everything stops at once."""
    ledger, begun, ended, last = Ledger(), set[int](), set[int](), dict[int, int]()
    queues: dict[int, list[int]] = {1: [], 2: []}
    #: Reports that are on their way, in order.
    unheard: dict[int, list[Report]] = {1: [], 2: []}
    waiting = [ledger.submitted(Submission(str(n), "task", "celery", "lane", b"")) for n in range(12)]
    for executor in queues:
        ledger.came(Came(executor, "node", f"file {executor}"))
    for _ in range(data.draw(st.integers(0, 40))):
        executor = data.draw(st.sampled_from([1, 2]))
        match data.draw(st.sampled_from(["give", "run", "run", "hear", "recall"])):
            # The scheduler gives nothing to an executor that is to give back what it has.
            case "give" if waiting and not any(type(report) is Recalled for report in unheard[executor]):
                count = data.draw(st.integers(1, 4))
                # In order of priority, which is not that of their numbers.
                batch = data.draw(st.permutations(waiting[:count]))
                waiting = waiting[count:]
                ledger.given(executor, batch)
                queues[executor] += batch
            case "run" if queues[executor]:
                seq = queues[executor].pop(0)
                assert seq not in begun
                begun.add(seq)
                last[executor] = seq
                unheard[executor].append(Done(seq, 0.0))
            case "hear" if unheard[executor]:
                report = unheard[executor].pop(0)
                ledger.reported(report)
                if isinstance(report, Done):
                    ended.add(report.seq)
                elif isinstance(report, Recalled):
                    waiting += report.seqs
            case "recall":
                unheard[executor].append(Recalled(queues[executor]))
                queues[executor] = []
    lost = {
        seq
        for place, seqs in ledger.given_out()
        for seq in begun_of(seqs, last.get(int(place.path[-1]), 0) if place is not None else UNKNOWN)
    }
    assert lost == begun - ended, "no more than what had begun, and no less"
    assert set(ledger.messages) == set(range(1, 13)) - ended


def test_what_was_lost_stays_lost_until_celery_has_settled_it() -> None:
    ledger = Ledger()
    first, second = (ledger.submitted(Submission(str(n), "task", "celery", "lane", b"")) for n in range(2))
    ledger.came(Came(1, "node", "file"))
    ledger.given(1, [first, second])
    ledger.lost[first] = Lost(first, "lost", "killed", 1)
    ledger.ended(1)
    assert ledger.given_out() == []
    # Another executor is given the first one to settle, behind what it runs, and does not come to it.
    ledger.came(Came(2, "node", "other"))
    ledger.given(2, [second, first])
    assert ledger.given_out() == [(Place("node", "other"), [second, first])]
    assert begun_of([second, first], second) == [second]
    assert set(ledger.lost) == {first}
    ledger.reported(Done(first, None))
    assert set(ledger.lost) == set()
