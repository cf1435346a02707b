"""What a program may not do because its user lacks a capability.

Every rule that asks for privileges is a function here; the walk calls it at the kernel's place.
"""

from __future__ import annotations

from bpfvm.insn import MAX_INSNS
from bpfvm.privileges import Privileges
from verifier.env import Env
from verifier.reasons import Reason, Reject
from verifier.state import RegState, RegType

__all__ = ["check_attributes", "check_return", "is_pointer_value"]

#: kernel: BPF_MAXINSNS
MAX_INSNS_UNPRIV = 4096

#: Program types that a user without CAP_BPF may load (kernel: bpf_prog_load).
_UNPRIV_TYPES = frozenset({"socket_filter", "cgroup_skb"})
#: kernel: is_net_admin_prog_type, is_perfmon_prog_type
_NET_ADMIN_TYPES = frozenset(
    {
        "sched_cls", "sched_act", "xdp", "lwt_in", "lwt_out", "lwt_xmit", "lwt_seg6local",
        "sk_skb", "sk_msg", "flow_dissector", "cgroup_device", "cgroup_sock", "cgroup_sock_addr",
        "cgroup_sockopt", "cgroup_sysctl", "sock_ops", "ext", "netfilter",
    }
)  # fmt: skip
_PERFMON_TYPES = frozenset(
    {
        "kprobe", "tracepoint", "perf_event", "raw_tp", "raw_tp_writable", "tracing", "lsm",
        "struct_ops", "ext",
    }
)  # fmt: skip


def check_attributes(privs: Privileges, prog_type: str, count: int) -> Reject | None:
    """Return why a program of *count* insns is refused unseen, or None."""
    limit = MAX_INSNS if privs.bpf_capable else MAX_INSNS_UNPRIV
    if not 0 < count <= limit:
        return Reject(Reason.BAD_INSN_COUNT, count=count, limit=limit)
    for needed, held, types in (
        ("CAP_BPF", privs.bpf_capable or prog_type in _UNPRIV_TYPES, None),
        ("CAP_NET_ADMIN", privs.net_admin, _NET_ADMIN_TYPES),
        ("CAP_PERFMON", privs.perfmon, _PERFMON_TYPES),
    ):
        if not held and (types is None or prog_type in types):
            return Reject(Reason.PROG_TYPE_PERM, name=prog_type, capability=needed)
    return None


def is_pointer_value(env: Env, reg: RegState) -> bool:
    """Say whether *reg* holds an address that this user must not learn (kernel:
    is_pointer_value)."""
    return not env.privs.allow_ptr_leaks and reg.type is not RegType.SCALAR


def check_return(env: Env, regno: int, reg: RegState) -> None:
    """Refuse to return an address to the caller of the program."""
    if is_pointer_value(env, reg):
        raise Reject(Reason.LEAK_RETURN, reg=regno)
