"""A discrete-event simulation of a whole service: the real core on a virtual clock."""
