"""The journal's file: nobody else can read it, and nothing of it is believed that somebody else wrote."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray

from raycelery import Celery
from raycelery.control import applications
from raycelery.dispatcher.journal import MAGIC, Journal
from raycelery.errors import FolderError
from raycelery.protocol import framing, questions
from raycelery.protocol.codec import VERSION
from raycelery.protocol.records import Numbered, Record
from tests.support import RaySession, until

SECONDS = 90
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "raycelery" / "one.journal"


def written(path: Path, *numbers: int, key: str | None = None) -> bytes:
    """Write a journal, and return its bytes."""
    journal = Journal(path, key=key)
    for number in numbers:
        journal.append("", framing.pack(Numbered(number)))
    journal.close()
    return path.read_bytes()


def found(path: Path, key: str | None = None) -> list[Record]:
    journal = Journal(path, key=key)
    records: list[Record] = []
    journal.restore(lambda source, seq, record: records.append(record))
    journal.close()
    return records


@pytest.fixture
def open_to_all() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("open_to_all")
def test_nobody_else_may_read_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[str, int]] = []
    real = os.open

    def watched(name: str, flags: int, mode: int = 0o777, **more: int) -> int:
        if flags & os.O_CREAT:
            opened.append((name, mode))
        return real(name, flags, mode, **more)

    monkeypatch.setattr(os, "open", watched)
    journal = Journal(path)
    journal.append("", framing.pack(Numbered(1)))
    journal.flush()
    journal.rewrite([("", framing.pack(Numbered(1)))])
    journal.close()
    assert opened, "files are made"
    assert {mode for _, mode in opened} == {0o600}, "from the first byte on"
    assert {one.name: stat.S_IMODE(one.stat().st_mode) for one in path.parent.iterdir()} == {
        "one.journal": 0o600,
        "one.journal.key": 0o600,
        "one.journal.lock": 0o600,
    }
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_folder_that_others_could_write_to_is_closed_to_them(path: Path) -> None:
    path.parent.mkdir(mode=0o777)
    path.parent.chmod(0o777)
    written(path, 1)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert found(path) == [Numbered(1)]


@needs_root
def test_another_users_folder_is_refused(path: Path) -> None:
    written(path, 1)
    os.chown(path.parent, 12345, -1)
    with pytest.raises(FolderError, match=r"belongs to another user \(uid 12345, .*: remove it"):
        Journal(path)


@needs_root
def test_another_users_file_is_refused(path: Path) -> None:
    written(path, 1)
    os.chown(path, 12345, -1)
    with pytest.raises(FolderError, match="another user's"):
        Journal(path)


def test_a_folder_or_file_that_leads_elsewhere_is_refused(path: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    path.parent.symlink_to(tmp_path / "other")
    with pytest.raises(FolderError, match="leads to another"):
        Journal(path)
    path.parent.unlink()
    written(path, 1)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        Journal(path)


def test_what_is_put_in_the_folders_place_is_not_used(path: Path) -> None:
    journal = Journal(path)
    journal.append("", framing.pack(Numbered(1)))
    moved = path.parent.rename(path.parent.with_name("moved"))
    path.parent.mkdir()
    path.write_bytes(b"planted")
    journal.rewrite([("", framing.pack(Numbered(2)))])
    assert [record for _, _, record in journal.read()] == [Numbered(2)]
    journal.close()
    assert path.read_bytes() == b"planted"
    assert (moved / path.name).read_bytes().startswith(MAGIC)


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (lambda head, one, two: head + one + two[:-1] + bytes([two[-1] ^ 1]), [1]),
        (lambda head, one, two: head + one + two + two, [1, 2]),
        (lambda head, one, two: head + two + one, []),
        (lambda head, one, two: head + two, []),
    ],
    ids=["changed", "repeated", "swapped", "taken out"],
)
def test_what_was_changed_is_left_out(
    path: Path, change: Callable[[bytes, bytes, bytes], bytes], left: list[int]
) -> None:
    first = len(written(path, 1))
    two = written(path, 2)[first:]
    path.unlink()
    text = written(path, 1, 2)
    at = len(text) - len(text[first:])
    size = len(text) - first
    assert len(two) > size, "one that was opened again says who it is from"
    changed = change(text[: at - size], text[at - size : at], text[at:])
    path.write_bytes(changed)
    assert found(path) == list(map(Numbered, left))
    assert path.with_name("one.journal.damaged").read_bytes() == changed


def test_what_was_written_with_another_key_is_not_believed(path: Path, tmp_path: Path) -> None:
    planted = written(tmp_path / "strangers" / "one.journal", 666)
    text = written(path, 1)
    path.write_bytes(planted)
    with pytest.raises(FolderError, match="written with another key: give ray_journal_key"):
        Journal(path)
    assert path.read_bytes() == planted
    head = len(MAGIC) + 10
    path.write_bytes(text + planted[head:])
    assert found(path) == [Numbered(1)]


def test_a_damaged_beginning_costs_nothing_else(path: Path) -> None:
    text = written(path, 1, 2)
    path.write_bytes(b"#" * (len(MAGIC) + 10) + text[len(MAGIC) + 10 :])
    assert found(path) == [Numbered(1), Numbered(2)]
    path.write_bytes(text[: len(MAGIC) + 2] + b"#" * 8 + text[len(MAGIC) + 10 :])
    assert found(path) == [Numbered(1), Numbered(2)]


def test_another_version_is_put_aside(path: Path) -> None:
    text = written(path, 1)
    assert found(path) == [Numbered(1)], "one of this version goes on"
    at = len(MAGIC)
    other = text[:at] + (VERSION + 1).to_bytes(2, "big") + text[at + 2 :]
    path.write_bytes(other)
    assert found(path) == []
    assert path.with_name("one.journal.other-version").read_bytes() == other, "nothing of it is lost"


def test_a_secret_from_elsewhere(path: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    with pytest.raises(FolderError, match="ray_journal_key cannot be read"):
        Journal(path, key=str(secret))
    secret.write_bytes(b"short")
    with pytest.raises(FolderError, match="has 5 bytes: write at least 16"):
        Journal(path, key=str(secret))
    secret.write_bytes(os.urandom(100))
    written(path, 1, key=str(secret))
    assert found(path, str(secret)) == [Numbered(1)]
    assert not path.with_name(f"{path.name}.key").exists(), "no other key is made"
    with pytest.raises(FolderError, match="another key"):
        Journal(path)


def test_secrets_do_not_stand_in_it(ray_session: RaySession, tmp_path: Path) -> None:
    app = Celery("sealed", broker="redis://user:broker-pass-word@nowhere.invalid:1/0", set_as_current=False)
    app.conf.ray_journal = str(tmp_path)
    app.conf.ray_runtime_env = {"env_vars": {"SHOP_SECRET": "not-for-others"}}

    @app.task
    def secret(argument: str) -> str:
        return f"{argument} {os.environ['SHOP_SECRET']}"

    result = secret.apply_async(("an-argument",), countdown=2.0)
    until(lambda: app.client.call(questions.Unknown([result.id])) == [], SECONDS)
    folder = tmp_path / "raycelery"
    told = b"".join(one.read_bytes() for one in folder.iterdir())
    assert len(told) > 1000, "it is there"
    for word in (b"broker-pass-word", b"not-for-others", b"SHOP_SECRET", b"an-argument", b"user"):
        assert word not in told
    dispatcher = ray.get_actor("raycelery:sealed", namespace="raycelery")
    ray.kill(dispatcher, no_restart=False)
    assert result.get(timeout=SECONDS) == "an-argument not-for-others", "whoever takes it up knows them all the same"
    applications.end("sealed")
