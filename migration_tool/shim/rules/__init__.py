"""The rules of ``shim``; :mod:`raycelery.migrate.rule` says how to add one."""
