"""Helpers that read memory by address, checked when they run (kernel/trace/bpf_trace.c).

The program's own memory is all that there is: other addresses give -EFAULT, and zeros.
"""

from __future__ import annotations

from errno import EFAULT

from bpfvm.notation import prototype
from bpfvm.proto import implements
from bpfvm.runtime import RunContext

__all__ = [
    "bpf_probe_read",
    "bpf_probe_read_kernel",
    "bpf_probe_read_kernel_str",
    "bpf_probe_read_str",
    "bpf_probe_read_user",
    "bpf_probe_read_user_str",
]

_ARGS = "out size0 any"


def _read(run: RunContext, dst: int, size: int, src: int) -> int:
    data = run.machine.space.read(src, size) if size else b""
    run.write(dst, bytes(size) if data is None else data)
    return -EFAULT if data is None else 0


def _read_str(run: RunContext, dst: int, size: int, src: int) -> int:
    """Copy a string of at most *size* bytes with its NUL; return its length with it."""
    found = bytearray()
    while size and len(found) < size - 1:
        byte = run.machine.space.read(src + len(found), 1)
        if byte is None:
            run.write(dst, bytes(size))
            return -EFAULT
        if byte == b"\0":
            break
        found += byte
    if not size:
        return 0
    run.write(dst, bytes(found) + b"\0")
    return len(found) + 1


@implements(prototype(4, "probe_read", _ARGS, flags="gpl", types="trace"))
def bpf_probe_read(run: RunContext, dst: int, size: int, src: int) -> int:
    """Copy *size* bytes; -EFAULT: there is no such memory, and zeros were written."""
    return _read(run, dst, size, src)


@implements(prototype(112, "probe_read_user", _ARGS, flags="gpl"))
def bpf_probe_read_user(run: RunContext, dst: int, size: int, src: int) -> int:
    """As `bpf_probe_read`; programs and user space share their memory here."""
    return _read(run, dst, size, src)


@implements(prototype(113, "probe_read_kernel", _ARGS, flags="gpl"))
def bpf_probe_read_kernel(run: RunContext, dst: int, size: int, src: int) -> int:
    """As `bpf_probe_read`."""
    return _read(run, dst, size, src)


@implements(prototype(45, "probe_read_str", _ARGS, "len", "gpl", "trace"))
def bpf_probe_read_str(run: RunContext, dst: int, size: int, src: int) -> int:
    """Copy a string of at most *size* bytes; return its length with the NUL, or -EFAULT."""
    return _read_str(run, dst, size, src)


@implements(prototype(114, "probe_read_user_str", _ARGS, "len", "gpl"))
def bpf_probe_read_user_str(run: RunContext, dst: int, size: int, src: int) -> int:
    """As `bpf_probe_read_str`."""
    return _read_str(run, dst, size, src)


@implements(prototype(115, "probe_read_kernel_str", _ARGS, "len", "gpl"))
def bpf_probe_read_kernel_str(run: RunContext, dst: int, size: int, src: int) -> int:
    """As `bpf_probe_read_str`."""
    return _read_str(run, dst, size, src)
