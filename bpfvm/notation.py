"""Prototypes of helpers in one line: arguments, result, flags and who is offered them."""

from __future__ import annotations

import re

from bpfvm.errors import InternalError
from bpfvm.proto import ArgType, FuncProto, RetType

__all__ = ["offered", "prototype"]

_ARGS = {
    "any": ArgType.ANYTHING,
    "map": ArgType.CONST_MAP_PTR,
    "key": ArgType.MAP_KEY,
    "value": ArgType.MAP_VALUE,
    "outvalue": ArgType.UNINIT_MAP_VALUE,
    "mem": ArgType.MEM_RDONLY,
    "out": ArgType.UNINIT_MEM,
    "wmem": ArgType.WRITTEN_MEM,
    "size": ArgType.CONST_SIZE,
    "size0": ArgType.CONST_SIZE_OR_ZERO,
    "ctx": ArgType.CTX,
    "scalar": ArgType.SCALAR,
    "skc": ArgType.SOCK_COMMON,
    "sock": ArgType.SOCKET,
    "btf_skc": ArgType.BTF_SOCK_COMMON,
    "btf": ArgType.BTF_ID,
    "zero": ArgType.ZERO,
    "str": ArgType.CONST_STR,
    "fix": ArgType.FIXED_MEM,
    "outfix": ArgType.FIXED_OUT,
    "wfix": ArgType.FIXED_WRITTEN,
}
_RESULTS = {
    "int": RetType.INTEGER,
    "len": RetType.LENGTH,
    "hook": RetType.HOOK_RESULT,
    "void": RetType.VOID,
    "value": RetType.MAP_VALUE,
    "value?": RetType.MAP_VALUE_OR_NULL,
    "sock?": RetType.SOCKET_OR_NULL,
    "skc?": RetType.SOCK_COMMON_OR_NULL,
    "tcp?": RetType.TCP_SOCK_OR_NULL,
    "btf": RetType.BTF_ID,
    "btf?": RetType.BTF_ID_OR_NULL,
}
_FLAGS = frozenset(
    {
        "gpl", "sleep", "pkt", "changes", "acquire", "release", "cast", "tracing", "probes",
        "result", "writes",
    }
)  # fmt: skip

_ATTACH = re.compile("([@!])")
_ATTACH_TYPES = frozenset(range(64))
#: Program types that have helpers in common.
_GROUPS = {
    "tc": ("sched_cls", "sched_act"),
    "lwt": ("lwt_in", "lwt_out", "lwt_xmit", "lwt_seg6local"),
    "raw": ("raw_tp", "raw_tp_writable"),
    "btf": ("lsm", "tracing", "syscall"),
    "cgroup": (
        "cgroup_device", "cgroup_sock", "cgroup_sock_addr", "cgroup_sockopt", "cgroup_sysctl",
    ),
    "trace": (
        "kprobe", "perf_event", "tracepoint", "raw_tp", "raw_tp_writable", "lsm", "tracing",
        "syscall",
    ),
    "load_users": ("sched_cls", "sched_act", "cgroup_skb", "sk_reuseport", "socket_filter"),
    "storage_users": (
        "lsm", "sched_cls", "sched_act", "cgroup_skb", "cgroup_sock_addr", "cgroup_sockopt",
        "sk_msg", "sock_ops",
    ),
    "netns_users": (
        "sched_cls", "sched_act", "cgroup_skb", "cgroup_sock", "cgroup_sock_addr",
        "cgroup_sockopt", "sk_msg", "sock_ops", "socket_filter",
    ),
    "skc_users": (
        "lwt_in", "lwt_out", "lwt_xmit", "lwt_seg6local", "sched_cls", "sched_act", "cgroup_skb",
        "cgroup_sock_addr", "flow_dissector", "sk_lookup", "sk_msg", "sk_skb", "sock_ops",
        "socket_filter", "xdp",
    ),
}  # fmt: skip


def offered(text: str) -> frozenset[str] | None:
    """Return the program types that *text* names, groups resolved; None for "*", all."""
    if text == "*":
        return None
    words = (_ATTACH.split(word)[0] for word in text.split())
    return frozenset(name for word in words for name in _GROUPS.get(word, (word,)))


def _attach_types(text: str) -> dict[str, frozenset[int]]:
    found: dict[str, frozenset[int]] = {}
    for word in text.split():
        name, sign, some = (*_ATTACH.split(word), "", "")[:3]
        numbers = frozenset(map(int, some.split(","))) if some else frozenset()
        if sign:
            kept = numbers if sign == "@" else _ATTACH_TYPES - numbers
            found.update(dict.fromkeys(_GROUPS.get(name, (name,)), kept))
    return found


def prototype(
    number: int, name: str, args: str, ret: str = "int", flags: str = "", types: str = "*"
) -> FuncProto:
    """Return a helper's prototype without an implementation.

    Args:
        number, name: the kernel's, the name without bpf_.
        args: words of `_ARGS`; `?` behind one: may be NULL; digits: bytes of a fixed size.
        ret: a word of `_RESULTS`, `:STRUCT` behind it.
        flags: words of `_FLAGS`.
        types: program types and groups of them; `TYPE@N,N`: with these attach types, `TYPE!N,N`:
            with all others.
    """
    words = args.split()
    stems = [word.rstrip("?") for word in words]
    said = frozenset(flags.split())
    if said - _FLAGS:
        raise InternalError(f"helper {number}: unknown flags {sorted(said - _FLAGS)}")
    result, _, struct = ret.partition(":")
    return FuncProto(
        f"bpf_{name}",
        number,
        _RESULTS[result],
        tuple(_ARGS[stem.rstrip("0123456789") if "fix" in stem else stem] for stem in stems),
        {},
        gpl_only="gpl" in said,
        might_sleep="sleep" in said,
        pkt_access="pkt" in said,
        prog_types=offered(types),
        attach_types=_attach_types(types),
        only_tracing="tracing" in said,
        only_probes="probes" in said,
        changes_packet="changes" in said,
        acquires="acquire" in said,
        releases=1 if "release" in said else 0,
        nullable=frozenset(i for i, word in enumerate(words, 1) if word.endswith("?")),
        sizes={i: int(stem.strip("outwfix")) for i, stem in enumerate(stems, 1) if "fix" in stem},
        ret_struct=struct,
        sets_result="result" in said,
        changes_map="writes" in said,
        is_cast="cast" in said,
    )
