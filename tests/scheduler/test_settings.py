"""Settings: defaults as documented, and nonsense refused at the start."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from services.scheduler.core.limits import Limits
from services.scheduler.ledger import MemoryLedger, RedisLedger, SqliteLedger
from services.scheduler.ledger.redis_address import RedisAddress
from services.scheduler.settings import SchedulerSettings


def settings(**values: object) -> SchedulerSettings:
    return SchedulerSettings.model_validate(values)


def test_the_defaults_are_the_documented_ones(monkeypatch: pytest.MonkeyPatch):
    for name in SchedulerSettings.model_fields:
        monkeypatch.delenv(f"TIDEMILL_SCHEDULER_{name.upper()}", raising=False)
    defaults = SchedulerSettings()
    assert defaults.limits == Limits()
    assert (defaults.address, defaults.http_address) == ("127.0.0.1:7080", "127.0.0.1:7081")
    assert defaults.lease_seconds == 15
    ledger = defaults.open_ledger(Path("/home/x"))
    assert isinstance(ledger, SqliteLedger)
    assert ledger.path == Path("/home/x/ledger.sqlite3")


def test_the_environment_sets_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TIDEMILL_SCHEDULER_CHUNK_ROWS", "77")
    monkeypatch.setenv("TIDEMILL_SCHEDULER_LEDGER", "memory:")
    assert SchedulerSettings().limits.chunk_rows == 77
    assert isinstance(SchedulerSettings().open_ledger(Path()), MemoryLedger)


def test_a_ledger_is_named_by_its_path():
    ledger = settings(ledger="sqlite:////var/lib/tidemill/l.sqlite3").open_ledger(Path())
    assert isinstance(ledger, SqliteLedger)
    assert ledger.path == Path("/var/lib/tidemill/l.sqlite3")


def test_a_redis_ledger_is_named_by_its_address(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TIDEMILL_SCHEDULER_LEDGER_PASSWORD", "s3cret")
    chosen = SchedulerSettings(ledger="rediss://tm@redis.example:6390?name=prod")
    ledger = chosen.open_ledger(Path())
    assert isinstance(ledger, RedisLedger)
    assert ledger.address == RedisAddress("redis.example", 6390, 0, "prod", "tm", "s3cret", tls=True)
    assert "s3cret" not in repr(chosen)
    with pytest.raises(ValidationError) as caught:
        settings(ledger="redis://tm:s3cret@redis.example")  # pragma: allowlist secret
    assert "TIDEMILL_SCHEDULER_LEDGER_PASSWORD" in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {"ledger": "http://localhost"},
        {"ledger": "redis://localhost/x"},
        {"ledger": "sqlite:///"},
        {"chunk_rows": 0},
        {"chunk_rows": 65_537},
        {"lease_seconds": 0},
        {"max_leases": 0},
        {"max_attempts": 0},
        {"chunk_seconds": 0},
        {"urgent_slack": 1.5},
        {"owed_seconds": 0},
        {"admission_headroom": 1},
        {"drain_seconds": -1},
    ],
)
def test_nonsense_is_refused(values: dict[str, object]):
    with pytest.raises(ValidationError):
        settings(**values)


def test_quotas_on_chunks_are_caps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMILL_SCHEDULER_QUOTAS", '{"*": {"chunks": 9}, "acme": {"chunks": 3}, "free": {"jobs": 1}}')
    limits = SchedulerSettings().limits
    assert [limits.tenant_cap(tenant) for tenant in ("acme", "free", "else")] == [3, 9, 9]


@pytest.mark.parametrize("name", ["urgent_weight", "standard_weight", "flex_weight"])
def test_a_weight_of_zero_is_refused_with_the_reason(name: str):
    with pytest.raises(ValidationError, match=f"{name}[^*]*would never be served"):
        settings(**{name: 0})
    assert getattr(settings(**{name: 0.5}).limits, name) == 0.5
