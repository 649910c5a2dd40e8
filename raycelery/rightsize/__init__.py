"""Right-sizing: measures what a project's tasks use, and recommends what they should ask for.

Executors measure, see :mod:`raycelery.executor.profiling`. ``gathering`` runs calls and collects their samples.
``recommending``, ``predicting`` and ``report`` compute the recommendation; they are pure. ``rendering`` and ``page``
show the report.
"""
