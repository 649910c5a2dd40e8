from project import app, double


class Odd(ValueError):
    pass


@app.task
def checked(x):
    if x % 2:
        raise Odd(x)
    return double(x)


@app.task
def both(x):
    return double.delay(x).get(disable_sync_subtasks=False) + checked.delay(x).get(disable_sync_subtasks=False)


assert checked.delay(2).get(timeout=90) == 4
assert double.delay(3).get(timeout=90) == 6
assert both.delay(2).get(timeout=90) == 8
try:
    checked.delay(3).get(timeout=90)
except Odd as exc:
    assert exc.args == (3,)
else:
    raise AssertionError
print("ok")
