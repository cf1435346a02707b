"""Errno numbers and names as the kernel has them."""

from __future__ import annotations

import errno

__all__ = ["ENOTSUPP", "errno_name", "errno_number"]

#: The kernel's own; user space has no name for it.
ENOTSUPP = 524

#: Where the kernel says it differently than Python, or Python has no name.
_KERNEL_NAMES = {errno.EOPNOTSUPP: "EOPNOTSUPP", ENOTSUPP: "ENOTSUPP"}


def errno_name(number: int) -> str:
    """Return the name of a positive errno, such as EACCES."""
    return _KERNEL_NAMES.get(number) or errno.errorcode.get(number, str(number))


def errno_number(name: str) -> int | None:
    """Return the positive errno called *name*, None where there is none."""
    if name == "ENOTSUPP":
        return ENOTSUPP
    return next((n for n in errno.errorcode if errno_name(n) == name), None)
