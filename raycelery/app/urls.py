"""What the URLs of a broker tell without connecting to it.

The forms are those of https://docs.celeryq.dev/projects/kombu/en/stable/userguide/connections.html#urls.
"""

from __future__ import annotations

from typing import Any

#: kombu's names of Redis.
_REDIS = frozenset({"redis", "rediss", "sentinel", "kombu.transport.redis"})


def schemes(urls: Any) -> list[str]:
    """Return the schemes of broker URLs as kombu takes them: one, several with ";" between, or a list of such."""
    many = [urls] if isinstance(urls, str) else [url for url in urls or () if isinstance(url, str)]
    return [one.partition("://")[0].partition("+")[0] for url in many for one in url.split(";") if "://" in one]


def low_first(conf: Any) -> bool:
    """Return whether the broker that a project names serves the lowest number first."""
    transport = conf.broker_transport
    named = [str(transport).partition(":")[0]] if transport else schemes(conf.broker_write_url)
    return named[:1] != [] and named[0] in _REDIS
