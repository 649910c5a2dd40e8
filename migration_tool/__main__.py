"""``python -m migration_tool`` is ``raycelery-migrate``."""

from migration_tool.cli import main

if __name__ == "__main__":
    main()
