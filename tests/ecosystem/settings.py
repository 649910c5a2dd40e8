"""Settings of a Django project with packages for Celery."""

import os

SECRET_KEY = "of no use"
INSTALLED_APPS = ["django_celery_results", "django_structlog"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["CELERY_ECOSYSTEM_DB"]}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
DJANGO_STRUCTLOG_CELERY_ENABLED = True
