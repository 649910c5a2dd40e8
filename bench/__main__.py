"""``python -m bench`` is ``raycelery bench``."""

from bench.cli import command

if __name__ == "__main__":
    command(prog_name="python -m bench")
