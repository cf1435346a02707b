"""Loads, stores and atomics: what is emitted for one access, and the guards in front of it.

A `Guard` decides whether an access happens. `Proven` trusts the verifier, `PresenceCheck` asks
the arena's presence bytes, `jit.sandbox.Checked` the region table. A guard takes the whole access,
not just its address, so that a strategy whose check is the access itself can be another guard.

Addresses are opaque integers, so LLVM knows nothing of what they may alias; plain accesses have
`align 1`. Atomics have natural alignment, or LLVM would make library calls of them: x86-64
executes them at any address, and no pass draws conclusions about an opaque address from it.
Memory that others may change while the program runs is accessed by volatile instructions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from bpfvm.errors import InternalError
from bpfvm.isa import AtomicOp, InsnDef, Kind
from jit.state import ArenaSite, Word
from jit.text import FunctionText

__all__ = [
    "ASK",
    "Access",
    "Guard",
    "PresenceCheck",
    "Proven",
    "address_of",
    "emit_access",
    "or_absent",
]

_ATOMIC: dict[AtomicOp, str] = {
    AtomicOp.ADD: "add",
    AtomicOp.OR: "or",
    AtomicOp.AND: "and",
    AtomicOp.XOR: "xor",
    AtomicOp.XCHG: "xchg",
}
assert set(_ATOMIC) | {AtomicOp.CMPXCHG} == set(AtomicOp)


@dataclass(frozen=True, slots=True)
class Access:
    """One memory insn. Operands are read (an i64) in the block where they are wanted.

    Attributes:
        pc, row, off: the insn.
        base: reads the address register.
        value: reads what is stored or combined.
        expected: reads what cmpxchg compares with, r0.
        result: writes the result register; None where the insn has no result.
        pointer: gives the address as an LLVM pointer, where it is known better than base + off.
    """

    pc: int
    row: InsnDef
    off: int
    base: Callable[[], str]
    value: Callable[[], str]
    expected: Callable[[], str]
    result: Callable[[str], None] | None
    pointer: Callable[[], str] | None = None

    @property
    def is_write(self) -> bool:
        """Whether a refusal counts as a write: all but loads and load-acquire."""
        return self.row.kind not in (Kind.LDX, Kind.LOAD_ACQ)

    def done(self, value: str) -> None:
        """Write the result register, if there is one."""
        if self.result is not None:
            self.result(value)


class Guard(Protocol):
    """A way to make an access safe."""

    def access(self, fn: FunctionText, access: Access) -> None:
        """Write *access*."""
        ...


def _narrow(fn: FunctionText, value: str, bits: int) -> str:
    return value if bits == 64 else fn.value(f"trunc i64 {value} to i{bits}")


def _widen(fn: FunctionText, value: str, bits: int, *, signed: bool = False) -> str:
    if bits == 64:
        return value
    return fn.value(f"{'sext' if signed else 'zext'} i{bits} {value} to i64")


def emit_access(fn: FunctionText, access: Access, pointer: str, *, volatile: bool) -> None:
    """Write the access itself, and its result."""
    row = access.row
    bits = row.size * 8
    vol = " volatile" if volatile else ""
    at = f"ptr {pointer}"
    match row.kind:
        case Kind.LDX:
            got = fn.value(f"load{vol} i{bits}, {at}, align 1")
            access.done(_widen(fn, got, bits, signed=bool(row.sx)))
        case Kind.LOAD_ACQ:
            got = fn.value(f"load atomic{vol} i{bits}, {at} acquire, align {row.size}")
            access.done(_widen(fn, got, bits))
        case Kind.ST | Kind.STX:
            fn.do(f"store{vol} i{bits} {_narrow(fn, access.value(), bits)}, {at}, align 1")
        case Kind.STORE_REL:
            value = _narrow(fn, access.value(), bits)
            fn.do(f"store atomic{vol} i{bits} {value}, {at} release, align {row.size}")
        case Kind.ATOMIC:
            _emit_atomic(fn, access, at, vol)
        case _:
            raise InternalError(f"{row.mnemonic} is no memory access")


def _emit_atomic(fn: FunctionText, access: Access, at: str, vol: str) -> None:
    row = access.row
    bits = row.size * 8
    value = _narrow(fn, access.value(), bits)
    if row.op is AtomicOp.CMPXCHG:
        expected = _narrow(fn, access.expected(), bits)
        pair = fn.value(
            f"cmpxchg{vol} {at}, i{bits} {expected}, i{bits} {value} seq_cst seq_cst,"
            f" align {row.size}"
        )
        old = fn.value(f"extractvalue {{ i{bits}, i1 }} {pair}, 0")
    elif isinstance(row.op, AtomicOp):
        name = _ATOMIC[row.op]
        old = fn.value(f"atomicrmw{vol} {name} {at}, i{bits} {value} seq_cst, align {row.size}")
    else:
        raise InternalError(f"{row.mnemonic} is no atomic")
    if row.fetch:
        access.done(_widen(fn, old, bits))


def address_of(fn: FunctionText, access: Access) -> str:
    """Return base + off, wrapping."""
    return fn.value(f"add i64 {access.base()}, {access.off}") if access.off else access.base()


@dataclass(frozen=True, slots=True)
class Proven:
    """The verifier has proven the access; *volatile* where others may see or change the bytes."""

    volatile: bool

    def access(self, fn: FunctionText, access: Access) -> None:
        """Write *access* without any check."""
        if access.pointer is not None:
            emit_access(fn, access, access.pointer(), volatile=False)
        else:
            pointer = fn.pointer(address_of(fn, access))
            emit_access(fn, access, pointer, volatile=self.volatile)


def or_absent(
    fn: FunctionText, access: Access, go: str, absent: str, address: Callable[[], str]
) -> None:
    """Write block *go* with the access and block *absent* without it (arena.md 4.4); join them."""
    done = fn.name("done")
    fn.label(go)
    emit_access(fn, access, fn.pointer(address()), volatile=True)
    fn.goto(done)
    fn.label(absent)
    if access.row.kind is Kind.LDX or access.result is None:
        access.done("0")
        fn.goto(done)
    else:
        clear = fn.name("clear")
        fn.branch(fn.value(f"icmp ne i64 {fn.get(Word.CLEAR)}, 0"), clear, done)
        fn.label(clear)
        access.done("0")
        fn.goto(done)
    fn.label(done)


#: @ask(state, frame, address register, site) -> 0: the run has been stopped, 1: go on, 2: absent.
ASK = f"""
define internal i64 @ask(ptr %s, i64 %frame, i64 %address, i64 %site) noinline nounwind {{
  %arg.at = getelementptr i64, ptr %s, i64 {int(Word.ARG)}
  store i64 %address, ptr %arg.at
  call void @call_out(ptr %s, i64 %frame, i64 %site)
  %stop = load i64, ptr %s
  %stopped = icmp ne i64 %stop, 0
  %answer.at = getelementptr i64, ptr %s, i64 {int(Word.RESULT)}
  %answer = load i64, ptr %answer.at
  %present = icmp ne i64 %answer, 0
  %result = select i1 %present, i64 1, i64 2
  %verdict = select i1 %stopped, i64 0, i64 %result
  ret i64 %verdict
}}
"""


class PresenceCheck:
    """Arena accesses where no trap can be taken: the byte of the first and of the last page must
    be nonzero, or else Python is asked (`ArenaMemory.is_present`), which reports the fault."""

    def access(self, fn: FunctionText, access: Access) -> None:
        """Write *access* behind a look at the presence bytes."""
        size = access.row.size

        def offset() -> str:
            low = fn.value(f"and i64 {access.base()}, {(1 << 32) - 1}")
            return fn.value(f"add i64 {low}, {access.off}") if access.off else low

        go, slow, absent = fn.name("present"), fn.name("slow"), fn.name("absent")
        fn.branch(_is_present(fn, offset(), size), go, slow, expect=True)
        fn.label(slow)
        site = fn.tables.site(ArenaSite(access.pc, access.off, size, access.is_write))
        verdict = fn.value(f"call i64 @ask(ptr %s, i64 %frame, i64 {access.base()}, i64 {site})")
        fn.do(f"switch i64 {verdict}, label %stop [ i64 1, label %{go} i64 2, label %{absent} ]")
        base = fn.constant(Word.KERN)
        or_absent(fn, access, go, absent, lambda: fn.value(f"add i64 {base}, {offset()}"))


def _is_present(fn: FunctionText, offset: str, size: int) -> str:
    """Return an i1: the presence bytes of the pages that [offset, offset + size) touches.

    The guards have zero bytes of their own, so no offset that an insn can form needs a bound.
    """

    def byte(at: str) -> str:
        page = fn.value(f"ashr i64 {at}, 12")
        table = fn.pointer(fn.constant(Word.PRESENCE))
        where = fn.value(f"getelementptr i8, ptr {table}, i64 {page}")
        got = fn.value(f"load volatile i8, ptr {where}")
        return fn.value(f"icmp ne i8 {got}, 0")

    first = byte(offset)
    if size == 1:
        return first
    last = byte(fn.value(f"add i64 {offset}, {size - 1}"))
    return fn.value(f"and i1 {first}, {last}")
