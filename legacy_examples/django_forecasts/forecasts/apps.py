"""The application `forecasts`."""

from django.apps import AppConfig


class ForecastsConfig(AppConfig):
    name = "forecasts"
