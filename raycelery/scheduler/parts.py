"""The parts that a scheduler is composed of. Each is given those that it uses, and none knows of those that use it."""

from __future__ import annotations

from raycelery.scheduler.assigning import Assigning
from raycelery.scheduler.autoscaler import Autoscaler
from raycelery.scheduler.capacity import Capacity
from raycelery.scheduler.claims import Claims
from raycelery.scheduler.draining import Draining
from raycelery.scheduler.executors import Executors
from raycelery.scheduler.growth import Growth
from raycelery.scheduler.helpers import Helpers
from raycelery.scheduler.lanes import Lanes
from raycelery.scheduler.leases import Leases
from raycelery.scheduler.leases_given import LeasesGiven
from raycelery.scheduler.leases_taken import LeasesTaken
from raycelery.scheduler.limits import Limits
from raycelery.scheduler.membership import Membership
from raycelery.scheduler.messages import Messages
from raycelery.scheduler.model import Policy
from raycelery.scheduler.nodes import Nodes
from raycelery.scheduler.occupancy import Occupancy
from raycelery.scheduler.packing import Packing
from raycelery.scheduler.pausing import Pausing
from raycelery.scheduler.preemption import Preemption
from raycelery.scheduler.reports import Reports
from raycelery.scheduler.revocation import Revocation
from raycelery.scheduler.runtimes import Runtimes
from raycelery.scheduler.settlement import Settlement
from raycelery.scheduler.timers import Timers
from raycelery.scheduler.turn import Turn
from raycelery.scheduler.waiting import Waiting


class Parts:
    """All parts of one scheduler, from the ground up.

    Arguments:
        policy: what may be tuned.
        name: of the application, for its peers.
    """

    def __init__(self, policy: Policy, name: str) -> None:
        # What is known, and what is shared.
        self.turn = turn = Turn(policy)
        self.timers = timers = Timers()
        self.runtimes = runtimes = Runtimes()
        self.messages = messages = Messages()
        self.lanes = lanes = Lanes()
        self.nodes = nodes = Nodes()
        self.autoscaler = autoscaler = Autoscaler(nodes)
        # Where messages and executors are.
        self.limits = limits = Limits(turn, timers)
        self.helpers = helpers = Helpers(turn)
        self.waiting = waiting = Waiting(turn, timers, messages, lanes, limits, helpers)
        self.occupancy = occupancy = Occupancy(nodes)
        self.executors = executors = Executors(turn, timers, lanes, occupancy, waiting, limits, helpers, runtimes)
        # What is decided.
        self.settlement = settlement = Settlement(turn, timers, messages, lanes, executors, helpers)
        self.claims = claims = Claims(nodes, executors)
        self.capacity = capacity = Capacity(
            turn, timers, lanes, waiting, limits, nodes, autoscaler, occupancy, executors, claims, runtimes, settlement
        )
        self.growth = growth = Growth(turn, timers, lanes, nodes, occupancy, executors, runtimes, autoscaler, capacity)
        self.preemption = preemption = Preemption(turn, timers, lanes, nodes, occupancy, executors, claims, capacity)
        self.packing = Packing(turn, timers, nodes, executors, autoscaler, preemption)
        self.assigning = Assigning(turn, lanes, waiting, executors, runtimes, settlement, capacity, preemption, growth)
        # What applications lease each other.
        self.pausing = pausing = Pausing(turn, nodes, occupancy, waiting, executors)
        self.leases_given = given = LeasesGiven(name, turn, messages, executors, capacity, pausing)
        self.leases_taken = taken = LeasesTaken(turn, executors, capacity, pausing)
        self.leases = leases = Leases(turn, timers, executors, given, taken)
        # What happens.
        self.draining = draining = Draining(turn, timers, lanes, nodes, executors, claims)
        self.revocation = revocation = Revocation(messages, waiting, executors)
        self.reports = Reports(
            turn, messages, waiting, executors, helpers, revocation, runtimes, settlement, capacity, leases, draining
        )
        self.membership = Membership(turn, lanes, nodes, occupancy, executors, claims, growth)
