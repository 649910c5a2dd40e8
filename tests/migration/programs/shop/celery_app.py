import os

from celery import Celery

app = Celery("shop", include=["tasks"])
app.conf.broker_url = os.environ["URL"]
app.conf.result_backend = os.environ["URL"]
app.conf.broker_connection_retry_on_startup = True
