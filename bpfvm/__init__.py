"""bpfvm: BPF programs verified and run in user space, arenas included.

This module re-exports the public API lazily: importing `bpfvm` costs nothing, and the modules
below `bpfvm.vm` can be imported without it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bpfvm.errors import BpfError, RunFault
    from bpfvm.vm import Object, Prog, Result, assemble, from_bytes, open
    from bpfvm.xlated import Rejected

__all__ = [
    "BpfError",
    "Object",
    "Prog",
    "Rejected",
    "Result",
    "RunFault",
    "assemble",
    "from_bytes",
    "open",
]

_HOME = {
    **dict.fromkeys(("BpfError", "RunFault"), "bpfvm.errors"),
    "Rejected": "bpfvm.xlated",
    **dict.fromkeys(("Object", "Prog", "Result", "assemble", "from_bytes", "open"), "bpfvm.vm"),
}


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
