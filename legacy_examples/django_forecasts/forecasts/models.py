"""Zones, what departed to them, and the forecasts."""

from django.db import models


class Zone(models.Model):
    """A destination of New York's flights."""

    code = models.CharField(max_length=3, unique=True)

    def __str__(self):
        return self.code


class Departures(models.Model):
    """How many flights left for a zone on a day."""

    zone = models.ForeignKey(Zone, on_delete=models.CASCADE, related_name="history")
    day = models.DateField()
    count = models.PositiveIntegerField()

    class Meta:
        ordering = ["day"]
        constraints = [models.UniqueConstraint(fields=["zone", "day"], name="one_count_a_day")]


class Training(models.Model):
    """A forecast of a zone for the next seven days: asked for, being made, made, or given up."""

    class State(models.TextChoices):
        WAITING = "waiting"
        RUNNING = "running"
        DONE = "done"
        FAILED = "failed"

    zone = models.ForeignKey(Zone, on_delete=models.CASCADE, related_name="trainings")
    state = models.CharField(max_length=7, choices=State, default=State.WAITING)
    created = models.DateTimeField(auto_now_add=True)
    finished = models.DateTimeField(null=True)
    error = models.FloatField(null=True, help_text="Mean absolute error in the last four weeks, in departures a day.")
    forecast = models.JSONField(default=list)
    problem = models.TextField(blank=True)
