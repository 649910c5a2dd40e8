"""``raycelery-migrate``: takes a Celery code base as far towards Ray as its owners want. It never imports that code."""
