"""Exceptions of programs: a kfunc that ends all frames at once."""

from __future__ import annotations

from bpfvm.errors import Thrown
from bpfvm.proto import ArgType, RetType, kfunc
from bpfvm.runtime import RunContext

__all__ = ["bpf_throw"]


@kfunc(RetType.VOID, (ArgType.SCALAR,), throws=True)
def bpf_throw(run: RunContext, cookie: int) -> int:
    """End the program: its result is what its exception callback makes of *cookie*, or that."""
    raise Thrown(cookie)
