"""Whatever a module is made of: the result parses, a second run changes nothing, unrelated lines stay byte by byte."""

from __future__ import annotations

import ast
import tempfile
from pathlib import Path

from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from migration_tool.cli import main

UNRELATED = [
    "x = 1  # type: ignore",
    "def delay(celery): return celery.delay(1)",
    "class Motor:\n    def delay(self, s):\n        self.s = s",
    "Motor = dict\nMotor().get('celery')",
    's = """\nfrom celery import Celery\n"""',
    "if True:\n\n    # from celery import x\n    y = [\n        1,\n        2,  # two\n    ]",
    "async def co():\n    async with a as b: await b",
    "with open('x') as f, \\\n        open('y') as g:\n    pass",
    "\x0c",
    "lambda group: group.s(1)",
    "match = 1; type = 2",
    "print(f'{1!r:>{2}} {\"celery\"}')",
    "@property\ndef p(self): ...",
    "try:\n    z = 1\nexcept (OSError, ValueError) as e:\n    raise\nfinally:\n\tpass",
    "ünïcode = 'ß🎉'",
]
OF_CELERY = [
    "from celery import Celery, group as g, chain",
    "import celery",
    "import celery as c, os",
    "import celery.utils.log, celery.signals",
    "from celery.utils.log import get_task_logger\nlogger = get_task_logger(__name__)",
    "app = celery.Celery('x')",
    "app = Celery('y', broker='redis://')",
    "@app.task\ndef add(x, y): return x + y",
    "@app.task(bind=True, max_retries=3)\ndef bound(self, x):\n    '''Doc.'''\n    self.retry(countdown=1)",
    "@app.task(bind=True,)\ndef unused(self, *, key=1):\n    return key",
    "@celery.shared_task(rate_limit='1/s')  # slow\ndef limited(x):\n    return x",
    "@app.task(autoretry_for=(OSError,))\ndef flaky(): return 1",
    "result = add.delay(1, y=2)",
    "results = [add.delay(i, i) for i in range(3)]\nvalues = [r.get() for r in results]",
    "print(add.apply_async((1, 2), {'z': 3}).get(timeout=1))",
    "g(add.s(i, i) for i in range(9))().get()",
    "chain(add.s(1, 2), add.s(3))()\n(add.s(1, 2) | add.s(3)).delay()",
    "def local():\n    from celery import current_app\n    return current_app, bound.delay(1)",
    "limited.apply_async((1,), countdown=3)",
    "app.conf.update(task_time_limit=3)",
    "print(add.delay(add.delay(1, 2).get(), celery.states.SUCCESS).get(), add.run(1, 2))",
    "from celery.result import AsyncResult\nprint(AsyncResult(add.delay(1, flaky.delay().get()).id).state)",
    "class Base(celery.Task):\n    n = 0\n\n@celery.shared_task(base=Base, bind=True)\ndef based(self): return self.n",
    "job = g(add.s(i, i) for i in range(3))\nbased.delay(job().get())",
]
LINES = st.lists(st.sampled_from([*UNRELATED, *OF_CELERY]), max_size=14)
ENDS = st.sampled_from(["\n", "\r\n"])
COMMANDS = st.sampled_from(["shim", "actors"])


def migrate(command: str, path: Path) -> bytes:
    done = CliRunner().invoke(main, [command, "--write", "--jobs", "1", str(path.parent)])
    assert done.exit_code in (0, 1), done.output
    assert "please report" not in done.output
    return path.read_bytes()


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(LINES, ENDS, COMMANDS, st.booleans())
def test_any_mixture(pieces: list[str], end: str, command: str, newline_at_end: bool) -> None:
    source = "\n".join(pieces).replace("\n", end) + (end if newline_at_end else "")
    ast.parse(source)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / ".hg").mkdir()
        path = Path(folder) / "module.py"
        path.write_bytes(source.encode())
        after = migrate(command, path)
        ast.parse(after)
        assert migrate(command, path) == after, "the second run changed something"
    if end == "\r\n":
        assert b"\n" not in after.replace(b"\r\n", b"")
    for piece in set(pieces) & set(UNRELATED):
        text = piece.replace("\n", end).encode()
        assert after.count(text) >= pieces.count(piece), piece
    if not set(pieces) & set(OF_CELERY):
        assert after == source.encode()


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=200))
def test_any_bytes_are_survived(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in ("a.py", "b.ipynb", "requirements.txt", "pyproject.toml", "Procfile"):
            (Path(folder) / name).write_bytes(content + b"\ncelery")
        for command in ("check", "shim", "actors"):
            done = CliRunner().invoke(main, [command, "--jobs", "1", folder])
            assert isinstance(done.exception, SystemExit), done.output
