"""The structs that programs see: contexts and sockets, as tables of fields.

Offsets and sizes are the kernel's (include/uapi/linux/bpf.h). Which fields a program type may
touch is in `bpfvm.context`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, unique

__all__ = [
    "SKB",
    "SKB_SIZE",
    "SOCKS",
    "XDP_SIZE",
    "CtxAccess",
    "CtxField",
    "CtxKind",
    "at_offset",
    "chosen",
]


@unique
class CtxKind(Enum):
    """What a load of a context field gives."""

    SCALAR = "scalar"
    PACKET = "pkt"
    PACKET_META = "pkt_meta"
    PACKET_END = "pkt_end"
    SOCKET = "sock"
    SOCKET_OR_NULL = "sock_or_null"
    SOCK_COMMON_OR_NULL = "sock_common_or_null"
    FLOW_KEYS = "flow_keys"
    TP_BUFFER = "tp_buffer"
    SK_BUFF = "sk_buff"  # trusted pointers to structs of the kernel
    NF_HOOK_STATE = "nf_hook_state"


@dataclass(frozen=True, slots=True)
class CtxField:
    """A field of a struct that programs see.

    Attributes:
        off, size: bytes [off, off + size) of the user-visible struct.
        internal_off: where it lies in the internal context.
        kind: SCALAR, or a pointer (8 bytes inside, whatever *size* is outside).
        readable, writable: writes are always of the full size, unless *any_part*.
        narrow: may be read in aligned parts, of *least* bytes or more.
        head: of those parts only the first is granted.
        any_part: any aligned read or write inside (skb->cb).
        wide: another size that is granted at the field's start (8 for two words of an address).
        write_size: bytes that a write stores, where the kernel keeps fewer than it shows
            (u16 tc_index), else 0. The bytes above stay zero.
        attach, write_attach: the expected attach types that see it, and that may write it; None:
            all.
        least: see *narrow*.
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
    head: bool = False
    wide: int = 0
    least: int = 1
    attach: frozenset[int] | None = None
    write_attach: frozenset[int] | None = None

    def grants(self, off: int, size: int, *, write: bool, attach: int = 0) -> bool:
        """Say whether the kernel grants an aligned access that starts in this field."""
        if not (self.writable if write else self.readable):
            return False
        if self.attach is not None and attach not in self.attach:
            return False
        if write and self.write_attach is not None and attach not in self.write_attach:
            return False
        if self.wide and size == self.wide and off == self.off:
            return True
        if off + size > self.off + self.size:
            return False
        if size == self.size or self.any_part:
            return True
        return (
            self.narrow and not write and size >= self.least and not (self.head and off > self.off)
        )


@dataclass(frozen=True, slots=True)
class CtxAccess:
    """A permitted access, rewritten: [off, off + size) of the internal context."""

    kind: CtxKind
    off: int
    size: int


def at_offset(fields: Iterable[CtxField], off: int) -> CtxField | None:
    """Return the one of *fields* that holds byte *off* of the user-visible struct."""
    return next((f for f in fields if f.off <= off < f.off + f.size), None)


def chosen(
    table: Mapping[str, CtxField],
    *,
    hidden: Iterable[str] = (),
    writable: Iterable[str] = (),
) -> tuple[CtxField, ...]:
    """Return the fields of *table* but for *hidden*, those in *writable* made so. A name stands
    for all words of an array, too."""
    fields = []
    for name, field in table.items():
        stem = name.partition("[")[0]
        if stem in hidden:
            continue
        if stem in writable:
            field = replace(field, writable=True, write_size=2 if name in _KEPT_AS_U16 else 0)
        fields.append(field)
    return tuple(fields)


def _u32s(
    *names: tuple[str, int],
    narrow: bool = True,
    head: bool = False,
    attach: frozenset[int] | None = None,
) -> dict[str, CtxField]:
    return {
        name: CtxField(name, off, 4, off, narrow=narrow, head=head, attach=attach)
        for name, off in names
    }


def _words(
    name: str,
    off: int,
    count: int,
    *,
    narrow: bool = True,
    pairs: bool = False,
    attach: frozenset[int] | None = None,
) -> dict[str, CtxField]:
    """Return the *count* words of an array; *pairs*: two that are 8-byte aligned go together."""
    return {
        f"{name}[{i}]": CtxField(
            f"{name}[{i}]",
            off + 4 * i,
            4,
            off + 4 * i,
            narrow=narrow,
            wide=8 if pairs and (off + 4 * i) % 8 == 0 and i + 1 < count else 0,
            attach=attach,
        )
        for i in range(count)
    }


def _u64(name: str, off: int, kind: CtxKind = CtxKind.SCALAR) -> dict[str, CtxField]:
    return {name: CtxField(name, off, 8, off, kind, narrow=False)}


