"""Expiry of leases: renewals, stops, takeovers and stalls."""

from services.scheduler.lease_clock import LeaseClock


def test_a_lease_is_due_after_its_time():
    leases = LeaseClock(15)
    leases.start(7, 100)
    leases.start(9, 105)
    assert leases.next_expiry() == 115
    assert leases.due(114.9) == []
    assert leases.due(115) == [7]
    assert leases.due(200) == [7, 9]
    leases.stop(7)
    assert leases.due(200) == [9]


def test_renewal_gives_the_full_time_again():
    leases = LeaseClock(15)
    leases.start(7, 100)
    leases.renew(7, 110)
    leases.renew(99, 110)
    assert leases.due(124.9) == []
    assert leases.next_expiry() == 125
    assert leases.due(125) == [7]


def test_nothing_is_due_without_leases():
    leases = LeaseClock(15)
    assert leases.next_expiry() is None
    assert leases.due(1e9) == []
    leases.start(7, 100)
    leases.stop(7)
    assert leases.next_expiry() is None


def test_a_takeover_starts_unknown_leases_and_forgets_dead_ones():
    leases = LeaseClock(15)
    leases.start(7, 100)
    leases.start(8, 100)
    leases.sync([7, 9], 110)
    assert leases.due(115) == [7]
    assert leases.due(125) == [7, 9]


def test_a_stall_restarts_every_lease():
    leases = LeaseClock(15)
    leases.start(7, 100)
    leases.start(8, 90)
    leases.restart(200)
    assert leases.due(214) == []
    assert leases.due(215) == [7, 8]
