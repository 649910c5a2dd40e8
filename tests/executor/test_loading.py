"""An application that cannot be made ready in executors: its calls fail at once, with its own words and the remedy."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import WorkerLostError

from raycelery.errors import AppLoadError, OptionError
from raycelery.protocol import questions
from tests.scripts import Run
from tests.support import RaySession, free_port, until

SECONDS = 90
HERE = f"os.getpid() == {os.getpid()}"

PROJECT = """
import os
import sys
from celery import signals
from raycelery import Celery

app = Celery(__name__)

@app.task
def add(x, y):
    return x + y
"""


def project(folder: Path, monkeypatch: pytest.MonkeyPatch, more: str) -> Any:
    """Import a project that does ``more`` in executors."""
    name = f"loading_{free_port()}"
    text = f"{PROJECT}\nif not {HERE}:\n" + "".join(f"    {line}\n" for line in more.splitlines())
    (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(folder))
    return importlib.import_module(name)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('sys.exit("MY_DB_URL is not set")', r"SystemExit: MY_DB_URL is not set.*MY_DB_URL is not set there: executors "
         r"get only those of the caller's .* begin with DJANGO_, CELERY_ or FLASK_, .* ray_env_vars"),
        ('URL = os.environ["MY_DB_URL"]', r"the environment variable 'MY_DB_URL' is not set there: add 'MY_DB_URL' to "
         r"ray_env_vars, or set it on the nodes; executors get only"),
        ('{}["MY_DB_URL"]', r"\(KeyError: 'MY_DB_URL'\)"),
        ("class Gone(BaseException): pass\nraise Gone('no licence')", r"Gone: no licence"),
        ('@signals.setup_logging.connect(weak=False)\ndef fail(**_): raise OSError("no /var/log/shop")',
         r"OSError: no /var/log/shop"),
        ('@signals.worker_process_init.connect(weak=False)\ndef fail(**_): sys.exit("no database")',
         r"SystemExit: no database"),
        ('app.conf.accept_content = ["mine"]', r"for mine.: accept_content names a serializer "
         r"that executors do not know; register it in the module"),
    ],
)  # fmt: skip
def test_calls_fail_at_once_with_the_applications_own_words(
    ray_session: RaySession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str, said: str
) -> None:
    module = project(tmp_path, monkeypatch, more)
    results = [module.add.delay(i, 1) for i in range(3)]
    for result in results:
        with pytest.raises(AppLoadError, match=said):
            result.get(timeout=SECONDS)
    log = module.app.client.call(questions.Stats())["log"]
    # One that was starting may have been ended for CPUs that another test's application lends.
    killed = {entry[2] for entry in log if entry[1] == "kill"}
    died = [entry for entry in log if entry[1] == "ended" and entry[3] and entry[2] not in killed]
    assert not died, "no executor dies of it"


def test_a_result_backend_that_is_kept_has_the_failure(
    ray_session: RaySession, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = project(tmp_path, monkeypatch, "sys.exit('no licence')")
    module.app.conf.update(ray_keep_result_backend=True, result_backend=redis_url)
    with pytest.raises(AppLoadError, match="no licence"):
        module.add.delay(1, 2).get(timeout=SECONDS)


def test_what_was_mended_is_tried_again(
    ray_session: RaySession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = project(tmp_path, monkeypatch, "if not os.path.exists(__file__ + '.licence'): sys.exit('no licence')")
    with pytest.raises(AppLoadError, match="no licence"):
        module.add.delay(1, 2).get(timeout=SECONDS)
    (tmp_path / f"{module.__name__}.py.licence").touch()
    until(lambda: not module.app.client.call(questions.Stats())["executor_pids"])
    assert module.add.delay(1, 2).get(timeout=SECONDS) == 3


@pytest.mark.slow
def test_a_process_that_dies_of_the_import(
    ray_session: RaySession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It is tried again for a while: what has killed it may pass.
    module = project(tmp_path, monkeypatch, "os._exit(3)")
    with pytest.raises(WorkerLostError, match="do not start: the process died while it loaded the application"):
        module.add.delay(1, 2).get(timeout=SECONDS)


def test_variables_that_are_named_travel(run: Run) -> None:
    run(
        """
        import os
        from shop import app, seen
        app.conf.ray_env_vars = ["MY_DB_URL", "SHOP_*", "NOT_SET"]
        os.environ.update(MY_DB_URL="db://here", SHOP_KEY="key", OTHER="other")
        assert seen.delay().get(timeout=90) == ["db://here", "key", None, None]
        print("ok")
        """,
        shop="""
        import os
        from raycelery import Celery
        app = Celery("shop")
        HERE = [os.environ.get(name) for name in ("MY_DB_URL", "SHOP_KEY", "OTHER", "NOT_SET")]

        @app.task
        def seen():
            return HERE
        """,
    )


def test_variables_that_are_named_are_a_list() -> None:
    from raycelery import Celery

    with pytest.raises(OptionError, match="ray_env_vars='MY_DB_URL' must be a list"):
        Celery("listed", ray_env_vars="MY_DB_URL")


def test_code_of_a_script_that_executors_cannot_load(run: Run) -> None:
    # Its other tasks run.
    run(
        """
        import os
        from raycelery import Celery
        app = Celery("script")

        class Licence:
            def __init__(self):
                self.here = os.getpid()
            def __setstate__(self, state):
                raise SystemExit("the licence is for one process")

        licence = Licence()

        @app.task
        def licensed():
            return licence.here

        @app.task
        def free():
            return 1

        assert free.delay().get(timeout=90) == 1
        result = licensed.delay()
        try:
            result.get(timeout=90)
        except Exception as exc:
            assert "the code of the task 'script.licensed'" in str(exc), exc
            assert "SystemExit: the licence is for one process" in str(exc), exc
        assert result.state == "FAILURE"
        assert free.delay().get(timeout=90) == 1
        print("ok")
        """
    )
