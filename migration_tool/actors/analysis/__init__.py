"""Collects facts about a project's tasks: definitions, uses, and reasons against converting them."""
