"""The scheduler's pure core: what it knows, what may happen next, and who runs next.

Nothing here does I/O or reads a clock. Ledger events are folded by `apply`; every command is a function of the state
that returns the events it causes, or raises `TidemillError`.
"""
