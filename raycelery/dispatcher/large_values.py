"""The dispatcher's books of large values in Ray's object store: who still needs which."""

from __future__ import annotations

import asyncio
import logging
import pickle
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import ray

from raycelery.names import NAMESPACE, ON_HEAD
from raycelery.reasons import reason_of

logger = logging.getLogger(__name__)

#: Seconds that processes have to claim their large values of a dispatcher that was restarted.
CLAIM_SECONDS = 600.0


class LargeValueOwner:
    """An actor that owns the large values, so that they outlive a dispatcher that is killed.

    It is on the head, and so are they: nodes that come and go are not kept for them, and take none with them.
    """

    def __init__(self) -> None:
        self._refs: dict[str, Any] = {}

    async def keep(self, key: str, refs: list[Any]) -> list[Any]:
        """Copy a value that another process owns; references are in lists, so that Ray does not pass the value."""
        if key not in self._refs:
            stream, *buffers = await refs[0]
            # What arrives as shared memory must be wrapped again to be stored as such.
            self._refs[key] = ray.put([stream, *(pickle.PickleBuffer(buffer) for buffer in buffers)])
        return [self._refs[key]]

    async def end(self) -> None:
        """Never return: who waits for that hears of the end of this process."""
        await asyncio.Event().wait()

    async def drop(self, keys: list[str]) -> None:
        """Let go of these."""
        for key in keys:
            self._refs.pop(key, None)

    async def held(self) -> dict[str, list[Any]]:
        """Return all references."""
        return {key: [ref] for key, ref in self._refs.items()}


class LargeValues:
    """Keeps a reference to each large value for as long as a process, a message or a result holds it.

    Arguments:
        name: the application's.
        on_lost: called when the process that owned all of them has died.
    """

    def __init__(self, name: str, on_lost: Callable[[], None] = lambda: None) -> None:
        self._on_lost = on_lost
        self._watching: asyncio.Task[None]
        self._owner_name = f"raycelery-values:{name}"
        self._owner: Any = None
        self._opening = asyncio.Lock()
        #: What is needed no more, but still in the owner.
        self._dropped: dict[str, None] = {}
        self._refs: dict[str, Any] = {}
        self._holders: defaultdict[str, set[str]] = defaultdict(set)
        self._uses: Counter[str] = Counter()

    def hold(self, key: str, holder: str, ref: Any) -> None:
        """Keep ``ref`` under ``key`` until ``holder`` releases it."""
        self._refs.setdefault(key, ref)
        self._holders[key].add(holder)
        self._dropped.pop(key, None)

    def release(self, key: str, holder: str) -> None:
        """``holder`` needs it no more."""
        self._holders[key].discard(holder)
        self._drop_unused(key)

    def release_all(self, holder: str) -> None:
        """``holder`` is gone."""
        for key in [key for key, holders in self._holders.items() if holder in holders]:
            self.release(key, holder)

    def refer(self, keys: Iterable[str]) -> None:
        """A message or result refers to ``keys``."""
        self._uses.update(keys)

    def unrefer(self, keys: Iterable[str]) -> None:
        """A message or result that referred to ``keys`` is gone."""
        for key in keys:
            self._uses[key] -= 1
            self._drop_unused(key)

    async def keep(self, key: str, refs: list[Any], holder: str) -> bool:
        """Keep a large value for ``holder``, so that it outlives the process that sent it.

        Arguments:
            key: identifies its content.
            refs: its reference, or nothing to ask whether it is here.
            holder: the id of a process.

        Returns:
            whether it is here.
        """
        found = self.refs(key)
        if refs and not found:
            owner = await self._open_owner()
            try:
                found = await owner.keep.remote(key, refs)
            except ray.exceptions.RayActorError as exc:
                self._lose(owner, exc)
                owner = await self._open_owner()
                found = await owner.keep.remote(key, refs)
        for ref in found:
            self.hold(key, holder, ref)
        return bool(found)

    async def parts(self, key: str) -> list[memoryview]:
        """Return a large value's bytes, for a process that cannot use Ray.

        Raises:
            KeyError: it is gone.
        """
        refs = self.refs(key)
        if not refs:
            raise KeyError(f"the large value {key} is gone")
        try:
            return [pickle.PickleBuffer(part).raw() for part in await refs[0]]
        except (ValueError, ray.exceptions.RayError) as exc:
            raise KeyError(f"the large value {key} cannot be sent: {reason_of(exc)}") from exc

    async def _open_owner(self) -> Any:
        async with self._opening:
            if self._owner is None:
                options = {"name": self._owner_name, "namespace": NAMESPACE, "lifetime": "detached"}
                actor = ray.remote(LargeValueOwner).options(
                    **options, get_if_exists=True, num_cpus=0, resources=ON_HEAD
                )
                owner = actor.remote()
                await owner.held.remote()
                self._use(owner)
        return self._owner

    def _use(self, owner: Any) -> None:
        self._owner = owner
        self._watching = asyncio.get_running_loop().create_task(self._watch(owner))

    async def _watch(self, owner: Any) -> None:
        try:
            await owner.end.remote()
        except ray.exceptions.RayError as exc:
            self._lose(owner, exc)

    def _lose(self, owner: Any, exc: Exception) -> None:
        """Forget what an owner had that has died: what was stored is gone with it."""
        if self._owner is not owner:
            return
        if self._refs:
            logger.error(
                "%d large values were lost with the process that held them (%s): calls and results that refer to them "
                "fail, and those that are sent from now on are stored again", len(self._refs), reason_of(exc),
            )  # fmt: skip
        self._owner = None
        self._refs.clear()
        self._holders.clear()
        self._dropped.clear()
        self._on_lost()

    async def recover(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take over what a dispatcher that was killed has left; what nobody claims soon is dropped."""
        try:
            owner = ray.get_actor(self._owner_name, NAMESPACE)
            held = await owner.held.remote()
        except (ValueError, ray.exceptions.RayError) as exc:
            logger.debug("there are no large values to take over: %s", reason_of(exc))
            return
        self._use(owner)
        self._refs.update({key: ref for key, (ref,) in held.items()})
        loop.call_later(CLAIM_SECONDS, self._drop_unclaimed)

    def _drop_unclaimed(self) -> None:
        for key in list(self._refs):
            self._drop_unused(key)

    def sweep(self) -> None:
        """Let the owner go of what is needed no more."""
        if self._dropped and self._owner is not None:
            self._owner.drop.remote(list(self._dropped))
            self._dropped.clear()

    def end(self) -> None:
        """End the owner, which has none any more."""
        if self._owner is not None:
            self._watching.cancel()
            ray.kill(self._owner)

    def refs(self, key: str) -> list[Any]:
        """Return the reference in a list, or an empty list."""
        ref = self._refs.get(key)
        return [] if ref is None else [ref]

    def _drop_unused(self, key: str) -> None:
        if not self._holders.get(key) and self._uses[key] <= 0:
            if self._refs.pop(key, None) is not None:
                self._dropped[key] = None
            self._holders.pop(key, None)
            del self._uses[key]

    def __len__(self) -> int:
        return len(self._refs)
