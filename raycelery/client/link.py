"""The socket to a dispatcher: opened when it is first needed, and again when it was lost."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator

from raycelery.client.finding import Finder, NotInTime, left
from raycelery.client.reconnecting import Reconnecting
from raycelery.errors import DispatcherGone, DispatcherUnreachable
from raycelery.protocol import framing
from raycelery.protocol.codec import ProtocolError
from raycelery.protocol.frames import FromDispatcher, from_dispatcher

logger = logging.getLogger(__name__)

#: Seconds that an endpoint has to answer.
CONNECT_SECONDS = 10.0
#: Connections in a row over which came what cannot be read, before none is opened any more.
UNREADABLE_TIMES = 3


class Link:
    """One process's socket.

    Arguments:
        find: returns the endpoint; called again when the dispatcher has moved.
        endpoint: that a forked child has inherited, which cannot ask Ray; None: this is no forked child.
        executor: whether the process is an executor, which ends with its dispatcher, as does the task that it runs.
        seconds: for which a dispatcher that went away is looked for.
        lock: guards the sending side; its holder may take ``told``, never the other way round.
        told: notified when the connection is lost.
        greet: returns the frames to begin with; told whether there was a connection before.
        receive: called in the reading thread with what has come.
        closed: called in the reading thread at its end, with the reason.
    """

    def __init__(
        self, find: Callable[[], framing.Endpoint], *, endpoint: framing.Endpoint | None, executor: bool,
        seconds: float, lock: threading.RLock, told: threading.Condition, greet: Callable[[bool], Iterable[bytes]],
        receive: Callable[[list[FromDispatcher]], None], closed: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._finder = Finder(find)
        self.endpoint = endpoint
        self._inherited = endpoint is not None
        self._executor = executor
        self._reconnecting = Reconnecting(seconds)
        self._lock = lock
        self._told = told
        self._greet = greet
        self._on_frames = receive
        self._on_closed = closed
        self._sock: framing.Socket | None = None
        #: Why the connection is no more; None: it stands, or there was none.
        self.lost: str | None = None
        #: Whether a frame is half sent.
        self.sending = False
        #: Connections in a row that ended as what came over them could not be read, and why.
        self._unreadable, self._unread = 0, ""

    @property
    def connected(self) -> bool:
        """Whether the connection stands, as far as is known."""
        return self._sock is not None and self.lost is None

    # -- opening ------------------------------------------------------------------------------------------------

    def ensure(self, deadline: float | None = None) -> None:
        """Connect if that has not been done, or again if the connection was lost.

        Arguments:
            deadline: by ``time.monotonic``; None: as long as it takes.

        Raises:
            DispatcherUnreachable: no dispatcher answers.
            NotInTime: none has answered by then.
        """
        if self.connected:
            return
        with self.locked(deadline):
            if self.connected:
                return
            if self.lost is None or self._executor:
                self._connect(deadline)
            else:
                self._reconnecting.run(self._connect, deadline)

    @contextlib.contextmanager
    def locked(self, deadline: float | None) -> Iterator[None]:
        """Hold the lock; another thread, which has more time, may just be connecting.

        Raises:
            NotInTime: the lock was not free by then.
        """
        seconds = left(deadline)
        if not self._lock.acquire(timeout=-1 if seconds is None else seconds):
            raise NotInTime("another thread is connecting to the dispatcher, which took too long")
        try:
            yield
        finally:
            self._lock.release()

    def _connect(self, deadline: float | None) -> None:
        if self._unreadable >= UNREADABLE_TIMES:
            raise DispatcherGone(f"the dispatcher was given up, as {self._unread}")
        again = self.lost is not None
        sock = None
        if self.endpoint is not None and (self._inherited or not again):
            try:
                sock = self._open(self.endpoint, deadline)
            except DispatcherUnreachable:
                sock = None
        if sock is None:
            # Ray is asked, and not the old endpoint tried: another process may listen there by now.
            self.endpoint = self._finder.find(deadline)
            sock = self._open(self.endpoint, deadline)
        self._sock, self.lost = sock, None
        try:
            for frame in self._greet(again):
                sock.sendall(frame)
        except OSError as exc:
            self.lost = str(exc)
            raise DispatcherUnreachable(f"the dispatcher went away again ({exc})") from exc
        threading.Thread(target=self._read, args=(sock,), name="raycelery-reader", daemon=True).start()

    def _open(self, endpoint: framing.Endpoint, deadline: float | None) -> framing.Socket:
        impatient = not self._executor
        seconds = left(deadline)
        if seconds is None:
            return framing.connect(endpoint, impatient=impatient)
        try:
            return framing.connect(endpoint, min(CONNECT_SECONDS, seconds + 0.001), impatient=impatient)
        except DispatcherUnreachable as exc:
            if left(deadline) == 0.0:
                raise NotInTime(str(exc)) from exc
            raise

    # -- what comes and goes ------------------------------------------------------------------------------------

    def _read(self, sock: framing.Socket) -> None:
        unpacker = framing.Unpacker(from_dispatcher)
        reason = "it closed the connection"
        try:
            while data := sock.recv(1 << 18):
                frames = unpacker.feed(data)
                if frames:
                    self._on_frames(frames)
                    self._unreadable = 0
        except OSError as exc:
            reason = str(exc)
        except ProtocolError as exc:
            reason = self._unread = f"what it sent cannot be read: {exc}"
            self._unreadable += 1
            logger.error("the connection to the dispatcher is closed, as %s", reason)
        except Exception as exc:  # whatever it is, nothing more is read
            reason = f"this process could not take what it sent: {exc!r}"
            logger.exception("the connection to the dispatcher is closed, as %s", reason)
        with contextlib.suppress(OSError):  # it is closed already
            sock.shutdown(socket.SHUT_RDWR)
        current = self._sock is sock
        with self._told:
            if current:
                self.lost = reason
            self._told.notify_all()
        self._on_closed(reason if current else "")

    def send(self, frame: bytes, flags: int = 0) -> None:
        """Send a frame, connecting first where that helps; to be called with the lock.

        Raises:
            DispatcherUnreachable: the dispatcher went away, or none answers.
        """
        self.ensure()
        assert self._sock is not None
        self.sending = True
        try:
            if flags:
                view = memoryview(frame)
                while view:
                    view = view[self._sock.send(view, flags) :]
            else:
                self._sock.sendall(frame)
        except OSError as exc:
            self.lost = str(exc)
            raise DispatcherUnreachable(f"the dispatcher went away while a message was sent ({exc})") from exc
        finally:
            self.sending = False

    # -- closing ------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Disconnect; to be called with the lock."""
        sock, self._sock = self._sock, None
        if sock is not None:
            self._shut(sock)
            sock.close()

    def abandon(self) -> None:
        """Disconnect, without the lock."""
        sock = self._sock
        if sock is not None:
            self._shut(sock)

    @staticmethod
    def _shut(sock: framing.Socket) -> None:
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError as exc:
            logger.debug("closing the connection: %s", exc)

    def leave_to_parent(self) -> None:
        """In a forked child: close its copy of the socket, which goes on being the parent's."""
        sock, self._sock = self._sock, None
        if sock is not None:
            os.close(sock.detach())
