"""Resolves the names of a project: which are applications, tasks, canvas functions, results."""
