"""How many items a caller may ask for at a time."""

from tidemill.errors import FieldViolation, Reason, TidemillError


def checked_page_size(size: int, field: str, default: int, largest: int) -> int:
    """`size`, or `default` for 0; INVALID_ARGUMENT outside 1 to `largest`."""
    if not 0 <= size <= largest:
        description = f"{field} is {size}; it must be from 1 to {largest}"
        raise TidemillError(Reason.INVALID_ARGUMENT, description, violations=[FieldViolation(field, description)])
    return size or default
