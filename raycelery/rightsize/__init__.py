"""Measures what a project's tasks use, and says what they should ask for.

``meter`` measures in the executors, ``gathering`` has a sample of calls measured, ``recommending``, ``predicting`` and
``report`` are pure, ``rendering`` shows what came of it.
"""
