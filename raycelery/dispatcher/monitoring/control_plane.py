"""The control plane in the dispatcher: the bus, a worker as Celery's tools see it per Ray node, and events.

It comes into being when a tool connects for the first time; an application that nobody looks at pays nothing for it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import ray
from kombu.clocks import LamportClock
from kombu.connection import Connection as KombuConnection

from raycelery.control.transport import Transport
from raycelery.dispatcher import steady
from raycelery.dispatcher.monitoring import commands
from raycelery.dispatcher.monitoring.bus import Bus
from raycelery.dispatcher.monitoring.events import Events
from raycelery.dispatcher.monitoring.host_stats import HostStats
from raycelery.dispatcher.monitoring.node import Node, Whole
from raycelery.errors import DispatcherUnreachable
from raycelery.protocol import bus_questions, questions
from raycelery.protocol.asking import Question
from raycelery.protocol.bus_questions import BusMessage, BusQuestion
from raycelery.protocol.frames import SendEvents

if TYPE_CHECKING:
    from raycelery.dispatcher.connection import Connection
    from raycelery.dispatcher.monitoring.subject import Subject
    from raycelery.scheduler.model import Message as TaskMessage

logger = logging.getLogger(__name__)
A = TypeVar("A")

#: Seconds that what Ray said of its nodes is taken for true.
NODES_SECONDS = 1.0
#: Seconds that machines are looked at for somebody who has asked about them.
WATCHED_SECONDS = 10.0


class Untold:
    """Messages that a listener has not been told of: those that were there before it came.

    Arguments:
        latest: number of the latest of them.
    """

    def __init__(self, latest: int) -> None:
        self._latest = latest
        self._told: set[int] = set()

    def tell(self, message: TaskMessage) -> bool:
        """Return whether the listener is to be told of a message now, once."""
        if message.seq > self._latest or message.seq in self._told:
            return False
        self._told.add(message.seq)
        return True


class ControlPlane:
    """Remote control and events of one application.

    Arguments:
        subject: the dispatcher, as tools see it.
    """

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._view = subject.queries.view
        self.bus = Bus()
        q, bus = bus_questions, self.bus
        self._answers: dict[type[Question[Any]], Callable[[Any], Any]] = {
            q.OpenBus: self._open,
            q.DeclareQueue: lambda asked: bus.declare(asked.queue, self, asked.expires, steady.now()),
            q.HasQueue: lambda asked: bus.has(asked.queue) or self._waiting(asked.queue) > 0,
            q.QueueSize: lambda asked: bus.size(asked.queue) + self._waiting(asked.queue),
            q.PurgeQueue: lambda asked: bus.purge(asked.queue) + subject.change(questions.Purge(asked.queue)),
            q.DeleteQueue: lambda asked: bus.delete(asked.queue),
            q.Bind: lambda asked: bus.bind(asked.exchange, asked.binding),
            q.Unbind: lambda asked: bus.unbind(asked.exchange, asked.binding),
            q.Bindings: lambda asked: bus.table(asked.exchange),
            q.Put: lambda asked: bus.put(asked.queue, asked.message),
            q.Fanout: lambda asked: bus.fanout(asked.exchange, asked.message),
        }
        self.bus.on_fanout = self._on_fanout
        self.bus.on_bound = self._on_bound
        self._control_exchange, self._event_exchange = "celery.pidbox", "celeryev"
        connection = KombuConnection(transport=Transport, transport_options={"side": self})
        self._channel = connection.channel()
        self.clock = LamportClock(initial_value=1)
        self.events = Events(self._channel, self.name_of, self.clock)
        #: Whether task events are wanted by those who listen; whether they are sent.
        self.task_events = True
        self.watched = False
        #: Messages that were there before the last listener came.
        self._untold: Untold | None = None
        #: Names of nodes by Ray's ids; one that has gone keeps its own for the case that it comes back.
        self._names: dict[str, str] = {}
        self._nodes: dict[str, str] = {}
        self._asked = float("-inf")
        self.here = ray.get_runtime_context().get_node_id()
        #: Seconds between heartbeats, as Celery's workers send them.
        self.heartbeat_seconds = 2.0
        self._online: set[str] = set()
        self._beat = 0.0
        self.host_stats = HostStats(self.here)
        #: Until when somebody watches who does not listen to events.
        self._watched_until = 0.0

    # -- nodes --------------------------------------------------------------------------------------------------

    def nodes(self) -> dict[str, str]:
        """Return the names of the live nodes by their ids, the dispatcher's own first."""
        if time.monotonic() - self._asked < NODES_SECONDS:
            return self._nodes
        self._asked = time.monotonic()
        alive = {node["NodeID"]: str(node["NodeManagerHostname"]) for node in ray.nodes() if node["Alive"]}
        names = {}
        for node in sorted(alive, key=lambda node: (node != self.here, node)):
            if node not in self._names:
                name = f"celery@{alive[node]}"
                taken = {self._names[other] for other in self._names if other in alive}
                self._names[node] = f"{name}-{node[:6]}" if name in taken else name
            names[node] = self._names[node]
        self._nodes = names
        return names

    def name_of(self, node: str) -> str:
        """Return the name of a node, live or not."""
        return self._names.get(node) or self.nodes().get(node) or f"celery@{node[:6]}"

    def respondents(self) -> int:
        """Return how many will answer a command that is meant for all: nodes, and processes such as beat."""
        return len(self.nodes()) + len(self.bus.table(self._control_exchange))

    # -- what tools ask -----------------------------------------------------------------------------------------

    def on_question(self, conn: Connection, question_id: int, question: BusQuestion) -> None:
        """Carry out an operation of the bus for a process, and answer it."""
        try:
            if isinstance(question, bus_questions.Read):
                self._read(conn, question_id, question)
                return
            value: Any = None
            if isinstance(question, bus_questions.DeclareQueue):
                self.bus.declare(question.queue, conn, question.expires, steady.now())
            else:
                value = self._answers[type(question)](question)
            conn.answer(question_id, value)
        except Exception as exc:  # whatever it is, the caller must hear of it
            logger.exception("%s failed", type(question).__name__)
            conn.refuse(question_id, exc)

    def call(self, question: Question[A]) -> A:
        """Carry out an operation of the bus; the transport's other side, in the dispatcher itself."""
        handler = self._answers.get(type(question))
        if handler is None:
            raise ValueError(f"the bus does not answer {type(question).__name__} here")
        answer: A = handler(question)
        return answer

    def _waiting(self, queue: str) -> int:
        """Return how many tasks wait in a queue."""
        return self._view.waiting(queue)

    def _open(self, names: bus_questions.OpenBus) -> None:
        self._control_exchange, self._event_exchange = names.control_exchange, names.event_exchange
        self.events.configure(names.event_exchange, names.event_serializer)

    def _read(self, conn: Connection, question_id: int, asked: bus_questions.Read) -> None:
        missing = [queue for queue in asked.queues if not self.bus.has(queue)]
        if missing:
            error = DispatcherUnreachable(f"the dispatcher does not know {missing[0]!r}, it may have been restarted")
            conn.refuse(question_id, error)
            return
        timers: list[asyncio.TimerHandle] = []

        def answer(taken: list[tuple[str, BusMessage]]) -> None:
            for timer in timers:
                timer.cancel()
            conn.answer(question_id, taken)

        give_up = self.bus.read(asked.queues, conn, steady.now(), answer)
        timers.append(asyncio.get_running_loop().call_later(asked.seconds, give_up))

    def _on_fanout(self, exchange: str, message: BusMessage) -> None:
        if exchange == self._control_exchange:
            commands.take(self._subject, self, self._channel, message)

    # -- events -------------------------------------------------------------------------------------------------

    def _on_bound(self, exchange: str) -> None:
        if exchange == self._event_exchange:
            self.see_who_listens()
            if self.watched and self.bus.table(exchange):
                self._introduce()

    def _introduce(self) -> None:
        """Tell a listener who has just come of what runs, and remember to tell of what waits when it begins.

        A listener who hears of a task's start or end alone does not even know its name.
        """
        self._untold = Untold(self._view.seq)
        for message in self._subject.queries.messages("running"):
            running = self._view.find(message["id"])
            executor = self._view.executors.get(message["executor"])
            if running is not None and executor is not None and executor.running() is running:
                self._untold.tell(running)
                node = executor.node or self.here
                self.events.received(running, node)
                fields = {"uuid": running.id, "timestamp": steady.wall(message["since"]), "pid": message["pid"]}
                self.events.add("task-started", fields, node)

    def see_who_listens(self) -> None:
        """Have task events sent from now on, or no more."""
        listening = bool(self.bus.table(self._event_exchange))
        watched = listening and self.task_events
        if watched != self.watched:
            self.watched = watched
            self._subject.core.on_received = self._received if watched else None
            for conn in self._subject.executors.values():
                conn.send(SendEvents(watched))
        if listening and not self.events.listening:
            self._online.clear()
            self._beat = 0.0
        if not watched:
            self._untold = None
        self.events.listening = listening
        self._subject.on_change()

    def _received(self, message: TaskMessage) -> None:
        """Send the event of a message that has come."""
        self.events.received(message, self.here)

    def event(self, kind: str, fields: Mapping[str, Any], node: str | None) -> None:
        """Pass an event on from an executor on ``node``, or from a program or task that sends its own."""
        if node is None and self.events.listening:
            self.events.add(kind, fields, None)
            return
        if not self.watched:
            return
        if node is not None and self._untold is not None:
            for message in self._view.find_all(str(fields.get("uuid"))):
                if message.at_executor and self._untold.tell(message):
                    self.events.received(message, node)
        self.events.add(kind, fields, node)

    def watch(self) -> None:
        """Have the machines looked at for a while."""
        if steady.now() > self._watched_until:
            self.host_stats.look(self.nodes())
        self._watched_until = steady.now() + WATCHED_SECONDS

    def heartbeat(self) -> None:
        """Send heartbeats at once, to listeners who have just come."""
        self._beat = 0.0
        self.tick(steady.now())

    @property
    def ticking(self) -> bool:
        """Whether somebody listens or watches, so that :meth:`tick` is to be called every second."""
        return self.events.listening or steady.now() < self._watched_until

    def tick(self, now: float) -> None:
        """Do what is to be done regularly."""
        self.bus.expire(now)
        if self.ticking:
            self.host_stats.look(self.nodes())
        if not self.events.listening or now - self._beat < self.heartbeat_seconds:
            return
        self._beat = now
        nodes = self.nodes()
        whole = Whole(self._subject, self)
        for node, name in nodes.items():
            beat = commands.heartbeat_of(Node(whole, node, name, False))
            if node not in self._online:
                self.events.worker("online", node, beat)
            self.events.worker("heartbeat", node, beat)
        for node in self._online - nodes.keys():
            self.events.worker("offline", node, {})
        self._online = set(nodes)

    def gone(self, conn: Connection) -> None:
        """Note that a process has gone."""
        self.bus.gone(conn)
