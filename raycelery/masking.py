"""What looks like a credential is not shown: not by commands, nor in errors, nor in logs.

Celery does the same with settings (``app.conf.humanize()``) and with the URLs of brokers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

#: What is shown in place of a credential; Celery's.
MASK = "********"
#: Names of mappings all of whose values are taken for credentials.
_WHOLE = frozenset({"env_vars"})
_NAME = (
    r"pass(?:word|wd|phrase|code)?s?|pwd|secrets?|token|credentials?|(?:api|access|private|account|encryption)[_-]?keys?"
    r"|auth|authorization|cookie|signature|dsn|jwt"
)
#: Words of a name, as in DB_PASSWORD, PGPASSWORD, dbPassword and x-api-key.
_WORDS = re.compile(
    rf"(?i:(?:^|[^a-z0-9])(?:[a-z0-9]*(?:password|passwd|secret|token)|{_NAME})(?:$|[^a-z0-9]))"
    rf"|(?<=[a-z0-9])(?:Password|Secret|Token|ApiKey|Credentials?)(?:$|[^a-z0-9])"
)
#: The password of a URL; the user is kept. (No part of a pattern here is unbounded: texts may be long.)
_URL = re.compile(r"(?P<lead>\b[A-Za-z][A-Za-z0-9+.-]{0,20}://[^\s/@:'\"]{0,256}:)[^\s/@'\"]{1,1024}(?=@)")
#: ``name='text'`` and ``'name': 'text'`` as Python and JSON write them, also within another text, where quotes have
#: backslashes; ``NAME=text`` as shells do.
_START = r"(?<![\w.-])(?P<name>[\w.-]{1,64})"
_QUOTED = re.compile(
    rf"(?P<lead>{_START}(?:\\{{0,4}}['\"]?\s{{0,4}}[:=]\s{{0,4}})b?)"
    r"(?:(?P<quote>['\"])(?:(?!(?P=quote))[^\\]|\\.)*(?P=quote)|(?P<deep>\\{1,4}['\"]).{0,1024}?(?P=deep))"
)
_BARE = re.compile(rf"(?P<lead>{_START}=(?!b?\\{{0,4}}['\"]))[^\s,;&'\")}}\]\\]+")
_BEARER = re.compile(r"(?P<lead>(?i:\bbearer ))[\w.~+/=-]{8,}")


def is_credential(name: object) -> bool:
    """Return whether what has this name is taken for a credential."""
    return bool(_WORDS.search(str(name)))


def masked(value: Any) -> Any:
    """Return plain data without what looks like a credential; mappings that hold environment variables keep the names.

    Arguments:
        value: anything; mappings, lists, tuples and texts are looked into.
    """
    if isinstance(value, Mapping):
        return {
            key: _emptied(one) if key in _WHOLE or is_credential(key) else masked(one) for key, one in value.items()
        }
    if isinstance(value, (list, tuple)):
        return type(value)(map(masked, value)) if type(value) in (list, tuple) else list(map(masked, value))
    return masked_text(value) if isinstance(value, str) else value


def _emptied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _emptied(one) for key, one in value.items()}
    return MASK if value not in (None, "") else value


def masked_text(text: str) -> str:
    """Return a text without passwords in URLs, and without the values of names that look like those of credentials."""
    if "://" in text:
        text = _URL.sub(rf"\g<lead>{MASK}", text)
    if "=" in text or ":" in text:
        text = _BARE.sub(_pair, _QUOTED.sub(_pair, text))
    return _BEARER.sub(rf"\g<lead>{MASK}", text)


def _pair(found: re.Match[str]) -> str:
    if not is_credential(found["name"]):
        return found[0]
    named = found.groupdict()
    quote = named.get("quote") or named.get("deep") or ""
    return f"{found['lead']}{quote}{MASK}{quote}"
