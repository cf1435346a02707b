"""What is refused before the walk because the user lacks a capability.

The walk's own rules are in `verifier.privs`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from bpfvm.context import ProgType
from bpfvm.insn import MAX_INSNS, Insn
from bpfvm.privileges import Privileges
from verifier.reasons import Reason, Reject

__all__ = [
    "check_arena",
    "check_attributes",
    "check_back_edges",
    "check_calls_allowed",
    "grants_field",
    "grants_helper",
]

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

#: Helpers that are offered with CAP_BPF only, and with CAP_PERFMON too (kernel:
#: bpf_base_func_proto, bpf_sk_base_func_proto). All others are as their program types have them.
_BPF_HELPERS = frozenset(
    {
        17, 37, 80, 93, 94, 118, 123, 153, 154, 156, 157, 164, 169, 170, 171, 172, 181, 194, 197,
        198, 199, 200, 201, 202, 203, 209, 210, 211,
    }
)  # fmt: skip
_PERFMON_HELPERS = frozenset(
    {
        6, 16, 22, 35, 55, 109, 112, 113, 114, 115, 117, 136, 137, 138, 139, 140, 141, 148, 149,
        158, 165, 175, 176, 177, 178, 180, 191, 196,
    }
)  # fmt: skip


#: Context fields that only a user with CAP_BPF may read or write, or only may not write, by
#: program type (kernel: is_valid_access of the types).
_BPF_FIELDS = {"cgroup_skb": frozenset({"data", "data_end"})}
_BPF_WRITES = {"cgroup_skb": frozenset({"tstamp"})}


def grants_field(privs: Privileges, prog_type: ProgType, off: int, *, write: bool) -> bool:
    """Say whether the context field at *off*, which the type grants, is for this user."""
    if privs.bpf_capable:
        return True
    field = prog_type.field_at(off)
    name = "" if field is None else field.name
    if write and name in _BPF_WRITES.get(prog_type.name, ()):
        return False
    return name not in _BPF_FIELDS.get(prog_type.name, ())


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


def check_calls_allowed(privs: Privileges) -> None:
    """Refuse calls of and pointers to subprogs, and calls of kfuncs (kernel:
    add_subprog_and_kfunc)."""
    if not privs.bpf_capable:
        raise Reject(Reason.CALLS_PERM)


def check_arena(privs: Privileges) -> None:
    """Refuse programs with an arena."""
    if not (privs.bpf_capable and privs.allow_ptr_leaks):
        raise Reject(Reason.ARENA_PERM)


def grants_helper(privs: Privileges, number: int) -> bool:
    """Say whether helper *number* is offered to this user."""
    if number in _BPF_HELPERS:
        return privs.bpf_capable
    return number not in _PERFMON_HELPERS or (privs.bpf_capable and privs.perfmon)


def check_back_edges(
    privs: Privileges, insns: Sequence[Insn], successors: Callable[[int, Insn], Iterator[int]]
) -> None:
    """Refuse loops, in the order in which the kernel comes upon them (check_cfg): depth first,
    fall-through before jump target."""
    if privs.bpf_capable:
        return
    open_, done = 1, 2
    marks = bytearray(len(insns))
    marks[0] = open_
    path = [(0, successors(0, insns[0]))]
    while path:
        idx, following = path[-1]
        for target in following:
            if target >= len(insns):
                continue
            if marks[target] == open_:
                raise Reject(Reason.BACK_EDGE, insn=idx, target=target)
            if not marks[target]:
                marks[target] = open_
                path.append((target, successors(target, insns[target])))
                break
        else:
            marks[idx] = done
            path.pop()
