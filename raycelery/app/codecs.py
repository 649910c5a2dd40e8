"""Serializers, JSON types and compressors that a program registers with kombu: executors get those no import brings.

Follows https://docs.celeryq.dev/projects/kombu/en/stable/reference/kombu.serialization.html.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kombu import compression, serialization
from kombu.utils import json

from raycelery.app.carried import LIBRARIES
from raycelery.serialization.references import in_main

#: Besides Celery's own, packages whose functions kombu registers itself.
_LIBRARIES = LIBRARIES | {
    "yaml",
    "msgpack",
    "pickle",
    "json",
    "zlib",
    "bz2",
    "lzma",
    "zstandard",
    "brotli",
    "brotlicffi",
}


def registered(by_value: bool) -> dict[str, tuple[Any, ...]]:
    """Return what is registered, by what it is.

    Arguments:
        by_value: whether the application travels by value; else only what the main module registers is meant.
    """
    return {what: entry for what, function, entry in _entries() if _is_theirs(function, by_value)}


def _is_theirs(function: Any, by_value: bool) -> bool:
    module = getattr(function, "__module__", None)
    if module is None or module == "builtins":
        return False
    return in_main(module) or (by_value and module.partition(".")[0] not in _LIBRARIES)


def _entries() -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    registry = serialization.registry
    for name, codec in registry._encoders.items():
        decoder = registry._decoders.get(codec.content_type)
        entry = (name, codec.encoder, decoder, codec.content_type, codec.content_encoding)
        yield f"serializer {name}", codec.encoder, ("serializer", *entry)
    decoders = getattr(json, "_decoders", {})
    for kind, (marker, encoder) in getattr(json, "_encoders", {}).items():
        yield f"JSON type {marker}", encoder, ("type", kind, marker, encoder, decoders.get(marker))
    aliases: dict[str, list[str]] = {}
    for alias, content_type in compression._aliases.items():
        aliases.setdefault(content_type, []).append(alias)
    for content_type, encoder in compression._encoders.items():
        names = [alias for alias in aliases.get(content_type, ()) if alias != content_type]
        decoder = compression._decoders.get(content_type)
        yield f"compression {content_type}", encoder, ("compression", encoder, decoder, content_type, names)


def register(entries: dict[str, tuple[Any, ...]]) -> None:
    """Register what :func:`registered` returned (in executors)."""
    for kind, *entry in entries.values():
        if kind == "serializer":
            serialization.register(*entry)
        elif kind == "type":
            json.register_type(*entry)
        else:
            compression.register(*entry)
