"""Finding out that the other side of a connection is gone without having said so: its network was cut, its host died.

The kernel asks the other host, so a process that only is busy is not taken for gone. See tcp(7).
"""

from __future__ import annotations

import socket
import struct
from typing import Any

#: Seconds of silence before the other host is asked, between questions, and how many may stay without an answer.
IDLE_SECONDS = 10
BETWEEN_SECONDS = 5
QUESTIONS = 3
#: Seconds after which a host that acknowledges nothing of what it was sent is taken for gone.
UNANSWERED_SECONDS = 20
#: In a row.
_RETRANSMISSIONS = 3
#: Of ``struct tcp_info``: retransmissions and probes since the last answer, and milliseconds since that.
_INFO = struct.Struct("=xxBB52xI")


def keep(sock: Any, *, impatient: bool = False) -> None:
    """Have a connection whose other host is gone fail within 30 s.

    Arguments:
        sock: of the connection.
        impatient: also while something was sent that is not acknowledged; but then it fails also where the process over
            there takes nothing for so long. Without it :func:`cut_off` tells one from the other.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", IDLE_SECONDS),
        ("TCP_KEEPALIVE", IDLE_SECONDS),  # as macOS calls it
        ("TCP_KEEPINTVL", BETWEEN_SECONDS),
        ("TCP_KEEPCNT", QUESTIONS),
        ("TCP_USER_TIMEOUT", 1000 * UNANSWERED_SECONDS if impatient else None),
    ):
        option = getattr(socket, name, None)
        if option is not None and value is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def cut_off(sock: Any) -> bool:
    """Return whether the other host acknowledges nothing of what it is sent, in vain repeated; on Linux, else False."""
    option = getattr(socket, "TCP_INFO", None)
    if option is None:
        return False
    info = sock.getsockopt(socket.IPPROTO_TCP, option, 104)
    if len(info) < _INFO.size:
        return False
    repeated, probes, silent = _INFO.unpack_from(info)
    return bool(max(repeated, probes) >= _RETRANSMISSIONS and silent >= 1000 * UNANSWERED_SECONDS)