def _pointer(name: str, off: int, internal_off: int, kind: CtxKind) -> CtxField:
    return CtxField(name, off, 4, internal_off, kind, narrow=False)


SKB_SIZE = 192
XDP_SIZE = 24

#: struct __sk_buff. Inside, scalars lie where they lie outside, packet pointers behind the struct.
SKB: Mapping[str, CtxField] = {
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
        ("family", 88),
        ("remote_port", 132),
        ("local_port", 136),
        ("wire_len", 160),
        ("gso_segs", 164),
        ("gso_size", 176),
    ),
    **_u32s(("remote_ip4", 92), ("local_ip4", 96), narrow=False),
    **_words("remote_ip6", 100, 4, narrow=False),
    **_words("local_ip6", 116, 4, narrow=False),
    "cb": CtxField("cb", 48, 20, 48, any_part=True),
    "data": _pointer("data", 76, SKB_SIZE, CtxKind.PACKET),
    "data_end": _pointer("data_end", 80, SKB_SIZE + 8, CtxKind.PACKET_END),
    "data_meta": _pointer("data_meta", 140, SKB_SIZE + 16, CtxKind.PACKET_META),
    **_u64("flow_keys", 144, CtxKind.FLOW_KEYS),
    **_u64("tstamp", 152),
    **_u64("sk", 168, CtxKind.SOCK_COMMON_OR_NULL),
    "tstamp_type": CtxField("tstamp_type", 180, 1, 180, narrow=False),
    **_u64("hwtstamp", 184),
}
#: From family to local_port: what the program types with a socket at hand see.
SKB_SOCKET_FIELDS = (
    "family", "remote_ip4", "local_ip4", "remote_ip6", "local_ip6", "remote_port", "local_port",
)  # fmt: skip

#: Shown as u32 and kept as u16 by the kernel.
_KEPT_AS_U16 = frozenset({"queue_mapping", "tc_index", "tc_classid"})

#: struct xdp_md. The last field is for programs in a devmap.
XDP: tuple[CtxField, ...] = (
    _pointer("data", 0, XDP_SIZE, CtxKind.PACKET),
    _pointer("data_end", 4, XDP_SIZE + 8, CtxKind.PACKET_END),
    _pointer("data_meta", 8, XDP_SIZE + 16, CtxKind.PACKET_META),
    CtxField("ingress_ifindex", 12, 4, 12, narrow=False),
    CtxField("rx_queue_index", 16, 4, 16, narrow=False),
    CtxField("egress_ifindex", 20, 4, 20, narrow=False, attach=frozenset({33})),
)

SOCK_SIZE = 80
#: struct bpf_sock.
SOCK: Mapping[str, CtxField] = {
    **_u32s(("bound_dev_if", 0), ("mark", 16), ("priority", 20), narrow=False),
    **_u32s(
        ("family", 4),
        ("type", 8),
        ("protocol", 12),
        ("src_port", 44),
        ("state", 72),
        ("rx_queue_mapping", 76),
        head=True,
    ),
    **_u32s(("src_ip4", 24), ("dst_ip4", 52)),
    **_words("src_ip6", 28, 4),
    **_words("dst_ip6", 56, 4),
    "dst_port": CtxField("dst_port", 48, 2, 48, wide=4),
}

_TCP_SOCK = (
    *(
        CtxField(f"u32[{off}]", off, 4, off, narrow=False)
        for off in (*range(0, 80, 4), 96, 100, 104, 108)
    ),
    *_u64("bytes_received", 80).values(),
    *_u64("bytes_acked", 88).values(),
)

#: Fields of sockets by the log's name of the pointer (kernel: check_sock_access).
SOCKS: Mapping[str, tuple[CtxField, ...]] = {
    "sock": tuple(SOCK.values()),
    "sock_common": chosen(SOCK, hidden=("type", "protocol", "mark", "priority")),
    "tcp_sock": _TCP_SOCK,
    "xdp_sock": (CtxField("queue_id", 0, 4, 0, narrow=False),),
}

_INET4 = frozenset({8, 10, 14, 19, 29, 31})
_INET6 = frozenset({9, 11, 15, 20, 30, 32})
SOCK_ADDR_SIZE = 72
#: struct bpf_sock_addr; which address is there depends on the attach type.
SOCK_ADDR: Mapping[str, CtxField] = {
    **_u32s(("user_family", 0), ("family", 28), ("type", 32), ("protocol", 36), narrow=False),
    **_u32s(("user_ip4", 4), attach=_INET4),
    **_words("user_ip6", 8, 4, pairs=True, attach=_INET6),
    **_u32s(("user_port", 24)),
    **_u32s(("msg_src_ip4", 40), attach=frozenset({14})),
    **_words("msg_src_ip6", 44, 4, pairs=True, attach=frozenset({15})),
    **_u64("sk", 64, CtxKind.SOCKET),
}

