"""`manage.py train_forecasts`."""

import time

from celery.exceptions import TimeoutError
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.db.models import Sum

from forecasts.models import Training, Zone
from forecasts.tasks import summary, train


class Command(BaseCommand):
    help = "Train zones' forecasts, and wait for them."

    def add_arguments(self, parser):
        parser.add_argument("zones", nargs="*", help="their codes; those with most departures if none is given")
        parser.add_argument("--count", type=int, default=8, help="how many if no codes are given (%(default)s)")
        parser.add_argument("--dry-run", action="store_true", help="ask for them, then roll it back: none is trained")
        parser.add_argument("--timeout", type=float, default=300, help="seconds to wait (%(default)s)")

    def handle(self, *args, **options):
        zones = Zone.objects.annotate(total=Sum("history__count")).order_by("-total")
        zones = zones.filter(code__in=options["zones"]) if options["zones"] else zones[: options["count"]]
        if not zones:
            raise CommandError("there are no such zones: run 'manage.py load_departures', or give other codes")
        with transaction.atomic():
            trainings = [Training.objects.create(zone=zone) for zone in zones]
            for training in trainings:
                # A worker must not look for the row before it is there for all to see.
                train.delay_on_commit(training.pk)
            if options["dry_run"]:
                transaction.set_rollback(True)
        if options["dry_run"]:
            self.stdout.write(f"{len(trainings)} would be trained; there are {Training.objects.count()} trainings")
            return

        ids = [training.pk for training in trainings]
        unfinished = Training.objects.filter(pk__in=ids, finished=None)
        deadline = time.monotonic() + options["timeout"]
        while unfinished.exists():
            if time.monotonic() > deadline:
                raise CommandError("not done yet: is a worker running? 'celery -A mysite worker' starts one")
            time.sleep(0.2)

        for training in Training.objects.filter(pk__in=ids).select_related("zone").order_by("pk"):
            if training.state == Training.State.DONE:
                week = " ".join(f"{count:3}" for count in training.forecast)
                self.stdout.write(f"{training.zone}: {week}   off by {training.error:.2f} departures a day")
            else:
                self.stdout.write(f"{training.zone}: {training.problem}")
        try:
            result = summary.delay(ids).get(timeout=options["timeout"])
        except TimeoutError as error:
            raise CommandError("no summary: is a worker running? 'celery -A mysite worker' starts one") from error
        counts = ", ".join(f"{count} {state}" for state, count in result["states"].items())
        error = "" if result["error"] is None else f"; off by {result['error']:.2f} departures a day"
        self.stdout.write(f"{counts}{error}")
