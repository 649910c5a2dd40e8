"""Applications lease each other CPUs: the rules, one by one and in random histories; no Ray, no clock."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from raycelery.scheduler import events
from raycelery.scheduler.instructions import AskForRoom, CountFree, DemandCpus, OfferLease
from raycelery.scheduler.leases_taken import lacking
from tests.dispatcher.scheduler_apps import App, World


def two(*nodes: float, **policy: Any) -> tuple[World, App, App]:
    """Return two applications, of which the first has all CPUs of the cluster, and nothing to do."""
    world = World(*nodes)
    north, south = world.app("north", **policy), world.app("south", **policy)
    north.submit(int(sum(nodes)))
    world.work(0.2)
    assert north.pending == 0
    return world, north, south


def test_idle_executors_are_leased_and_stay() -> None:
    world, north, south = two(2)
    before = set(north.workers)
    south.submit(2)
    world.pass_time(1)
    assert len(south.running()) == 2
    assert north.scheduler.view.leased_to() == south.scheduler.view.leased_from() or not north.pending
    assert south.scheduler.view.leased_from() == {"north": 2.0}
    assert set(north.workers) == before, "they keep their processes"


def test_leases_are_returned_when_nothing_is_left_to_do() -> None:
    world, north, south = two(2)
    south.submit(2)
    world.work(1.2)
    assert south.pending == 0
    world.pass_time(2)
    assert north.scheduler.view.leased_to() == south.scheduler.view.leased_from() == {}
    north.submit(2)
    world.settle()
    assert len(north.running()) == 2, "at once: nothing has to start"


def test_leases_are_reclaimed_when_their_own_application_has_something_to_do() -> None:
    world, north, south = two(2)
    south.submit(100)
    world.work(1)
    assert len(south.running()) == 2
    north.submit(100)
    world.work(3)
    assert len(north.running()) == len(south.running()) == 1, "an even share"


def test_two_busy_applications_come_to_share_evenly() -> None:
    world = World(4)
    north, south = world.app("north"), world.app("south")
    north.submit(300)
    world.work(1)
    assert len(north.running()) == 4
    south.submit(300)
    world.work(3)
    assert (len(north.running()), len(south.running())) == (2, 2)


def test_where_there_are_fewer_cpus_than_applications_they_take_turns() -> None:
    world = World(1)
    apps = [world.app(name) for name in ("north", "south", "east")]
    for app in apps:
        app.submit(100)
    world.work(25)
    counts = [len(app.done) for app in apps]
    assert min(counts) > 50, counts
    assert max(len(app.workers) for app in apps) <= 2, "processes stay"


def test_no_more_is_promised_than_is_wanted() -> None:
    world = World(4)
    north, south = world.app("north"), world.app("south")
    north.submit(12)
    world.settle()
    south.submit(1)
    world.pass_time(10)
    assert north.scheduler.view.leased_to() == {"south": 1.0}
    assert not south.running(), "it comes when a message has ended"
    world.work(0.2)
    assert north.scheduler.view.leased_to() in ({"south": 1.0}, {})
    assert len(south.done) + len(south.running()) == 1


def test_what_nobody_has_use_for_any_more_is_refused_and_goes_on() -> None:
    world, north, south = two(1)
    world.delays = True
    south.submit(1)
    for _ in range(20):
        world.pass_time(0.1)
        world.deliver(1)
        if north.scheduler.view.leased_to():
            break
    south.handle(events.Purge())
    world.delays = False
    world.pass_time(1)
    assert north.scheduler.view.leased_to() == {}
    north.submit(1)
    world.settle()
    assert len(north.running()) == 1


def test_cpus_come_back_from_an_application_that_dies() -> None:
    world, north, south = two(2)
    south.submit(2)
    world.pass_time(1)
    assert north.scheduler.view.leased_to() == {"south": 2.0}
    world.die(south)
    north.submit(2)
    world.pass_time(5)
    assert len(north.running()) == 2


def test_leased_cpus_are_given_up_when_their_application_dies() -> None:
    world, north, south = two(2)
    south.submit(100)
    world.work(1)
    assert south.scheduler.view.leased_from() == {"north": 2.0}
    world.die(north)
    world.work(3)
    assert south.scheduler.view.leased_from() == {}
    assert len(south.running()) == 2, "Ray has the CPUs, and starts executors on them"


def test_what_no_application_has_on_one_node_is_asked_of_all_for_good() -> None:
    world, _, south = two(2, 2)
    south.submit(1, cpus=2.0)
    world.pass_time(0.7)
    assert len(south.running()) == 1, "one node's"
    east = world.app("east")
    east.submit(1, cpus=2.0)
    world.pass_time(3)
    assert len(east.running()) == 1


def test_what_is_wanted_no_more_and_ray_has_not_started_keeps_no_place() -> None:
    world, _, south = two(4)
    south.submit(1, cpus=2.0)
    south.turn()
    south.handle(events.Purge())
    south.submit(1, cpus=3.0)
    world.pass_time(10)
    assert [message.id for message in south.running()] == ["south2"]


def test_other_resources_than_cpus_are_not_leased() -> None:
    free = lacking([{"CPU": 1, "GPU": 1}, {"CPU": 1}], {"CPU": 2})
    assert free == {"GPU": 1}
    world = World(2)
    app = world.app("north")
    demand = DemandCpus([], 0.0, [], [], {"GPU": 1})
    app.handle(events.DemandAnswered(demand, 0.0))
    assert not any(isinstance(one, AskForRoom) for one in app.scheduler.decide(world.now))


def test_an_executor_that_loads_its_application_for_long_lacks_nothing() -> None:
    world = World(1)
    app = world.app("north")
    app.submit(1)
    [start] = app.scheduler.decide(world.now)
    world.now += 5
    app.handle(events.ExecutorConnected(start.executor_id))  # type: ignore[union-attr]
    assert not any(isinstance(one, CountFree) for one in app.scheduler.decide(world.now))


def test_a_demand_is_forgotten_unless_it_is_renewed() -> None:
    world = World(1)
    north = world.app("north")
    north.submit(100)
    world.settle()
    north.handle(events.PeerDemand("south", [1.0], 5.0, []))
    world.pass_time(2)
    world.work(1)
    assert north.scheduler.view.leased_to() == {}
    assert not any(isinstance(one, OfferLease) for one in north.scheduler.decide(world.now))


def test_nothing_is_looked_at_when_there_is_nothing_to_be_done() -> None:
    world, north, south = two(2, idle_seconds=5.0)
    south.submit(2)
    world.work(2)
    world.pass_time(60)
    assert not north.workers
    assert not south.workers
    assert north.scheduler.wake_at is south.scheduler.wake_at is None


class Sharing(RuleBasedStateMachine):
    """Applications that come, work and die; what they say to each other arrives late."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(2, 4, delays=True)
        self.names = iter("abcdefghijklmnopqrstuvwxyz")

    @initialize()
    def begin(self) -> None:
        self.comes()
        self.comes()

    @precondition(lambda self: len(self.world.apps) < 3)
    @rule()
    def comes(self) -> None:
        name = next(self.names, None)
        if name is not None:
            self.world.app(name, idle_seconds=20.0)

    @precondition(lambda self: len(self.world.apps) > 1)
    @rule(which=st.integers(0, 9))
    def dies(self, which: int) -> None:
        if which < len(self.world.apps):
            self.world.die(list(self.world.apps.values())[which])
            self.world.settle()

    @rule(which=st.integers(0, 2), count=st.integers(1, 8), cpus=st.sampled_from([0.5, 1.0, 1.0, 2.0]))
    def submits(self, which: int, count: int, cpus: float) -> None:
        if which < len(self.world.apps):
            list(self.world.apps.values())[which].submit(count, cpus)
            self.world.settle()

    @rule(which=st.integers(0, 9), count=st.integers(1, 3))
    def messages_end(self, which: int, count: int) -> None:
        busy = [(app, w) for app in self.world.apps.values() for w in app.workers.values() if w.messages]
        for app, worker in busy[which : which + count]:
            app.finish(worker)
        self.world.settle()

    @rule(most=st.integers(1, 4))
    def what_was_said_arrives(self, most: int) -> None:
        self.world.deliver(most)
        self.world.settle()

    @rule(seconds=st.sampled_from([0.05, 0.3, 1.0, 4.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    def teardown(self) -> None:
        """From now on all is said at once, and messages end: then all have ended, and all CPUs are back."""
        self.world.delays = False
        for _ in range(200):
            if not any(app.pending for app in self.world.apps.values()):
                break
            self.world.work(1.0)
        assert not any(app.pending for app in self.world.apps.values())
        self.world.pass_time(10)
        for app in self.world.apps.values():
            assert not app.scheduler.view.leased_from()
            assert not app.scheduler.view.leased_to()


TestSharing = Sharing.TestCase
TestSharing.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
