"""Settings of the web application and of its Celery application, which reads them from here."""

import os

CELERY_BROKER_URL = os.environ.get("CELERY_BROKER_URL", "redis://localhost:6379/0")
CELERY_RESULT_BACKEND = os.environ.get("CELERY_RESULT_BACKEND", "redis://localhost:6379/0")
# In the upper case of Celery 3, as Flask's own settings are.
CELERY_TASK_SERIALIZER = "json"
CELERY_RESULT_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERYD_TASK_SOFT_TIME_LIMIT = 300

#: Passes over the training data.
EPOCHS = 12
#: Share of the images that a model is tested on.
TEST_SHARE = 0.25
