"""Exceptions of programs: a kfunc that ends all frames at once."""

from __future__ import annotations

from bpfvm.errors import Thrown
from bpfvm.proto import ArgType, RetType, kfunc
from bpfvm.runtime import RunContext

__all__ = ["bpf_throw"]

#: Where the kernel's generic set of kfuncs is (kernel: bpf_prog_type_to_kfunc_hook), raw_tp since
#: 7.3.
_PROG_TYPES = frozenset(
    {
        "cgroup_device",
        "cgroup_skb",
        "cgroup_sock",
        "cgroup_sock_addr",
        "cgroup_sockopt",
        "cgroup_sysctl",
        "lsm",
        "perf_event",
        "raw_tp",
        "sched_cls",
        "sock_ops",
        "struct_ops",
        "syscall",
        "tracepoint",
        "tracing",
        "xdp",
    }
)


@kfunc(RetType.VOID, (ArgType.SCALAR,), throws=True, prog_types=_PROG_TYPES)
def bpf_throw(run: RunContext, cookie: int) -> int:
    """End the program: its result is what its exception callback makes of *cookie*, or that."""
    raise Thrown(cookie)
