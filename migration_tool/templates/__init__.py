"""Modules that are written into projects as they stand here."""
