"""Helpers that tell of the current task, the time and the machine (kernel/bpf/helpers.c)."""

from __future__ import annotations

import os
import threading

from bpfvm.bits import u64
from bpfvm.notation import prototype
from bpfvm.proto import implements
from bpfvm.runtime import RunContext

__all__ = [
    "bpf_get_current_comm",
    "bpf_get_current_pid_tgid",
    "bpf_get_current_uid_gid",
    "bpf_get_numa_node_id",
    "bpf_jiffies64",
    "bpf_ktime_get_boot_ns",
    "bpf_ktime_get_coarse_ns",
    "bpf_ktime_get_tai_ns",
]

#: kernel: HZ of distributions.
_HZ = 250
_NS = 1_000_000_000
#: What the machine's stack dumps call the process, too.
_COMM = b"bpfvm"


@implements(prototype(14, "get_current_pid_tgid", ""))
def bpf_get_current_pid_tgid(_run: RunContext) -> int:
    """Return the process id above the thread id."""
    return os.getpid() << 32 | threading.get_native_id()


@implements(prototype(15, "get_current_uid_gid", ""))
def bpf_get_current_uid_gid(_run: RunContext) -> int:
    """Return the group id above the user id."""
    return os.getgid() << 32 | os.getuid()


@implements(prototype(16, "get_current_comm", "out size"))
def bpf_get_current_comm(run: RunContext, buf: int, size: int) -> int:
    """Write the process's name, cut to *size* bytes with a NUL; return 0."""
    run.write(buf, _COMM[: size - 1].ljust(size, b"\0"))
    return 0


@implements(prototype(42, "get_numa_node_id", ""))
def bpf_get_numa_node_id(_run: RunContext) -> int:
    """Return the number of the one node."""
    return 0


@implements(prototype(118, "jiffies64", ""))
def bpf_jiffies64(run: RunContext) -> int:
    """Return the time in ticks."""
    return u64(run.clock() * _HZ // _NS)


@implements(prototype(125, "ktime_get_boot_ns", ""))
def bpf_ktime_get_boot_ns(run: RunContext) -> int:
    """Return the time since boot in nanoseconds; this machine is never suspended."""
    return run.clock()


@implements(
    prototype(
        160,
        "ktime_get_coarse_ns",
        "",
        types="skc_users cgroup_sock cgroup_sysctl sk_reuseport",
    )
)
def bpf_ktime_get_coarse_ns(run: RunContext) -> int:
    """Return the time of the last tick in nanoseconds."""
    tick = _NS // _HZ
    return run.clock() // tick * tick


@implements(prototype(208, "ktime_get_tai_ns", ""))
def bpf_ktime_get_tai_ns(run: RunContext) -> int:
    """Return the time in nanoseconds; this machine's clocks all start together."""
    return run.clock()
