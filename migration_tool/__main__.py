"""``python -m raycelery.migrate`` is ``raycelery-migrate``."""

from .cli import main

if __name__ == "__main__":
    main()
