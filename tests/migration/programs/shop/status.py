from celery.result import AsyncResult


def status(task_id):
    found = AsyncResult(task_id)
    value = found.get(timeout=60, propagate=False)
    return found.state, str(value), found.ready(), found.failed()
