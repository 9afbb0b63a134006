"""Hypothesis settings: the machines that run this are shared, so timing is no criterion."""

from hypothesis import HealthCheck, settings

settings.register_profile("scheduler", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("scheduler")