SOCK_OPS_SIZE = 224
#: struct bpf_sock_ops.
SOCK_OPS: Mapping[str, CtxField] = {
    **_u32s(("op", 0), ("reply", 4), narrow=False),
    **{
        f"u32[{off}]": CtxField(f"u32[{off}]", off, 4, off, narrow=False)
        for off in (*range(8, 164, 4), 208)
    },
    **_u32s(("sk_txhash", 164), narrow=False),
    **_u64("bytes_received", 168),
    **_u64("bytes_acked", 176),
    **_u64("sk", 184, CtxKind.SOCKET_OR_NULL),
    **_u64("skb_data", 192, CtxKind.PACKET),
    **_u64("skb_data_end", 200, CtxKind.PACKET_END),
    **_u32s(("skb_tcp_flags", 212), head=True),
    **_u64("skb_hwtstamp", 216),
}

SK_MSG_SIZE = 80
#: struct sk_msg_md.
SK_MSG: tuple[CtxField, ...] = (
    *_u64("data", 0, CtxKind.PACKET).values(),
    *_u64("data_end", 8, CtxKind.PACKET_END).values(),
    *(CtxField(f"u32[{off}]", off, 4, off, narrow=False) for off in range(16, 72, 4)),
    *_u64("sk", 72, CtxKind.SOCKET).values(),
)

SK_REUSEPORT_SIZE = 56
#: struct sk_reuseport_md.
SK_REUSEPORT: tuple[CtxField, ...] = (
    *_u64("data", 0, CtxKind.PACKET).values(),
    *_u64("data_end", 8, CtxKind.PACKET_END).values(),
    *_u32s(("len", 16), ("ip_protocol", 24), ("bind_inany", 28)).values(),
    CtxField("eth_protocol", 20, 4, 20, least=2),
    CtxField("hash", 32, 4, 32, narrow=False),
    *_u64("sk", 40, CtxKind.SOCKET).values(),
    *_u64("migrating_sk", 48, CtxKind.SOCK_COMMON_OR_NULL).values(),
)

SK_LOOKUP_SIZE = 72
#: struct bpf_sk_lookup.
SK_LOOKUP: tuple[CtxField, ...] = (
    *_u64("sk", 0, CtxKind.SOCKET_OR_NULL).values(),
    *_u32s(
        ("family", 8),
        ("protocol", 12),
        ("remote_ip4", 16),
        ("local_ip4", 40),
        ("local_port", 60),
        ("ingress_ifindex", 64),
    ).values(),
    *_words("remote_ip6", 20, 4).values(),
    *_words("local_ip6", 44, 4).values(),
    CtxField("remote_port", 36, 2, 36, wide=4),
    CtxField("padding", 38, 2, 38),
)

CGROUP_DEV: tuple[CtxField, ...] = (
    CtxField("access_type", 0, 4, 0),
    CtxField("major", 4, 4, 4, narrow=False),
    CtxField("minor", 8, 4, 8, narrow=False),
)
SYSCTL: tuple[CtxField, ...] = (
    CtxField("write", 0, 4, 0),
    CtxField("file_pos", 4, 4, 4, writable=True),
)

_GETSOCKOPT, _SETSOCKOPT = frozenset({21}), frozenset({22})
SOCKOPT_SIZE = 40
#: struct bpf_sockopt; the option's value is reached as packets are.
SOCKOPT: tuple[CtxField, ...] = (
    *_u64("sk", 0, CtxKind.SOCKET).values(),
    *_u64("optval", 8, CtxKind.PACKET).values(),
    *_u64("optval_end", 16, CtxKind.PACKET_END).values(),
    CtxField("level", 24, 4, 24, narrow=False, writable=True, write_attach=_SETSOCKOPT),
    CtxField("optname", 28, 4, 28, narrow=False, writable=True, write_attach=_SETSOCKOPT),
    CtxField("optlen", 32, 4, 32, narrow=False, writable=True),
    CtxField("retval", 36, 4, 36, narrow=False, writable=True, attach=_GETSOCKOPT),
)

NETFILTER: tuple[CtxField, ...] = (
    *_u64("state", 0, CtxKind.NF_HOOK_STATE).values(),
    *_u64("skb", 8, CtxKind.SK_BUFF).values(),
)

#: struct pt_regs of x86-64: 21 registers of 8 bytes.
PT_REGS_SIZE = 168
PERF_EVENT_SIZE = 184
PERF_EVENT: tuple[CtxField, ...] = (
    *(CtxField(f"regs[{i}]", 8 * i, 8, 8 * i, narrow=False) for i in range(PT_REGS_SIZE // 8)),
    CtxField("sample_period", 168, 8, 168),
    CtxField("addr", 176, 8, 176),
)

FLOW_DISSECTOR = tuple(SKB[name] for name in ("data", "data_end", "flow_keys"))
#: struct bpf_flow_keys.
FLOW_KEYS_SIZE = 56
