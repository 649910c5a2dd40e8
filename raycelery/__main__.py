"""``python -m raycelery``: the ``raycelery`` command."""

from raycelery.cli import main

main()
