"""Program types: what each one's context looks like to the program and inside.

The user-visible struct (`__sk_buff`, `xdp_md`, ...) is a table of fields. The verifier checks an
access against it, and the xlated insn addresses the internal context instead, where packet
pointers are 64 bits wide. Internal layouts are ours to choose, so every access stays one insn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from bpfvm import ctxfields
from bpfvm.ctxfields import SKB, SKB_SIZE, SKB_SOCKET_FIELDS, CtxAccess, CtxField, CtxKind, chosen
from bpfvm.progtype import ProgType, Range, Section, Sleepable

__all__ = [
    "CTX_STRUCTS",
    "PROG_TYPES",
    "CtxAccess",
    "CtxField",
    "CtxKind",
    "ProgType",
    "Section",
    "SectionMatch",
    "Sleepable",
    "match_section",
    "prog_type_by_number",
]

_INTERNAL_SKB = SKB_SIZE + 24
_PASS_DROP = (0, 1)
_ONE = (1, 1)


def _named(*patterns: str) -> tuple[Section, ...]:
    return tuple(Section(p) for p in patterns)


def _skb_type(
    name: str,
    number: int,
    sections: tuple[Section, ...],
    *,
    hidden: tuple[str, ...],
    writable: tuple[str, ...],
    packet_write: bool = False,
    packet_args: bool = True,
    ld_abs: bool = False,
    ret_range: Range | None = None,
    ret_ranges: Mapping[int, Range] | None = None,
    test_run: bool = False,
    capable_reads: tuple[str, ...] = (),
    capable_writes: tuple[str, ...] = (),
) -> ProgType:
    """Return a program type whose context is a __sk_buff. flow_keys is the dissector's alone."""
    return ProgType(
        name,
        number,
        sections,
        fields=chosen(SKB, hidden=("flow_keys", *hidden), writable=writable),
        ctx_size=SKB_SIZE,
        internal_size=_INTERNAL_SKB,
        packet=test_run,
        packet_write=packet_write,
        packet_args=packet_args,
        ld_abs=ld_abs,
        ret_range=ret_range,
        ret_ranges=ret_ranges or {},
        test_run=test_run,
        capable_reads=frozenset(capable_reads),
        capable_writes=frozenset(capable_writes),
    )


_TC_WRITABLE = (
    "mark", "tc_index", "priority", "tc_classid", "cb", "tstamp", "queue_mapping",
)  # fmt: skip
_LWT_HIDDEN = (
    "tc_classid", *SKB_SOCKET_FIELDS, "data_meta", "tstamp", "tstamp_type", "wire_len", "hwtstamp",
)  # fmt: skip
_KERNEL_BTF = "the kernel's BTF"


def _lwt(name: str, number: int, *, packet_write: bool = False) -> ProgType:
    return _skb_type(
        name,
        number,
        _named(name),
        hidden=_LWT_HIDDEN,
        writable=("mark", "priority", "cb"),
        packet_write=packet_write,
        test_run=name != "lwt_seg6local",
    )


#: struct __sk_buff as its program types see it.
_SKB_TYPES = (
    _skb_type(
        "socket_filter",
        1,
        _named("socket"),
        hidden=(
            *SKB_SOCKET_FIELDS,
            "tc_classid",
            "data",
            "data_end",
            "data_meta",
            "tstamp",
            "tstamp_type",
            "wire_len",
            "hwtstamp",
        ),
        writable=("cb",),
        packet_args=False,
        ld_abs=True,
        test_run=True,
    ),
    _skb_type(
        "sched_cls",
        3,
        (
            *_named("tc", "classifier"),
            Section("tc/ingress", 46),
            Section("tc/egress", 47),
            Section("tcx/ingress", 46),
            Section("tcx/egress", 47),
            Section("netkit/primary", 54),
            Section("netkit/peer", 55),
        ),
        hidden=SKB_SOCKET_FIELDS,
        writable=_TC_WRITABLE,
        packet_write=True,
        ld_abs=True,
        test_run=True,
    ),
    _skb_type(
        "sched_act",
        4,
        _named("action"),
        hidden=SKB_SOCKET_FIELDS,
        writable=_TC_WRITABLE,
        packet_write=True,
        ld_abs=True,
        test_run=True,
    ),
    _skb_type(
        "cgroup_skb",
        8,
        (Section("cgroup_skb/ingress", 0), Section("cgroup_skb/egress", 1), Section("cgroup/skb")),
        hidden=("tc_classid", "data_meta", "tstamp_type", "wire_len"),
        writable=("mark", "priority", "cb", "tstamp"),
        ret_range=_PASS_DROP,
        ret_ranges={1: (0, 3)},
        test_run=True,
        capable_reads=("data", "data_end"),
        capable_writes=("tstamp",),
    ),
    _lwt("lwt_in", 10),
    _lwt("lwt_out", 11),
    _lwt("lwt_xmit", 12, packet_write=True),
    _lwt("lwt_seg6local", 19),
    _skb_type(
        "sk_skb",
        14,
        (
            Section("sk_skb/stream_parser", 4),
            Section("sk_skb/stream_verdict", 5),
            Section("sk_skb/verdict", 38),
            Section("sk_skb"),
        ),
        hidden=("tc_classid", "data_meta", "tstamp", "tstamp_type", "wire_len", "hwtstamp", "mark"),
        writable=("tc_index", "priority"),
        packet_write=True,
    ),
    ProgType(
        "flow_dissector",
        22,
        (Section("flow_dissector", 17),),
        fields=ctxfields.FLOW_DISSECTOR,
        ctx_size=SKB_SIZE,
        internal_size=_INTERNAL_SKB,
        packet_args=True,
    ),
)

