"""What each tenant has had: weighted virtual-token counters (VTC, OSDI'24).

The tenant with the smallest counter is served next. Work is charged when it is leased, by estimate; each part that is
committed puts its actual tokens in place of its share of the estimate; what a lease leaves undone is refunded. A tenant
that comes back with work starts level with the one that had least meanwhile, so that nobody saves up idle time.
Counters are whole numbers and change by events alone.
"""

from bisect import bisect_left, insort

from services.scheduler.core.records import Lease

AccountKey = tuple[int, str]
"""(virtual tokens, tenant): the order in which tenants are served."""

PRICE_UNIT = 1000
"""Tokens to which a price applies."""


def priced(tokens: int, price: int) -> int:
    """Virtual tokens of actual ones."""
    return tokens * price // PRICE_UNIT


def settled(lease: Lease, rows: int, missing: int) -> int:
    """The part of a lease's charge that stands for `rows` of the `missing` rows which it has yet to answer."""
    return lease.charged * rows // missing


class Accounts:
    """Counters by tenant, and the tenants that have work waiting in the order of their counters.

    Attributes:
        tokens: virtual tokens by tenant.
        floor: counter of the last tenant that left nobody waiting.
    """

    def __init__(self) -> None:
        self.tokens: dict[str, int] = {}
        self.floor = 0
        self._models: dict[str, set[str]] = {}
        self._waiting: list[AccountKey] = []
        self._by_model: dict[str, list[AccountKey]] = {}

    def charge(self, tenant: str, tokens: int) -> None:
        """Add `tokens` virtual tokens, or take them back where negative."""
        if not tokens:
            return
        before = self.tokens.get(tenant, 0)
        self.tokens[tenant] = before + tokens
        models = self._models.get(tenant)
        if models:
            old, new = (before, tenant), (before + tokens, tenant)
            _move(self._waiting, old, new)
            for model in models:
                _move(self._by_model[model], old, new)

    def set_waiting(self, tenant: str, model: str, waiting: bool) -> None:
        """Note whether the tenant has work for the model that could be leased."""
        models = self._models.get(tenant, set())
        if waiting == (model in models):
            return
        if waiting:
            self._join(tenant, model)
        else:
            self._leave(tenant, model)

    def _join(self, tenant: str, model: str) -> None:
        if tenant not in self._models:
            least = self._waiting[0][0] if self._waiting else self.floor
            self.tokens[tenant] = max(self.tokens.get(tenant, least), least)
            self._models[tenant] = set()
            insort(self._waiting, (self.tokens[tenant], tenant))
        self._models[tenant].add(model)
        insort(self._by_model.setdefault(model, []), (self.tokens[tenant], tenant))

    def _leave(self, tenant: str, model: str) -> None:
        key = (self.tokens[tenant], tenant)
        order = self._by_model[model]
        del order[bisect_left(order, key)]
        if not order:
            del self._by_model[model]
        models = self._models[tenant]
        models.remove(model)
        if not models:
            del self._models[tenant]
            del self._waiting[bisect_left(self._waiting, key)]
            if not self._waiting:
                self.floor = max(self.floor, key[0])

    def order(self, model: str) -> list[AccountKey]:
        """The tenants with work for the model, the one that had least first; not to be changed."""
        return self._by_model.get(model, [])

    def waiting(self) -> dict[str, set[str]]:
        """Models by tenant that has work for them."""
        return self._models

    def restore(self, tokens: dict[str, int], floor: int) -> None:
        """Put the counters of a snapshot in place of those that its jobs gave rise to."""
        for tenant, value in tokens.items():
            self.charge(tenant, value - self.tokens.get(tenant, 0))
        self.tokens = dict(tokens)
        self.floor = floor


def _move(order: list[AccountKey], old: AccountKey, new: AccountKey) -> None:
    del order[bisect_left(order, old)]
    insort(order, new)
