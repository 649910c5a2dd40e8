import sys

from celery import chain, chord, group
from status import status
from tasks import again, flaky, predict, tells, total, train

scratch = sys.argv[1]


def say(*words):
    print(">", *words)


zones = ["a", "b", "c"]

results = [train.delay(zone, -1 if zone == "b" else 3) for zone in zones]
for zone, result in zip(zones, results):
    try:
        say(zone, result.get(timeout=60))
    except ValueError as error:
        say(zone, type(error).__name__, error)

job = group(train.s(zone) for zone in zones)
models = job.apply_async()
say(models.get(timeout=60), models.successful(), len(models))

header = [train.s(zone, days=1) for zone in zones]
callback = total.s(factor=2)
say(chord(header)(callback).get(timeout=60))
say(chain(train.s("d"), total.s())().get(timeout=60))
say((group([train.s("e"), train.s("f")]) | total.s())().get(timeout=60))
say(train.delay(train.delay("inner").get(timeout=60), days=2).get(timeout=60), train("here"), train.run("run"))

say(sorted({tuple(predict.delay(x).get(timeout=60)) for x in range(4)}))
say(again.delay(2).get(timeout=60), type(again.delay(4).get(timeout=60, propagate=False)).__name__)
say(flaky.delay(scratch + "/one", 2).get(timeout=60))
say(type(flaky.delay(scratch + "/two", 9).get(timeout=60, propagate=False)).__name__)
try:
    again(1)
except OSError as error:
    say("directly:", error)

good, bad = train.delay("g"), train.delay("h", days=-1)
say(status(good.id), status(str(bad)))
told = tells.delay(5)
say(told.get(timeout=60) == told.id, len(told.id), status(told.id)[0])
say(train.AsyncResult(good.id).get(timeout=60))