_NET_TYPES = (
    ProgType(
        "xdp",
        6,
        (
            Section("xdp.frags/devmap", 33),
            Section("xdp/devmap", 33),
            Section("xdp.frags/cpumap", 35),
            Section("xdp/cpumap", 35),
            Section("xdp.frags", 37),
            Section("xdp", 37),
        ),
        fields=ctxfields.XDP,
        ctx_size=ctxfields.XDP_SIZE,
        internal_size=ctxfields.XDP_SIZE + 24,
        packet=True,
        packet_write=True,
        packet_args=True,
        test_run=True,
    ),
    ProgType(
        "sock_ops",
        13,
        (Section("sockops", 3),),
        fields=chosen(ctxfields.SOCK_OPS, writable=("reply", "sk_txhash")),
        ctx_size=ctxfields.SOCK_OPS_SIZE,
        internal_size=ctxfields.SOCK_OPS_SIZE,
        ret_range=_PASS_DROP,
    ),
    ProgType(
        "sk_msg",
        16,
        (Section("sk_msg", 7),),
        fields=ctxfields.SK_MSG,
        ctx_size=ctxfields.SK_MSG_SIZE,
        internal_size=ctxfields.SK_MSG_SIZE,
        packet_write=True,
        packet_args=True,
    ),
    ProgType(
        "sk_reuseport",
        21,
        (Section("sk_reuseport/migrate", 40), Section("sk_reuseport", 39)),
        fields=ctxfields.SK_REUSEPORT,
        ctx_size=ctxfields.SK_REUSEPORT_SIZE,
        internal_size=ctxfields.SK_REUSEPORT_SIZE,
        packet_args=True,
    ),
    ProgType(
        "sk_lookup",
        30,
        (Section("sk_lookup", 36),),
        fields=ctxfields.SK_LOOKUP,
        ctx_size=ctxfields.SK_LOOKUP_SIZE,
        internal_size=ctxfields.SK_LOOKUP_SIZE,
        ret_range=_PASS_DROP,
    ),
    ProgType(
        "netfilter",
        32,
        (Section("netfilter", 45),),
        fields=ctxfields.NETFILTER,
        ctx_size=16,
        internal_size=16,
        ret_range=_PASS_DROP,
        rewritten=False,
    ),
)

_CREATE_RELEASE = frozenset({2, 34})
_CGROUP_SOCK = tuple(
    replace(f, attach=attach, write_attach=_CREATE_RELEASE)
    for f in chosen(ctxfields.SOCK, writable=("bound_dev_if", "mark", "priority"))
    for attach in [
        {
            "bound_dev_if": _CREATE_RELEASE,
            "mark": _CREATE_RELEASE,
            "priority": _CREATE_RELEASE,
            "src_ip4": frozenset({12}),
            "src_ip6": frozenset({13}),
            "src_port": frozenset({12, 13}),
        }.get(f.name.partition("[")[0])
    ]
)
_RECV = dict.fromkeys((19, 20, 51, 29, 30, 52, 31, 32, 53), _ONE)

