"""What is launched: the program, its arguments, and the environment that it runs in."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from raycelery.client import counting
from raycelery.launch.errors import SpecError
from raycelery.launch.nodes import Node, Secret, Workers

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Reads dates, which are arguments as a rule, as the text that they are."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:timestamp"]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?")


class Spec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An application to be launched.

    Arguments:
        entrypoint: the program and its arguments, a word each. No shell sees them. ``python`` is the one of the
            application's environment.
        name: of the run; small letters, digits and dashes, 48 at most. None: made of the program's name, and new each
            time.
        args: further arguments.
        env: environment variables. They can be read by whoever may use the cluster: no place for secrets.
        working_dir: folder that the program and its tasks run in, on every node; packaged and sent along. A remote one
            (``s3://...zip``) is fetched by Ray. None: nothing is sent. If it is not given: this folder, or none where
            ``image`` is given, which has the program.
        excludes: what is left out of it, as in ``.gitignore``.
        py_modules: further modules to send along.
        pip: requirements that Ray installs for this application alone, or the path of a requirements file.
        uv: the same, installed by uv.
        num_cpus: CPUs that the program itself takes; its tasks ask for their own.
        timeout: seconds that it may run before it is cancelled; None: any.
        max_failures: how many of its tasks may fail; with more it has failed, whatever the program itself returns.
            None: the program alone decides.
        retries: how often it is tried again after it has failed; on KubeRay each time on a new cluster.
        progress: seconds between lines, among what it prints, that tell how many tasks are done, run and have failed;
            None: there are none.

    These have a meaning on a cluster that is made for the application (KubeRay); elsewhere they are left aside, but for
    ``secrets``, which a cluster that is there already refuses:

    Arguments:
        image: of its nodes; None: ``rayproject/ray`` of this process's versions of Ray and Python.
        head: its head node, on which the program runs.
        workers: its groups of worker nodes, by name; none: all runs on the head node.
        secrets: environment variables whose values are in Kubernetes Secrets; on a cluster of its own on this machine
            they have the values that they have here.
        start_timeout: seconds until the program runs, after which it has failed.
        ttl: seconds that the cluster stays after the end, for its logs.
        keep: seconds after the end when what Kubernetes knows of the run goes as well (KubeRay's deletion rules);
            None: it stays until ``raycelery job delete``.
        queue, priority: of Kueue.
        namespace, service_account: of Kubernetes; None: those of whoever launches it, and of the namespace.
        image_pull_secrets: names of the Secrets that images are pulled with.
        ray_version: of the image; None: this process's.
        auth: ``token``: the cluster demands one, which KubeRay makes; None: so it is from Ray 2.52 on.
        auth_secret: name of the Secret that has it (key ``auth_token``); None: KubeRay makes one.
        labels: of all that is made.
        manifest: what is put over the RayJob that all this makes, for anything else.
    """

    entrypoint: list[str]
    name: str | None = None
    args: list[str] = []
    env: dict[str, str] = {}
    working_dir: str | msgspec.UnsetType | None = msgspec.UNSET
    excludes: list[str] = []
    py_modules: list[str] = []
    pip: list[str] | str | None = None
    uv: list[str] | str | None = None
    num_cpus: float = 0
    timeout: float | None = None
    max_failures: int | None = None
    progress: float | None = None
    image: str | None = None
    head: Node = Node()
    workers: dict[str, Workers] = {}
    secrets: dict[str, Secret] = {}
    retries: int = 0
    start_timeout: float | None = 1800
    ttl: int = 300
    keep: int | None = None
    queue: str | None = None
    priority: str | None = None
    namespace: str | None = None
    service_account: str | None = None
    image_pull_secrets: list[str] = []
    ray_version: str | None = None
    auth: Literal["token", "disabled"] | None = None
    auth_secret: str | None = None
    labels: dict[str, str] = {}
    manifest: dict[str, Any] = {}

    def __post_init__(self) -> None:
        if not self.entrypoint or not self.entrypoint[0]:
            raise ValueError("entrypoint is empty: name the program, as in ['python', '-m', 'shop.train']")
        if self.name is not None and not _NAME.fullmatch(self.name):
            raise ValueError(
                f"name={self.name!r} is no name of a run: small letters, digits and dashes, at most 48, and no dash at "
                "the ends"
            )
        if self.pip is not None and self.uv is not None:
            raise ValueError("pip and uv are both given: choose one of them to install the requirements")
        if not self.num_cpus >= 0:
            raise ValueError(f"num_cpus={self.num_cpus!r} must be zero or more")
        if any("\0" in word for word in self.words):
            raise ValueError("an argument has a null character in it, which no program can be given")
        for name in ("timeout", "start_timeout", "progress", "max_failures", "retries", "ttl", "keep"):
            value = getattr(self, name)
            above = name.endswith("timeout") or name == "progress"
            if value is not None and (value < 0 or (above and value == 0)):
                raise ValueError(
                    f"{name}={value!r} must be a number {'of seconds above zero' if above else 'not below zero'}"
                )
        both = set(self.env) & set(self.secrets)
        if both:
            raise ValueError(f"{min(both)} is in both env and secrets: leave it in one of them")
        folder = self.folder
        if folder is not None and "://" not in folder and not Path(folder).is_dir():
            raise ValueError(f"working_dir={folder!r} is no folder")

    @property
    def folder(self) -> str | None:
        """The working directory that is sent along, or its address; None: there is none."""
        if self.working_dir is msgspec.UNSET:
            return "." if self.image is None else None
        return self.working_dir

    @property
    def local(self) -> bool:
        """Whether something of this machine is to be sent along."""
        parts = [self.folder, *self.py_modules, self.pip, self.uv]
        return any(isinstance(part, str) and "://" not in part for part in parts)

    @property
    def words(self) -> list[str]:
        """The program and all its arguments."""
        return [*self.entrypoint, *self.args]

    @property
    def runtime_env(self) -> dict[str, Any]:
        """Ray's runtime environment of the application."""
        folder = self.folder
        counted = {counting.PROGRESS: self.progress, counting.MAX_FAILURES: self.max_failures}
        asked = {name: f"{value:g}" for name, value in counted.items() if value is not None}
        parts: dict[str, Any] = {
            "working_dir": folder if folder is None or "://" in folder else str(Path(folder).resolve()),
            "excludes": list(self.excludes),
            "py_modules": list(self.py_modules),
            "pip": self.pip,
            "uv": self.uv,
            "env_vars": {**self.env, **asked},
        }
        return {name: value for name, value in parts.items() if value}

    def __str__(self) -> str:
        return shlex.join(self.words)


