import bz2
import json

from kombu import compression, serialization
from kombu.utils.json import register_type

from raycelery import Celery


class Zone:
    def __init__(self, name):
        self.name = name


def dump(value):
    return json.dumps(value)[::-1]


def load(text):
    return json.loads(text[::-1])


def shrink(data):
    return b"mine" + bz2.compress(data)


def grow(data):
    return bz2.decompress(data[4:])


serialization.register("reversed", dump, load, content_type="application/x-reversed")
register_type(Zone, "zone", lambda zone: zone.name, Zone)
compression.register(shrink, grow, "application/x-mine", aliases=["mine"])
app = Celery("registered")
app.conf.update(
    task_serializer="reversed",
    result_serializer="reversed",
    task_compression="mine",
    accept_content=["reversed", "json"],
)


@app.task
def double(x):
    return x * 2


@app.task(serializer="json")
def name(zone):
    return zone.name


assert double.delay(2).get(timeout=80) == 4
assert name.delay(Zone("EWR")).get(timeout=80) == "EWR"
print("ok")
