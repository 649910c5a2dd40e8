import os
import threading
import unittest

import project

from raycelery.contrib.testing.app import TestApp
from raycelery.contrib.testing.worker import start_worker


def test_start_worker():
    with start_worker(project.app, perform_ping_check=False, pool="solo", concurrency=2) as worker:
        assert project.multiply.delay(6, 7).get(timeout=30) == 42
        assert worker.app is project.app
        assert list(project.app.control.inspect().active().values()) == [[]]


def test_the_application_is_as_it_was():
    conf = project.app.conf
    assert project.app.direct
    assert (conf.broker_url, conf.result_backend) == ("redis://nowhere", "redis://nowhere")
    assert list(conf.accept_content) == ["json"] and "ray_mode" not in conf.changes


def test_with_a_ping():
    with start_worker(project.app, ping_task_timeout=60, loglevel="info"):
        pass


class TestInClass(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.worker = start_worker(project.app, perform_ping_check=False)
        cls.worker.__enter__()

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        cls.worker.__exit__(None, None, None)

    def test_multiply(self):
        assert project.multiply.delay(2, 3).get(timeout=30) == 6


def test_one_worker_ends_and_the_other_goes_on():
    other = TestApp("other")

    @other.task(name="where-else")
    def where():
        return os.getpid()

    with start_worker(other, perform_ping_check=False):
        for number in range(3):
            with start_worker(project.app, perform_ping_check=False):
                assert project.multiply.apply_async((2, number)).get(timeout=30) == 2 * number
        assert where.delay().get(timeout=30) == os.getpid()


def test_threads_wait_for_each_other():
    meeting = threading.Barrier(2)
    app = TestApp("meeting")

    @app.task(name="meet", serializer="json")
    def meet():
        return meeting.wait(30) in (0, 1)

    with start_worker(app, pool="threads", concurrency=2, perform_ping_check=False):
        assert [result.get(timeout=30) for result in (meet.delay(), meet.delay())] == [True, True]


def test_test_app():
    with TestApp("a-test", set_as_current=True) as app:

        @app.task
        def where():
            return os.getpid()

        with start_worker(app, perform_ping_check=False):
            assert where.delay().get(timeout=30) == os.getpid()


def test_memory_urls_are_no_obstacle_on_ray():
    app = TestApp("in-memory", config={"broker_url": "memory://", "result_backend": "cache+memory://"})

    @app.task(name="twice")
    def twice(x):
        return 2 * x, os.getpid()

    with start_worker(app, pool="ray", perform_ping_check=False):
        value, pid = twice.delay(4).get(timeout=60)
        assert value == 8 and pid != os.getpid()
