"""Testing helpers as in ``celery.contrib.testing``, for projects that run on raycelery."""
