"""The errors of tasks on their way to whoever asks for the result.

An error arrives as its own class: the class, its ``args``, and what can be pickled of its attributes. Its ``__init__``
is not called again, as pickle would: it may want other arguments than ``args``. Where the class cannot be imported, a
class of the same name stands in, see :class:`raycelery.errors.RemoteError`. Nothing here can fail where the error is
read, so that a task's state can be read wherever its error's class cannot.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from types import MemberDescriptorType
from typing import Any

from raycelery.errors import RemoteError

logger = logging.getLogger(__name__)

_ATOMS = frozenset({int, float, bool, type(None), str})
#: With one of these a class says itself how it is pickled.
_OWN_WAYS = frozenset(
    {"__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__getnewargs__", "__getnewargs_ex__"}
)
_HOOK = "__reduce_ex__"
_stand_ins: dict[tuple[str, str], type[RemoteError]] = {}
#: Guards ``_stand_ins``: one class for all errors of one name, whichever threads read them.
_lock = threading.Lock()

#: Module and qualified name of a class.
Name = tuple[str, str]


class _Pickled:
    """An argument or attribute, pickled for itself: it may be one that cannot be loaded everywhere."""

    __slots__ = ("data", "text")

    def __init__(self, data: bytes, text: str) -> None:
        self.data, self.text = data, text

    def __reduce__(self) -> tuple[Any, ...]:
        return _Pickled, (self.data, self.text)


# -- where the error is raised ------------------------------------------------------------------------------------


def reduced(exc: BaseException, dumps: Callable[[Any], bytes]) -> Any:
    """Return what pickle makes an error of again, as ``__reduce__`` does.

    Arguments:
        exc: any error.
        dumps: pickles one argument or attribute.
    """
    kind = type(exc)
    attributes = {name: value for name, value in vars(exc).items() if name != _HOOK}
    if kind.__module__ == "builtins" and not attributes and all(type(arg) in _ATOMS for arg in exc.args):
        return NotImplemented if _HOOK not in vars(exc) else (kind, exc.args)
    if isinstance(exc, RemoteError) and exc._remote_reduction is not None:
        return exc._remote_reduction
    lineage = tuple((cls.__module__, cls.__qualname__) for cls in kind.__mro__ if cls is not object)
    args = tuple(_carried(arg, dumps) for arg in exc.args)
    state = {}
    for name, value in (*_slots(exc), *attributes.items()):
        carried = _carried(value, dumps, None)
        if carried is not None or value is None:
            state[name] = carried
    return restored, (lineage, _text(exc), args, state, _code(kind), _whole(exc, kind))


def _slots(exc: BaseException) -> Iterator[tuple[str, Any]]:
    """Yield what an error keeps outside of its ``__dict__``, such as the ``errno`` of an ``OSError``."""
    for cls in type(exc).__mro__:
        if cls is BaseException:
            return
        for name, member in vars(cls).items():
            # "obj" is what an attribute was asked of: anything, however large.
            if isinstance(member, MemberDescriptorType) and name != "obj":
                value = getattr(exc, name, None)
                if value is not None:
                    yield name, value


def _carried(value: Any, dumps: Callable[[Any], bytes], *otherwise: Any) -> Any:
    if type(value) in _ATOMS:
        return value
    try:
        return _Pickled(dumps(value), _repr(value))
    except Exception as exc:  # whatever keeps it from being pickled, the error itself is to arrive
        logger.debug("not carried along with an error: %s", exc)
        return otherwise[0] if otherwise else _repr(value)


def _repr(value: Any) -> str:
    try:
        return repr(value)[:1000]
    except Exception as exc:  # its own code
        return f"<{type(value).__name__}, which cannot be shown: {type(exc).__name__}>"


def _text(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception as error:  # its own code
        return f"its text cannot be shown: {error!r}"


def _code(kind: type) -> bytes | None:
    """Return a class that no import leads to."""
    if kind.__module__ != "__main__" and _found(kind.__module__, kind.__qualname__) is kind:
        return None
    from ray import cloudpickle

    try:
        return bytes(cloudpickle.dumps(kind))
    except Exception as exc:  # it may refer to anything
        logger.debug("the class %s does not travel: %s", kind.__qualname__, exc)
        return None


def _whole(exc: BaseException, kind: type) -> bytes | None:
    """Return the error as its class itself wants it pickled, if it says so and that works."""
    own = [cls for cls in kind.__mro__ if cls.__module__ != "builtins" and _OWN_WAYS & vars(cls).keys()]
    if not own:
        return None
    from ray import cloudpickle

    hook = vars(exc).pop(_HOOK, None)
    try:
        data = bytes(cloudpickle.dumps(exc))
        return data if type(pickle.loads(data)) is kind else None
    except Exception as error:  # the class's own code
        logger.debug("%s does not travel in its own way: %s", kind.__qualname__, error)
        return None
    finally:
        if hook is not None:
            vars(exc)[_HOOK] = hook


@contextlib.contextmanager
def portable(exc: BaseException, dumps: Callable[[Any], bytes]) -> Iterator[None]:
    """Have plain pickle treat an error as :func:`reduced` does meanwhile.

    Celery puts another error in the place of one that plain pickle cannot carry.
    """
    vars(exc)[_HOOK] = lambda protocol: reduced(exc, dumps)
    try:
        yield
    finally:
        vars(exc).pop(_HOOK, None)


# -- where it is read ---------------------------------------------------------------------------------------------


def restored(
    lineage: tuple[Name, ...],
    text: str,
    args: tuple[Any, ...],
    state: dict[str, Any],
    code: bytes | None,
    whole: bytes | None,
) -> BaseException:
    """Make an error again of what :func:`reduced` returned; never fails.

    Arguments:
        lineage: names of its class and of what that derives from.
        text: what ``str`` said of it.
        args: its arguments.
        state: its attributes, as far as they could be pickled.
        code: its class, where no import leads to that.
        whole: the error pickled in its class's own way.
    """
    try:
        if whole is not None:
            with contextlib.suppress(Exception):
                found = pickle.loads(whole)
                if isinstance(found, BaseException):
                    return found
        cls = _found(*lineage[0]) or _loaded(code)
        if cls is not None:
            return _made(cls, args, state)
    except Exception as exc:  # the class's own code, such as a __new__ that wants more
        logger.debug("the error %s cannot be made again: %s", lineage[0][1], exc)
    stand_in = _made(_stand_in(lineage), args, state)
    assert isinstance(stand_in, RemoteError)
    stand_in._remote_text = text
    stand_in._remote_reduction = (restored, (lineage, text, args, state, code, whole))
    return stand_in


def made(cls: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    """Make an error without a call of its class's own ``__init__``.

    Raises:
        TypeError: its ``__new__`` wants something else.
    """
    return _made(cls, args, {})


def _made(cls: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    args = tuple(_opened(arg) for arg in args)
    exc = _blank(cls, args)
    BaseException.args.__set__(exc, args)  # type: ignore[attr-defined]
    for name, value in state.items():
        if type(value) is _Pickled:
            try:
                value = pickle.loads(value.data)
            except Exception as error:  # of a class that is not here
                logger.debug("the attribute %s of %s cannot be loaded: %s", name, cls.__qualname__, error)
                continue
        if isinstance(getattr(cls, name, None), MemberDescriptorType):
            with contextlib.suppress(AttributeError, TypeError):
                setattr(exc, name, value)
        else:
            vars(exc)[name] = value
    return exc


def _blank(cls: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    for base in cls.__mro__:
        if base.__module__ != "builtins" or not issubclass(base, BaseException):
            continue
        for arguments in (args, ()):
            with contextlib.suppress(TypeError):
                exc = base.__new__(cls, *arguments)
                with contextlib.suppress(Exception):
                    # Python's own, which for some sets what they keep outside of __dict__.
                    base.__init__(exc, *args)
                return exc
    return cls.__new__(cls)


def _opened(arg: Any) -> Any:
    if type(arg) is not _Pickled:
        return arg
    try:
        return pickle.loads(arg.data)
    except Exception as exc:  # of a class that is not here
        logger.debug("an argument of an error cannot be loaded: %s", exc)
        return arg.text


def _found(module: str, qualname: str) -> type[BaseException] | None:
    """Return the class of that name, if there is one and it is an error's."""
    try:
        there: Any = sys.modules.get(module) or importlib.import_module(module)
    except (Exception, SystemExit) as exc:  # the module's own code
        logger.debug("the module of the error %s.%s cannot be imported: %s", module, qualname, exc)
        return None
    found = there
    for name in qualname.split("."):
        found = getattr(found, name, None)
    if found is None:
        # A class that a function made has no name of its own to be found by, but the module may keep it.
        for value in list(vars(there).values()):
            if isinstance(value, type) and (value.__module__, value.__qualname__) == (module, qualname):
                found = value
    return found if isinstance(found, type) and issubclass(found, BaseException) else None


def _loaded(code: bytes | None) -> type[BaseException] | None:
    if code is None:
        return None
    try:
        found = pickle.loads(code)
    except Exception as exc:  # it may refer to what is not here
        logger.debug("the class of an error cannot be loaded: %s", exc)
        return None
    return found if isinstance(found, type) and issubclass(found, BaseException) else None


def _stand_in(lineage: tuple[Name, ...]) -> type[RemoteError]:
    """Return a class of the same name, which derives from what can be imported of the true one's bases."""
    name = lineage[0]
    with _lock:
        if name not in _stand_ins:
            _stand_ins[name] = _new_stand_in(lineage)
        return _stand_ins[name]


def _new_stand_in(lineage: tuple[Name, ...]) -> type[RemoteError]:
    module, qualname = lineage[0]
    members = {"__module__": module, "__qualname__": qualname}
    for base in lineage[1:]:
        found = _found(*base)
        if found is None or issubclass(RemoteError, found):
            continue
        try:
            return type(qualname.rpartition(".")[2], (RemoteError, found), members)
        except TypeError as exc:  # it may not be derived from
            logger.debug("%s cannot stand in for %s: %s", found, qualname, exc)
    return type(qualname.rpartition(".")[2], (RemoteError,), members)
