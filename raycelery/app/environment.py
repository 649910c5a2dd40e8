"""Runtime environments: their check, how those of application, queue, task and call add up, and local folders in them.

Ray takes local folders in a runtime environment only for a whole job, not for one actor; what names them here is
uploaded first, as Ray does for jobs. See https://docs.ray.io/en/latest/ray-core/handling-dependencies.html.
"""

from __future__ import annotations

import difflib
import inspect
import json
import os
import tempfile
from collections.abc import Mapping
from typing import Any

from raycelery.errors import OptionError
from raycelery.masking import masked, masked_text

#: How long Ray keeps an uploaded folder that no executor uses just now (its own default is ten minutes).
_KEEP_SECONDS = 20 * 86400
#: At most one of these can be used.
_INSTALLERS = ("pip", "uv", "conda")
#: The fields that say which code runs, and with what.
_OF_CODE = ("working_dir", "py_modules", "env_vars", "py_executable", "image_uri", "container", *_INSTALLERS)


def check(name: str, value: Any) -> None:
    """Refuse what Ray would not take as a runtime environment.

    Raises:
        OptionError: naming the field.
    """
    if value is None:
        return
    if not isinstance(value, Mapping):
        raise OptionError(f"{name}={masked(value)!r} must be a mapping as Ray's runtime_env takes it")
    from ray.runtime_env import RuntimeEnv

    known = {field.removeprefix("_") if "ray" not in field else field for field in RuntimeEnv.known_fields}
    for field in value:
        if field not in known and field not in RuntimeEnv.known_fields and "RAY_RUNTIME_ENV_PLUGINS" not in os.environ:
            near = difflib.get_close_matches(str(field), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"Ray knows {', '.join(sorted(known))}"
            raise OptionError(f"{name}: unknown field {field!r}; {hint}")
    try:
        json.dumps(dict(value))
        # Files are looked for at the call: an executor that imports the application need not have them.
        RuntimeEnv(**{field: part for field, part in value.items() if not _is_file(field, part)})
    except (TypeError, ValueError) as exc:
        raise OptionError(f"{name}={masked(value)!r} is not what Ray takes: {masked_text(str(exc))}") from exc


def of_job() -> dict[str, Any]:
    """Return what the runtime environment of this program's Ray job says of code; ``ray job submit`` sets it, too."""
    import ray

    if not ray.is_initialized():
        return {}
    env = ray.get_runtime_context().runtime_env
    return {field: env[field] for field in _OF_CODE if env.get(field)}


def _is_file(field: str, part: Any) -> bool:
    return (
        (field in _INSTALLERS and isinstance(part, str))
        or (field == "working_dir" and isinstance(part, str))
        or (field == "py_modules" and isinstance(part, list) and all(isinstance(path, str) for path in part))
    )


def _is_local(field: str, part: Any) -> bool:
    return field in ("working_dir", "py_modules") and any(
        "://" not in path for path in ([part] if isinstance(part, str) else part)
    )


def merged(base: Mapping[str, Any] | None, over: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return ``base`` with the fields of ``over`` in their place, by Ray's rule: ``env_vars`` add up."""
    base, over = dict(base or {}), dict(over or {})
    if any(over.get(field) for field in _INSTALLERS):
        base = {field: value for field, value in base.items() if field not in _INSTALLERS}
    both = {**base, **over}
    if base.get("env_vars") and over.get("env_vars"):
        both["env_vars"] = {**base["env_vars"], **over["env_vars"]}
    return both


def packaged(env: Mapping[str, Any], *, connected: bool) -> dict[str, Any]:
    """Return ``env`` as every node can use it: files of requirements read, local folders uploaded to the cluster.

    Arguments:
        env: a checked runtime environment.
        connected: whether this process can talk to Ray; a forked child cannot.

    Raises:
        OptionError: a folder or file that it names cannot be read or uploaded.
    """
    from ray._private.runtime_env import packaging, py_modules, working_dir
    from ray.exceptions import RuntimeEnvSetupError
    from ray.runtime_env import RuntimeEnv

    try:
        local = {field: part for field, part in env.items() if _is_local(field, part)}
        # Older versions of Ray take no local folders here.
        full: dict[str, Any] = dict(RuntimeEnv(**{field: part for field, part in env.items() if field not in local}))
        if not local:
            return full
        if not connected:
            raise ValueError("a forked child cannot upload its folders: call the task in the parent first")
        full.update(local)
        with tempfile.TemporaryDirectory(prefix="raycelery-") as scratch:
            for upload in (py_modules.upload_py_modules_if_needed, working_dir.upload_working_dir_if_needed):
                # Older versions of Ray leave out what .gitignore names without being asked.
                asked = "include_gitignore" in inspect.signature(upload).parameters
                full = upload(full, scratch_dir=scratch, **({"include_gitignore": True} if asked else {}))
    except (OSError, TypeError, ValueError, RuntimeError, RuntimeEnvSetupError) as exc:
        raise OptionError(f"runtime_env={masked(env)!r} cannot be used: {masked_text(str(exc))}") from exc
    for uri in [*full.get("py_modules", ()), full.get("working_dir") or ""]:
        if uri.startswith("gcs://"):
            packaging.pin_runtime_env_uri(uri, expiration_s=_KEEP_SECONDS)
    return full
