"""Finds, reads and replaces the files of a project."""