_CGROUP_TYPES = (
    ProgType(
        "cgroup_sock",
        9,
        (
            Section("cgroup/sock_create", 2),
            Section("cgroup/sock_release", 34),
            Section("cgroup/sock", 2),
            Section("cgroup/post_bind4", 12),
            Section("cgroup/post_bind6", 13),
        ),
        fields=_CGROUP_SOCK,
        ctx_size=ctxfields.SOCK_SIZE,
        internal_size=ctxfields.SOCK_SIZE,
        ret_range=_PASS_DROP,
    ),
    ProgType(
        "cgroup_sock_addr",
        18,
        tuple(
            Section(f"cgroup/{name}", attach)
            for name, attach in (
                ("bind4", 8),
                ("bind6", 9),
                ("connect4", 10),
                ("connect6", 11),
                ("connect_unix", 49),
                ("sendmsg4", 14),
                ("sendmsg6", 15),
                ("sendmsg_unix", 50),
                ("recvmsg4", 19),
                ("recvmsg6", 20),
                ("recvmsg_unix", 51),
                ("getpeername4", 29),
                ("getpeername6", 30),
                ("getpeername_unix", 52),
                ("getsockname4", 31),
                ("getsockname6", 32),
                ("getsockname_unix", 53),
            )
        ),
        fields=chosen(
            ctxfields.SOCK_ADDR,
            writable=("user_ip4", "user_ip6", "user_port", "msg_src_ip4", "msg_src_ip6"),
        ),
        ctx_size=ctxfields.SOCK_ADDR_SIZE,
        internal_size=ctxfields.SOCK_ADDR_SIZE,
        ret_range=_PASS_DROP,
        ret_ranges={8: (0, 3), 9: (0, 3), **_RECV},
    ),
    ProgType(
        "cgroup_device",
        15,
        (Section("cgroup/dev", 6),),
        fields=ctxfields.CGROUP_DEV,
        ctx_size=12,
        internal_size=12,
        ret_range=_PASS_DROP,
        rewritten=False,
    ),
    ProgType(
        "cgroup_sysctl",
        23,
        (Section("cgroup/sysctl", 18),),
        fields=ctxfields.SYSCTL,
        ctx_size=8,
        internal_size=8,
        ret_range=_PASS_DROP,
    ),
    ProgType(
        "cgroup_sockopt",
        25,
        (Section("cgroup/getsockopt", 21), Section("cgroup/setsockopt", 22)),
        fields=ctxfields.SOCKOPT,
        ctx_size=ctxfields.SOCKOPT_SIZE,
        internal_size=ctxfields.SOCKOPT_SIZE,
        packet_write=True,
        packet_args=True,
        ret_range=_PASS_DROP,
    ),
)

_TRACE_TYPES = (
    ProgType(
        "kprobe",
        2,
        (
            *_named("kprobe+", "uprobe+", "kretprobe+", "uretprobe+"),
            Section("uprobe.s+", 0, sleepable=True),
            Section("uretprobe.s+", 0, sleepable=True),
            Section("kprobe.multi+", 42),
            Section("kretprobe.multi+", 42),
            Section("kprobe.session+", 56),
            Section("uprobe.multi+", 48),
            Section("uretprobe.multi+", 48),
            Section("uprobe.multi.s+", 48, sleepable=True),
            Section("uretprobe.multi.s+", 48, sleepable=True),
            *_named("ksyscall+", "kretsyscall+", "usdt+"),
            Section("usdt.s+", 0, sleepable=True),
        ),
        Sleepable.MAY,
        ctx_limit=ctxfields.PT_REGS_SIZE,
        ctx_writable=True,
        is_tracing=True,
        ret_ranges={56: _PASS_DROP},
        rewritten=False,
    ),
    ProgType(
        "tracepoint",
        5,
        (
            *_named("tracepoint+", "tp+"),
            Section("tracepoint.s+", 0, sleepable=True),
            Section("tp.s+", 0, sleepable=True),
        ),
        Sleepable.LATER,
        ctx_start=8,
        ctx_limit=8192,
        is_tracing=True,
        rewritten=False,
    ),
    ProgType(
        "perf_event",
        7,
        _named("perf_event"),
        fields=ctxfields.PERF_EVENT,
        ctx_size=ctxfields.PERF_EVENT_SIZE,
        internal_size=ctxfields.PERF_EVENT_SIZE,
        is_tracing=True,
    ),
    ProgType(
        "raw_tp",
        17,
        (
            *_named("raw_tp+", "raw_tracepoint+"),
            Section("raw_tp.s+", 0, sleepable=True),
            Section("raw_tracepoint.s+", 0, sleepable=True),
        ),
        Sleepable.LATER,
        ctx_limit=96,
        is_tracing=True,
        rewritten=False,
        test_run=True,
    ),
    ProgType(
        "raw_tp_writable",
        24,
        _named("raw_tp.w+", "raw_tracepoint.w+"),
        ctx_limit=96,
        is_tracing=True,
        rewritten=False,
        tp_buffer=True,
    ),
    ProgType(
        "syscall",
        31,
        (Section("syscall", 0, sleepable=True),),
        Sleepable.MUST,
        ctx_limit=65535,
        ctx_writable=True,
        ctx_memory=True,
        rewritten=False,
        test_run=True,
    ),
)


