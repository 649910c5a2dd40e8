import project
from celery.result import AsyncResult

from raycelery.result import AsyncResult as Same

assert Same is AsyncResult
assert project.add.delay(1, 2).get(timeout=90) == (3, 1) or project.add.delay(1, 2).get(timeout=90)[0] == 3
assert project.double.delay(4).get(timeout=90) == 8
assert project.of_current.delay(4).get(timeout=90) == 4
assert project.aborting.delay().get(timeout=90) is False
result = project.double.delay(1)
assert AsyncResult(result.id).get(timeout=90) == 2, "of the current application"
assert project.group(project.double.s(i) for i in range(3)).delay().get(timeout=90) == [0, 2, 4]
print("ok")