def made(fields: Mapping[str, Any], said: str = "the specification", settings: Sequence[str] = ()) -> Spec:
    """Return a specification made of plain data.

    Arguments:
        fields: by name; see :class:`Spec`. ``entrypoint`` may be one text, which is split as a shell would.
        said: what it is called in errors.
        settings: ``field=value`` or ``field.part=value`` each, over that; lists and mappings in YAML.

    Raises:
        SpecError: a field is unknown, or has a wrong value.
    """
    fields = dict(fields)
    for one in settings:
        _set(fields, one)
    known = Spec.__struct_fields__
    for name in fields:
        if name not in known:
            near = get_close_matches(str(name), known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            raise SpecError(f"{said} has no field {name!r}; {hint}")
    try:
        if isinstance(fields.get("entrypoint"), str):
            fields["entrypoint"] = shlex.split(fields["entrypoint"])
        # What --set gives is text.
        return msgspec.convert(fields, Spec, strict=not settings)
    except (msgspec.ValidationError, ValueError) as exc:
        raise SpecError(f"{said}: {exc}") from exc


def _set(fields: dict[str, Any], setting: str) -> None:
    path, equals, text = setting.partition("=")
    *parents, last = path.split(".")
    if not (equals and last):
        raise SpecError(f"--set {setting!r} is not of the form FIELD=VALUE")
    place = fields
    for parent in parents:
        inner = place.get(parent)
        place[parent] = place = dict(inner) if isinstance(inner, Mapping) else {}
    try:
        place[last] = yaml.load(text, _Loader) if text[:1] in ("[", "{") else text
    except yaml.YAMLError as exc:
        raise SpecError(f"--set {setting!r} is no YAML: {exc}") from exc


def load(path: Path, changes: Mapping[str, Any] | None = None, settings: Sequence[str] = ()) -> Spec:
    """Read a specification from a file: YAML, TOML, or ``[tool.raycelery.app]`` of a ``pyproject.toml``.

    Arguments:
        path: the file. A relative ``working_dir`` in it is relative to its folder.
        changes: fields that replace those of the file.
        settings: see :func:`made`.

    Raises:
        SpecError: it cannot be read, or is wrong.
    """
    try:
        text = path.read_bytes()
        if path.suffix == ".toml":
            found: Any = tomllib.loads(text.decode())
            if path.name == "pyproject.toml":
                found = found.get("tool", {}).get("raycelery", {}).get("app")
        else:
            found = yaml.load(text, _Loader)
    except OSError as exc:
        raise SpecError(f"{path} cannot be read: {exc.strerror}") from exc
    except (ValueError, yaml.YAMLError) as exc:
        raise SpecError(f"{path} cannot be read: {exc}") from exc
    if not isinstance(found, dict):
        where = "table [tool.raycelery.app]" if path.name == "pyproject.toml" else "fields such as 'entrypoint'"
        raise SpecError(f"{path} has no {where}")
    built = "image" in {**found, **(changes or {})} or any(one.startswith("image=") for one in settings)
    folder = found.get("working_dir", None if built else ".")
    if isinstance(folder, str) and "://" not in folder:
        found["working_dir"] = str(path.parent / folder)
    return made({**found, **(changes or {})}, str(path), settings)
