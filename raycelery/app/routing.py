"""Which queue a message of direct mode goes to: what a broker's exchanges and bindings decide elsewhere.

Follows https://www.rabbitmq.com/docs/exchanges, with kombu's own implementation of the types of exchanges.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kombu.transport.virtual.exchange import STANDARD_EXCHANGE_TYPES

#: Routes that are remembered.
_MOST_KNOWN = 10_000


class Routes:
    """Finds queues by exchange and routing key, among those that the application names.

    Arguments:
        app: the application.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._known: dict[tuple[str, str, str | None], str] = {}

    def queue_of(self, exchange: str, routing_key: str, named: str | None) -> str:
        """Return the queue's name.

        It is a queue that is bound so: the one that was named if it is, else the first. Where none is, a broker would
        lose the message; here it goes to the one that was named, or to a queue that is called like the routing key.

        Arguments:
            exchange: name of the exchange; "" is the default one, whose routing keys are names of queues.
            routing_key: of the message.
            named: the queue that was named, or the default one, by Celery. With a task's ``exchange`` it is not asked.
        """
        if not exchange:
            return routing_key
        found = self._known.get((exchange, routing_key, named))
        if found is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            bound = list(self._bound(exchange, routing_key))
            found = named if named in bound else next(iter(bound), named or routing_key)
            self._known[exchange, routing_key, named] = found
        return found

    def _bound(self, exchange: str, routing_key: str) -> Iterator[str]:
        for name, queue in list(self._app.amqp.queues.items()):
            for binding in queue.bindings or [queue]:
                if binding.exchange is None or binding.exchange.name != exchange:
                    continue
                make: Any = STANDARD_EXCHANGE_TYPES.get(binding.exchange.type)
                if make is None:
                    continue
                kind = make(None)
                table = [kind.prepare_bind(name, exchange, binding.routing_key or "", None)]
                if kind.lookup(table, exchange, routing_key, None):
                    # A broadcast queue has another name in each process; what it is called by is its alias.
                    yield str(queue.alias or name)
