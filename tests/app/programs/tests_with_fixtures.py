import os
import threading
from unittest import mock

import project
import pytest
from celery import chord
from celery.contrib.testing.tasks import ping


@pytest.fixture(scope="session")
def celery_worker_parameters():
    return {"queues": ("of-tests", "high-prio"), "perform_ping_check": True}


def test_create_task(celery_app, celery_worker):
    @celery_app.task
    def mul(x, y):
        return x * y

    celery_worker.reload()
    assert mul.delay(4, 4).get(timeout=30) == 16
    assert mul.apply_async((4, 5), queue="high-prio").get(timeout=30) == 20


def test_a_task_sees_what_the_test_has_changed(celery_app, celery_worker, monkeypatch, caplog, capsys):
    monkeypatch.setattr(project, "SETTING", "of the test")
    monkeypatch.setenv("OF_THE_TEST", "set")
    with mock.patch("project.fetch", return_value="in place of it"):
        seen = project.look.delay("OF_THE_TEST").get(timeout=30)
    assert seen == (os.getpid(), "of the test", "set", "in place of it")
    assert threading.current_thread().name not in project.threads
    assert "looking at OF_THE_TEST" in caplog.text
    assert "printed by the task" in capsys.readouterr().out


def test_values_that_json_does_not_know(celery_app, celery_worker):
    class Local:
        pass

    value = project.give_back.delay((Local, {1, 2})).get(timeout=30)
    assert type(value) is tuple and value[0] is Local and value[1] == {1, 2}


def test_canvas_retries_and_errors(celery_app, celery_worker):
    add, total = project.add, project.total
    assert chord([add.s(n, n) for n in range(4)], total.s()).delay().get(timeout=30) == 12
    assert (add.s(1, 1) | add.s(2)).delay().get(timeout=30) == 4
    assert project.flaky.delay().get(timeout=30) == 2
    failed = project.fail.delay()
    with pytest.raises(project.Hostile, match="no"):
        failed.get(timeout=30)
    assert failed.state == "FAILURE" and "Hostile" in failed.traceback
    heard = []
    added = project.add.apply_async((3, 4), countdown=0.1)
    celery_app.AsyncResult(added.id).then(heard.append)
    added.then(heard.append)
    added.get(timeout=30)
    assert [result.result for result in heard] == [7, 7], "all that wait for a task are told"


def test_session(celery_session_app, celery_session_worker):
    assert project.where.delay().get(timeout=30) == os.getpid()
    with pytest.raises(project.Hostile):
        project.fail.delay().get(timeout=30)
    assert ping.delay().get(timeout=30) == "pong"


@pytest.mark.celery(result_expires=77, task_always_eager=True)
def test_mark(celery_app):
    assert celery_app.conf.result_expires == 77
    assert celery_app.conf.task_default_queue == "of-tests"
    assert celery_app.tasks[project.where.name].delay().get() == os.getpid()


@pytest.mark.celery(ray_num_cpus=0.5)
def test_eager_is_off_again(celery_app, celery_worker, celery_config):
    assert celery_config["broker_url"] == "amqp://"
    assert project.where.delay().get(timeout=30) == os.getpid()


def test_no_ray_was_started():
    import ray

    assert not ray.is_initialized()
