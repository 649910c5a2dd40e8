"""``raycelery-migrate``: checks a Celery code base, swaps its imports, and converts its tasks.

The code is never imported or run."""
