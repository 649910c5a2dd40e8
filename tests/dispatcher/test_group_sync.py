"""With `ray_durability="node"` nothing leaves before it is on the disk, and one force is for all that wait."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from raycelery.dispatcher import group_sync
from raycelery.dispatcher.group_sync import GroupSync


class Wire:
    """A connection that notes what leaves."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.left: list[bytes] = []

    def take_out(self) -> list[bytes]:
        frames, self.frames = self.frames, []
        return frames

    def write(self, frames: list[bytes]) -> None:
        self.left += frames


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    path = tmp_path / "journal"
    path.touch()
    return path


async def until(true: bool | object) -> None:
    for _ in range(1000):
        if callable(true) and true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it does not come true")


def test_frames_wait_for_the_disk_together(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go, forced = threading.Semaphore(0), []

    def force(descriptor: int) -> None:
        go.acquire()
        forced.append(descriptor)

    monkeypatch.setattr(group_sync, "force", force)

    async def play() -> None:
        with journal.open("ab") as file:
            sync, one, two = GroupSync(file.fileno, lambda: None), Wire(), Wire()
            one.frames = [b"first"]
            sync.send([one])
            for wire in (one, two) * 10:
                wire.frames = [b"then"]
                sync.send([wire])
            await asyncio.sleep(0.05)
            assert one.left == [], "the disk has not said that it has it"
            go.release()
            await until(lambda: one.left == [b"first"])
            assert two.left == []
            go.release()
            await until(lambda: len(one.left) == 11 and len(two.left) == 10)
            assert len(forced) == 2, "one for all that came meanwhile"

    asyncio.run(play())


def test_what_the_disk_has_refused_is_written_anew(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fails = [OSError(5, "Input/output error")]

    def force(descriptor: int) -> None:
        if fails:
            raise fails.pop()

    monkeypatch.setattr(group_sync, "force", force)
    monkeypatch.setattr(group_sync, "AGAIN_SECONDS", 0.01)
    rewritten = []

    def rewrite() -> None:
        rewritten.append(1)
        if len(rewritten) == 1:
            raise OSError(28, "No space left on device")

    async def play() -> None:
        with journal.open("ab") as file:
            sync, wire = GroupSync(file.fileno, rewrite), Wire()
            wire.frames = [b"frame"]
            sync.send([wire])
            await until(lambda: wire.left)
            assert wire.left == [b"frame"]
            assert len(rewritten) == 2, "it is not taken for written because the second force succeeds"

    asyncio.run(play())
