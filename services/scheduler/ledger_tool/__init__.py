"""`python -m services.scheduler.ledger_tool`: back up, restore and inspect a ledger; what `tidemill ledger` runs."""
