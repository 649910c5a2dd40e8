"""``python -m raycelery.bench`` is ``raycelery bench``."""

from .cli import command

if __name__ == "__main__":
    command(prog_name="python -m raycelery.bench")
