import os

os.environ["DJANGO_SETTINGS_MODULE"] = "proj.settings"
import django

django.setup()
from django.db import connection, transaction
from orders.models import Order
from orders.tasks import connected, cpus, describe, see
from proj.celery import app, debug_task

with connection.schema_editor() as editor:
    editor.create_model(Order)
order = Order.objects.create(zone="EWR")
assert see.app is app and app.conf.task_time_limit == 600
assert see.delay(order.pk).get(timeout=90) == "EWR"
assert describe.delay(order).get(timeout=90) == f"{order.pk} EWR", "a model instance is an argument like any"
assert cpus.apply_async(queue="reports").get(timeout=90) == 2

assert not any(connected.delay().get(timeout=90) for _ in range(5)), "a task's connection is closed after it"

sent = []
from celery.signals import before_task_publish

before_task_publish.connect(lambda sender=None, **_: sent.append(sender), weak=False)
with transaction.atomic():
    new = Order.objects.create(zone="JFK")
    see.delay_on_commit(new.pk)
    assert sent == [], "not before the transaction ends"
assert sent == ["orders.tasks.see"]
try:
    with transaction.atomic():
        see.delay_on_commit(Order.objects.create(zone="LGA").pk)
        raise RuntimeError
except RuntimeError:
    pass
assert len(sent) == 1, "nor when it is rolled back"
assert see.delay(new.pk).get(timeout=90) == "JFK"
debug_task.delay().forget()
import time

while Order.objects.get(pk=new.pk).seen < 2:
    time.sleep(0.01)
print("ok")
