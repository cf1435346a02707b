"""Program types: what each one's context looks like to the program and inside.

The user-visible struct (`__sk_buff`, `xdp_md`, ...) is a table of fields. The verifier checks an
access against it, and the xlated insn addresses the internal context instead, where packet
pointers are 64 bits wide. Internal layouts are ours to choose, so every access stays one insn.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, unique

__all__ = ["PROG_TYPES", "CtxAccess", "CtxField", "CtxKind", "ProgType", "Sleepable"]


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
        sections: ELF section names, a trailing "/" or "+" meaning a prefix (libbpf's table).
        sleepable: see `Sleepable`.
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

    def ctx_access(self, off: int, size: int, *, write: bool) -> CtxAccess | None:
        """Return the rewritten access, or None where it is refused (kernel: is_valid_access and
        convert_ctx_access of the type's verifier ops)."""
        if off < 0 or off % size:
            return None
        if self.fields is None:
            inside = off + size <= self.ctx_limit and (self.ctx_writable or not write)
            return CtxAccess(CtxKind.SCALAR, off, size) if inside else None
        for f in self.fields:
            if not f.off <= off < f.off + f.size:
                continue
            if off + size > f.off + f.size or not (f.writable if write else f.readable):
                return None
            if f.kind is not CtxKind.SCALAR:
                return CtxAccess(f.kind, f.internal_off, 8) if size == f.size else None
            if size != f.size and not f.any_part and (write or not f.narrow):
                return None
            return CtxAccess(CtxKind.SCALAR, f.internal_off + off - f.off, size)
        return None


PROG_TYPES: dict[str, ProgType] = {}
