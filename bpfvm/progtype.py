"""What a program type is: where its programs are found, and what its context looks like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, unique
from typing import NamedTuple

from bpfvm import ctxfields
from bpfvm.ctxfields import CtxAccess, CtxField, CtxKind

__all__ = ["ProgType", "Range", "Section", "Sleepable"]


@unique
class Sleepable(Enum):
    """Whether programs of a type are loaded with BPF_F_SLEEPABLE."""

    NEVER = "never"
    MAY = "may"
    LATER = "later"  # in newer kernels (KernelRules.sleepable_tracepoints)
    MUST = "must"


class Section(NamedTuple):
    """An ELF section name of libbpf's table: "x" is exactly x, "x+" is x or x/...

    *attach* is the expected attach type that it gives, *sleepable* whether it makes its programs
    so.
    """

    pattern: str
    attach: int = 0
    sleepable: bool = False

    def matches(self, name: str) -> bool:
        """Say whether *name* is such a section."""
        if not self.pattern.endswith("+"):
            return name == self.pattern
        stem = self.pattern[:-1]
        return name == stem or name.startswith(stem + "/")


#: Return ranges, lowest and highest.
Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class ProgType:
    """One program type.

    Attributes:
        name: as in JSON and directives ("sched_cls").
        number: enum bpf_prog_type.
        sections: where libbpf looks for its programs.
        sleepable: see `Sleepable`.
        fields: the context's table, or None: any aligned access from *ctx_start* to below
            *ctx_limit*.
        ctx_size: bytes of the user-visible struct (0: none of its own, syscall).
        internal_size: bytes of the internal context.
        ctx_start, ctx_limit, ctx_writable: for contexts without a table.
        packet: the test-run takes packet data.
        packet_args: helpers that can take packet pointers get them (kernel:
            may_access_direct_pkt_data).
        packet_write: the program may store to packet memory.
        ld_abs: BPF_LD_ABS and BPF_LD_IND are there (kernel: may_access_skb).
        ret_range: what r0 must be within at the end, None: anything.
        ret_ranges: the same by expected attach type, where that decides.
        is_tracing: runs where locks can't be taken (kernel: is_tracing_prog_type).
        ctx_memory: from 7.3 the context is memory of *ctx_limit* bytes (kernel:
            is_var_ctx_off_allowed).
        rewritten: the kernel translates accesses to the context, so its pointer can't be moved.
        test_run: programs can be run; the kernel may run more.
        capable_reads, capable_writes: fields that only users with CAP_BPF may read, and write.
        tp_buffer: the first 8 bytes of the context are a pointer to a buffer.
        is_hooked: the context is an array of a function's arguments, of which the kernel's BTF
            tells.
        returns_of_hook: what r0 must be depends on that function.
        missing: what we'd have to have to follow programs of the type, "" if we do.
    """

    name: str
    number: int
    sections: tuple[Section, ...]
    sleepable: Sleepable = Sleepable.NEVER
    fields: tuple[CtxField, ...] | None = None
    ctx_size: int = 0
    internal_size: int = 0
    ctx_limit: int = 0
    ctx_writable: bool = False
    packet: bool = False
    packet_write: bool = False
    packet_args: bool = False
    ctx_start: int = 0
    ld_abs: bool = False
    ret_range: Range | None = None
    ret_ranges: Mapping[int, Range] = field(default_factory=dict, hash=False)
    is_tracing: bool = False
    ctx_memory: bool = False
    rewritten: bool = True
    test_run: bool = False
    tp_buffer: bool = False
    capable_reads: frozenset[str] = frozenset()
    capable_writes: frozenset[str] = frozenset()
    is_hooked: bool = False
    returns_of_hook: bool = False
    missing: str = ""

    def returns(self, attach: int) -> Range | None:
        """Return the range of r0 at the end of programs with the expected attach type *attach*."""
        return self.ret_ranges.get(attach, self.ret_range)

    def ctx_access(self, off: int, size: int, *, write: bool, attach: int = 0) -> CtxAccess | None:
        """Return the rewritten access, or None where it is refused (kernel: is_valid_access and
        convert_ctx_access of the type's verifier ops)."""
        if off < 0 or off % size:
            return None
        if self.fields is None:
            inside = self.ctx_start <= off and off + size <= self.ctx_limit
            if not inside or (write and not self.ctx_writable):
                return None
            kind = CtxKind.TP_BUFFER if self.tp_buffer and off == 0 else CtxKind.SCALAR
            return CtxAccess(kind, off, size) if kind is CtxKind.SCALAR or size == 8 else None
        found = self.field_at(off)
        if found is None or not found.grants(off, size, write=write, attach=attach):
            return None
        at = found.internal_off + off - found.off
        if found.kind is not CtxKind.SCALAR:
            return CtxAccess(found.kind, at, 8)
        return CtxAccess(CtxKind.SCALAR, at, (write and found.write_size) or size)

    def field_at(self, off: int) -> CtxField | None:
        """Return the field that holds byte *off* of the user-visible struct."""
        return ctxfields.at_offset(self.fields or (), off)
