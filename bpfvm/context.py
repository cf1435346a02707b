"""Program types: what each one's context looks like to the program and inside.

The user-visible struct (`__sk_buff`, `xdp_md`, ...) is a table of fields. The verifier checks an
access against it, and the xlated insn addresses the internal context instead, where packet
pointers are 64 bits wide. Internal layouts are ours to choose, so every access stays one insn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, unique

__all__ = [
    "CTX_STRUCTS",
    "PROG_TYPES",
    "CtxAccess",
    "CtxField",
    "CtxKind",
    "ProgType",
    "Sleepable",
    "match_section",
    "prog_type_by_number",
]


@unique
class CtxKind(Enum):
    """What a load of a context field gives."""

    SCALAR = "scalar"
    PACKET = "pkt"
    PACKET_META = "pkt_meta"
    PACKET_END = "pkt_end"


@unique
class Sleepable(Enum):
    """Whether programs of a type are loaded with BPF_F_SLEEPABLE."""

    NEVER = "never"
    MAY = "may"
    MUST = "must"


@dataclass(frozen=True, slots=True)
class CtxField:
    """A field of the user-visible struct.

    Attributes:
        off, size: bytes [off, off + size) of the user-visible struct.
        internal_off: where it lies in the internal context.
        kind: SCALAR, or a packet pointer (u32 outside, 8 bytes inside).
        readable, writable: writes are always of the full size, unless *any_part*.
        narrow: may be read in aligned parts.
        any_part: any aligned read or write inside (skb->cb).
        write_size: bytes that a write stores, where the kernel keeps fewer than it shows
            (u16 tc_index), else 0. The bytes above stay zero.
        supported: False where the kernel grants the access and we don't yet (skb->sk).
    """

    name: str
    off: int
    size: int
    internal_off: int
    kind: CtxKind = CtxKind.SCALAR
    readable: bool = True
    writable: bool = False
    narrow: bool = True
    any_part: bool = False
    write_size: int = 0
    supported: bool = True

    def grants(self, off: int, size: int, *, write: bool) -> bool:
        """Say whether the kernel grants an aligned access that starts in this field."""
        if off + size > self.off + self.size or not (self.writable if write else self.readable):
            return False
        return size == self.size or self.any_part or (self.narrow and not write)


@dataclass(frozen=True, slots=True)
class CtxAccess:
    """A permitted access, rewritten: [off, off + size) of the internal context."""

    kind: CtxKind
    off: int
    size: int


@dataclass(frozen=True, slots=True)
class ProgType:
    """One program type.

    Attributes:
        name: as in JSON and directives ("sched_cls").
        number: enum bpf_prog_type.
        sections: ELF section names as in libbpf's table: "x" is exactly x, "x+" is x or x/...
        sleepable_sections: those of them that make a program sleepable.
        sleepable: see `Sleepable`. MAY is a matter of the kernel's version.
        fields: the context's table, or None: any aligned access below *ctx_limit*.
        ctx_size: bytes of the user-visible struct (0: none of its own, syscall).
        internal_size: bytes of the internal context.
        ctx_limit, ctx_writable: for contexts without a table.
        packet: the test-run takes packet data.
        packet_write: the program may store to packet memory.
    """

    name: str
    number: int
    sections: tuple[str, ...]
    sleepable: Sleepable = Sleepable.NEVER
    fields: tuple[CtxField, ...] | None = None
    ctx_size: int = 0
    internal_size: int = 0
    ctx_limit: int = 0
    ctx_writable: bool = False
    packet: bool = False
    packet_write: bool = False
    sleepable_sections: tuple[str, ...] = ()

    def ctx_access(self, off: int, size: int, *, write: bool) -> CtxAccess | None:
        """Return the rewritten access, or None where it is refused (kernel: is_valid_access and
        convert_ctx_access of the type's verifier ops)."""
        if off < 0 or off % size:
            return None
        if self.fields is None:
            inside = off + size <= self.ctx_limit and (self.ctx_writable or not write)
            return CtxAccess(CtxKind.SCALAR, off, size) if inside else None
        field = self.field_at(off)
        if field is None or not field.supported or not field.grants(off, size, write=write):
            return None
        at = field.internal_off + off - field.off
        if field.kind is not CtxKind.SCALAR:
            return CtxAccess(field.kind, at, 8)
        return CtxAccess(CtxKind.SCALAR, at, (write and field.write_size) or size)

    def unsupported_field(self, off: int, size: int, *, write: bool) -> str | None:
        """Return the name of the field where the kernel grants this access and we don't yet."""
        field = self.field_at(off)
        if field is None or field.supported or off < 0 or off % size:
            return None
        return field.name if field.grants(off, size, write=write) else None

    def field_at(self, off: int) -> CtxField | None:
        """Return the field that holds byte *off* of the user-visible struct."""
        return next((f for f in self.fields or () if f.off <= off < f.off + f.size), None)


def _u32s(*names: tuple[str, int]) -> dict[str, CtxField]:
    return {name: CtxField(name, off, 4, off) for name, off in names}


def _pointer(name: str, off: int, internal_off: int, kind: CtxKind) -> CtxField:
    return CtxField(name, off, 4, internal_off, kind, narrow=False)


_SKB_SIZE = 192
_XDP_SIZE = 24

#: struct __sk_buff. Inside, scalars lie where they lie outside, packet pointers behind the struct.
#: Fields that only other program types see (family to local_port, flow_keys) are left out.
_SKB: Mapping[str, CtxField] = {
    **_u32s(
        ("len", 0),
        ("pkt_type", 4),
        ("mark", 8),
        ("queue_mapping", 12),
        ("protocol", 16),
        ("vlan_present", 20),
        ("vlan_tci", 24),
        ("vlan_proto", 28),
        ("priority", 32),
        ("ingress_ifindex", 36),
        ("ifindex", 40),
        ("tc_index", 44),
        ("hash", 68),
        ("tc_classid", 72),
        ("napi_id", 84),
        ("wire_len", 160),
        ("gso_segs", 164),
        ("gso_size", 176),
    ),
    "cb": CtxField("cb", 48, 20, 48, any_part=True),
    "data": _pointer("data", 76, _SKB_SIZE, CtxKind.PACKET),
    "data_end": _pointer("data_end", 80, _SKB_SIZE + 8, CtxKind.PACKET_END),
    "data_meta": _pointer("data_meta", 140, _SKB_SIZE + 16, CtxKind.PACKET_META),
    "tstamp": CtxField("tstamp", 152, 8, 152, narrow=False),
    "sk": CtxField("sk", 168, 8, 168, narrow=False, supported=False),
    "tstamp_type": CtxField("tstamp_type", 180, 1, 180, narrow=False),
    "hwtstamp": CtxField("hwtstamp", 184, 8, 184, narrow=False),
}

#: Shown as u32 and kept as u16 by the kernel.
_KEPT_AS_U16 = frozenset({"queue_mapping", "tc_index", "tc_classid"})

_XDP: tuple[CtxField, ...] = (
    _pointer("data", 0, _XDP_SIZE, CtxKind.PACKET),
    _pointer("data_end", 4, _XDP_SIZE + 8, CtxKind.PACKET_END),
    _pointer("data_meta", 8, _XDP_SIZE + 16, CtxKind.PACKET_META),
    CtxField("ingress_ifindex", 12, 4, 12, narrow=False),
    CtxField("rx_queue_index", 16, 4, 16, narrow=False),
)


def _skb(hidden: Iterable[str], writable: Iterable[str]) -> tuple[CtxField, ...]:
    fields = []
    for name, field in _SKB.items():
        if name in hidden:
            continue
        if name in writable:
            field = replace(field, writable=True, write_size=2 if name in _KEPT_AS_U16 else 0)
        fields.append(field)
    return tuple(fields)


#: By name. Sources: net/core/filter.c, kernel/trace/bpf_trace.c, kernel/bpf/syscall.c and libbpf's
#: section table. Types or sections that need an attach type to be judged are left out.
PROG_TYPES: dict[str, ProgType] = {
    t.name: t
    for t in (
        ProgType(
            "socket_filter",
            1,
            ("socket",),
            fields=_skb(
                hidden=(
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
            ),
            ctx_size=_SKB_SIZE,
            internal_size=_SKB_SIZE + 24,
            packet=True,
        ),
        ProgType(
            "sched_cls",
            3,
            (
                "tc",
                "classifier",
                "tc/ingress",
                "tc/egress",
                "tcx/ingress",
                "tcx/egress",
                "netkit/primary",
                "netkit/peer",
            ),
            fields=_skb(
                hidden=(),
                writable=(
                    "mark",
                    "tc_index",
                    "priority",
                    "tc_classid",
                    "cb",
                    "tstamp",
                    "queue_mapping",
                ),
            ),
            ctx_size=_SKB_SIZE,
            internal_size=_SKB_SIZE + 24,
            packet=True,
            packet_write=True,
        ),
        ProgType(
            "xdp",
            6,
            ("xdp", "xdp.frags", "xdp/cpumap", "xdp.frags/cpumap"),
            fields=_XDP,
            ctx_size=_XDP_SIZE,
            internal_size=_XDP_SIZE + 24,
            packet=True,
            packet_write=True,
        ),
        ProgType(
            "raw_tp",
            17,
            ("raw_tp+", "raw_tracepoint+", "raw_tp.s+", "raw_tracepoint.s+"),
            Sleepable.MAY,
            ctx_limit=96,
            sleepable_sections=("raw_tp.s+", "raw_tracepoint.s+"),
        ),
        ProgType(
            "syscall",
            31,
            ("syscall",),
            Sleepable.MUST,
            ctx_limit=65535,
            ctx_writable=True,
            sleepable_sections=("syscall",),
        ),
    )
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


def match_section(section: str) -> tuple[ProgType, bool] | None:
    """Return the program type that an ELF section's name gives, and whether it is sleepable."""
    for prog_type in PROG_TYPES.values():
        for pattern in prog_type.sections:
            if _matches(pattern, section):
                return prog_type, pattern in prog_type.sleepable_sections
    return None


def _matches(pattern: str, section: str) -> bool:
    if not pattern.endswith("+"):
        return section == pattern
    stem = pattern[:-1]
    return section == stem or section.startswith(stem + "/")
