"""The two applications: ``flask --app wsgi run`` serves one, ``celery -A wsgi.celery worker`` works for the other."""

from factory import create_app, make_celery

app = create_app()
celery = make_celery(app)
