"""The rules of ``actors``; :mod:`raycelery.migrate.rule` says how to add one."""
