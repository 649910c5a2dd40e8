"""What is launched: the program, its arguments, and the environment that it runs in."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec

from raycelery.launch.errors import SpecError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

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
            (``s3://...zip``) is fetched by Ray. None: nothing is sent.
        excludes: what is left out of it, as in ``.gitignore``.
        py_modules: further modules to send along.
        pip: requirements that Ray installs for this application alone, or the path of a requirements file.
        uv: the same, installed by uv.
        num_cpus: CPUs that the program itself takes; its tasks ask for their own.
        timeout: seconds that it may run before it is cancelled; None: any.
    """

    entrypoint: list[str]
    name: str | None = None
    args: list[str] = []
    env: dict[str, str] = {}
    working_dir: str | None = "."
    excludes: list[str] = []
    py_modules: list[str] = []
    pip: list[str] | str | None = None
    uv: list[str] | str | None = None
    num_cpus: float = 0
    timeout: float | None = None

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
        if self.timeout is not None and not self.timeout > 0:
            raise ValueError(f"timeout={self.timeout!r} must be a number of seconds above zero")
        if not self.num_cpus >= 0:
            raise ValueError(f"num_cpus={self.num_cpus!r} must be zero or more")
        if any("\0" in word for word in self.words):
            raise ValueError("an argument has a null character in it, which no program can be given")
        folder = self.working_dir
        if folder is not None and "://" not in folder and not Path(folder).is_dir():
            raise ValueError(f"working_dir={folder!r} is no folder")

    @property
    def words(self) -> list[str]:
        """The program and all its arguments."""
        return [*self.entrypoint, *self.args]

    @property
    def runtime_env(self) -> dict[str, Any]:
        """Ray's runtime environment of the application."""
        folder = self.working_dir
        parts: dict[str, Any] = {
            "working_dir": folder if folder is None or "://" in folder else str(Path(folder).resolve()),
            "excludes": list(self.excludes),
            "py_modules": list(self.py_modules),
            "pip": self.pip,
            "uv": self.uv,
            "env_vars": dict(self.env),
        }
        return {name: value for name, value in parts.items() if value}

    def __str__(self) -> str:
        return shlex.join(self.words)


def made(fields: Mapping[str, Any], said: str = "the specification") -> Spec:
    """Return a specification made of plain data.

    Arguments:
        fields: by name; see :class:`Spec`. ``entrypoint`` may be one text, which is split as a shell would.
        said: what it is called in errors.

    Raises:
        SpecError: a field is unknown, or has a wrong value.
    """
    known = Spec.__struct_fields__
    for name in fields:
        if name not in known:
            near = get_close_matches(str(name), known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            raise SpecError(f"{said} has no field {name!r}; {hint}")
    fields = dict(fields)
    try:
        if isinstance(fields.get("entrypoint"), str):
            fields["entrypoint"] = shlex.split(fields["entrypoint"])
        return msgspec.convert(fields, Spec)
    except (msgspec.ValidationError, ValueError) as exc:
        raise SpecError(f"{said}: {exc}") from exc


def load(path: Path, changes: Mapping[str, Any] | None = None) -> Spec:
    """Read a specification from a file: YAML, TOML, or ``[tool.raycelery.app]`` of a ``pyproject.toml``.

    Arguments:
        path: the file. A relative ``working_dir`` in it is relative to its folder.
        changes: fields that replace those of the file.

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
            found = msgspec.yaml.decode(text)
    except OSError as exc:
        raise SpecError(f"{path} cannot be read: {exc.strerror}") from exc
    except (ValueError, msgspec.DecodeError) as exc:
        raise SpecError(f"{path} cannot be read: {exc}") from exc
    if not isinstance(found, dict):
        where = "table [tool.raycelery.app]" if path.name == "pyproject.toml" else "fields such as 'entrypoint'"
        raise SpecError(f"{path} has no {where}")
    folder = found.get("working_dir", ".")
    if isinstance(folder, str) and "://" not in folder:
        found["working_dir"] = str(path.parent / folder)
    return made({**found, **(changes or {})}, str(path))