def _needs_btf(name: str, number: int, sections: tuple[Section, ...]) -> ProgType:
    return ProgType(name, number, sections, Sleepable.MAY, missing=_KERNEL_BTF)


def _both(stem: str, attach: int) -> tuple[Section, Section]:
    return Section(f"{stem}+", attach), Section(f"{stem}.s+", attach, sleepable=True)


_BTF_TYPES = (
    ProgType(
        "tracing",
        26,
        (
            *_both("tp_btf", 23),
            *_both("fentry", 24),
            *_both("fexit", 25),
            *_both("fmod_ret", 26),
            *_both("iter", 28),
        ),
        Sleepable.MAY,
        ret_ranges={24: (0, 0), 25: (0, 0), 28: _PASS_DROP},
        rewritten=False,
        is_hooked=True,
    ),
    ProgType(
        "lsm",
        29,
        (*_both("lsm", 27), Section("lsm_cgroup+", 43)),
        Sleepable.MAY,
        rewritten=False,
        is_hooked=True,
        returns_of_hook=True,
    ),
    _needs_btf("struct_ops", 27, _both("struct_ops", 44)),
    _needs_btf("ext", 28, (Section("freplace+"),)),
)

#: By name. Sources: net/core/filter.c, kernel/bpf/cgroup.c, kernel/trace/bpf_trace.c,
#: kernel/bpf/syscall.c, check_return_code and libbpf's section table.
PROG_TYPES: dict[str, ProgType] = {
    t.name: t for t in (*_SKB_TYPES, *_NET_TYPES, *_CGROUP_TYPES, *_TRACE_TYPES, *_BTF_TYPES)
}


#: By program type, the struct that BTF calls its context (kernel: include/linux/bpf_types.h).
#: Other types have no name for it.
CTX_STRUCTS: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "socket_filter",
            "sched_cls",
            "sched_act",
            "cgroup_skb",
            "lwt_in",
            "lwt_out",
            "lwt_xmit",
            "lwt_seg6local",
            "sk_skb",
            "flow_dissector",
        ),
        "__sk_buff",
    ),
    "xdp": "xdp_md",
    "cgroup_sock": "bpf_sock",
    "cgroup_sock_addr": "bpf_sock_addr",
    "sock_ops": "bpf_sock_ops",
    "sk_msg": "sk_msg_md",
    "kprobe": "pt_regs",
    "perf_event": "bpf_perf_event_data",
    "raw_tp": "bpf_raw_tracepoint_args",
    "raw_tp_writable": "bpf_raw_tracepoint_args",
    "cgroup_device": "bpf_cgroup_dev_ctx",
    "cgroup_sysctl": "bpf_sysctl",
    "cgroup_sockopt": "bpf_sockopt",
    "sk_reuseport": "sk_reuseport_md",
    "sk_lookup": "bpf_sk_lookup",
    "netfilter": "bpf_nf_ctx",
}


def prog_type_by_number(number: int) -> ProgType | None:
    """Return the program type with *number* of enum bpf_prog_type."""
    return next((t for t in PROG_TYPES.values() if t.number == number), None)


class SectionMatch(NamedTuple):
    """What an ELF section's name says of the programs in it."""

    prog_type: ProgType
    sleepable: bool
    attach: int = 0


def match_section(section: str) -> SectionMatch | None:
    """Return what *section*'s name gives, or None where libbpf's table has no such name."""
    for prog_type in PROG_TYPES.values():
        for found in prog_type.sections:
            if found.matches(section):
                return SectionMatch(prog_type, found.sleepable, found.attach)
    return None
