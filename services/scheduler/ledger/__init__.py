"""The append-only ledger: one interface, several stores."""

from services.scheduler.ledger.base import Ledger, Opened
from services.scheduler.ledger.memory import MemoryLedger
from services.scheduler.ledger.redis import RedisLedger
from services.scheduler.ledger.sqlite import SqliteLedger

__all__ = ["Ledger", "MemoryLedger", "Opened", "RedisLedger", "SqliteLedger"]
