"""Loads, stores and atomics: what is emitted for one access, and the guards in front of it.

A `Guard` decides whether an access happens. `Proven` trusts the verifier, `PresenceCheck` asks
the arena's presence bytes, `Checked` (sandbox) the region table. A guard takes the whole access,
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
from bpfvm.runtime import ARENA_GUARD
from jit.state import REGION_WORDS, ArenaSite, Trap, Word
from jit.text import FunctionText

__all__ = ["Access", "Checked", "Guard", "PresenceCheck", "Proven", "sandbox_functions"]

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
    """One memory insn with its operands as LLVM values (i64).

    Attributes:
        pc, row: the insn.
        base: the address register's value.
        off: the insn's offset.
        value: what is stored or combined; None for loads.
        expected: what cmpxchg compares with, r0.
        result: what the result register holds before: None where the insn has no result.
        pointer: the address as an LLVM pointer, where it is known better than base + off.
    """

    pc: int
    row: InsnDef
    base: str
    off: int
    value: str | None = None
    expected: str | None = None
    result: str | None = None
    pointer: str | None = None

    @property
    def is_write(self) -> bool:
        """Whether a refusal counts as a write: all but loads and load-acquire."""
        return self.row.kind not in (Kind.LDX, Kind.LOAD_ACQ)


class Guard(Protocol):
    """A way to make an access safe."""

    def access(self, fn: FunctionText, access: Access) -> str | None:
        """Write *access*; return its result (i64), None where it has none."""
        ...


def _narrow(fn: FunctionText, value: str | None, bits: int) -> str:
    if value is None:
        raise InternalError("an access lacks an operand")
    return value if bits == 64 else fn.value(f"trunc i64 {value} to i{bits}")


def _widen(fn: FunctionText, value: str, bits: int, *, signed: bool = False) -> str:
    if bits == 64:
        return value
    return fn.value(f"{'sext' if signed else 'zext'} i{bits} {value} to i64")


def _emit_access(fn: FunctionText, access: Access, pointer: str, *, volatile: bool) -> str | None:
    """Write the access itself; return its result as the register gets it."""
    row = access.row
    bits = row.size * 8
    vol = " volatile" if volatile else ""
    at = f"ptr {pointer}"
    match row.kind:
        case Kind.LDX:
            got = fn.value(f"load{vol} i{bits}, {at}, align 1")
            return _widen(fn, got, bits, signed=bool(row.sx))
        case Kind.LOAD_ACQ:
            got = fn.value(f"load atomic{vol} i{bits}, {at} acquire, align {row.size}")
            return _widen(fn, got, bits)
        case Kind.ST | Kind.STX:
            fn.do(f"store{vol} i{bits} {_narrow(fn, access.value, bits)}, {at}, align 1")
            return None
        case Kind.STORE_REL:
            value = _narrow(fn, access.value, bits)
            fn.do(f"store atomic{vol} i{bits} {value}, {at} release, align {row.size}")
            return None
        case Kind.ATOMIC:
            return _emit_atomic(fn, access, at, vol)
        case _:
            raise InternalError(f"{row.mnemonic} is no memory access")


def _emit_atomic(fn: FunctionText, access: Access, at: str, vol: str) -> str | None:
    row = access.row
    bits = row.size * 8
    value = _narrow(fn, access.value, bits)
    if row.op is AtomicOp.CMPXCHG:
        expected = _narrow(fn, access.expected, bits)
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
    return _widen(fn, old, bits) if row.fetch else None


def _address_of(fn: FunctionText, access: Access) -> str:
    """Return base + off, wrapping."""
    return fn.value(f"add i64 {access.base}, {access.off}") if access.off else access.base


@dataclass(frozen=True, slots=True)
class Proven:
    """The verifier has proven the access; *volatile* where others may see or change the bytes."""

    volatile: bool

    def access(self, fn: FunctionText, access: Access) -> str | None:
        """Write *access* without any check."""
        if access.pointer is not None:
            return _emit_access(fn, access, access.pointer, volatile=False)
        pointer = fn.pointer(_address_of(fn, access))
        return _emit_access(fn, access, pointer, volatile=self.volatile)


def _absent_result(fn: FunctionText, access: Access) -> str | None:
    """Return what the result register gets from an absent page (arena.md 4.4)."""
    if access.result is None:
        return None
    if access.row.kind is Kind.LDX:
        return "0"
    clear = fn.value(f"icmp ne i64 {fn.constant(Word.CLEAR)}, 0")
    return fn.value(f"select i1 {clear}, i64 0, i64 {access.result}")


def _or_absent(
    fn: FunctionText, access: Access, go: str, absent: str, pointer: Callable[[], str]
) -> str | None:
    """Write block *go* with the access and block *absent* without it, and join them."""
    done = fn.name("done")
    fn.label(go)
    result = _emit_access(fn, access, pointer(), volatile=True)
    went = fn.block
    fn.goto(done)
    fn.label(absent)
    nothing = _absent_result(fn, access)
    fn.goto(done)
    fn.label(done)
    if result is None:
        return None
    return fn.value(f"phi i64 [ {result}, %{went} ], [ {nothing}, %{absent} ]")


class PresenceCheck:
    """Arena accesses where no trap can be taken: the byte of the first and of the last page must
    be nonzero, or else Python is asked (`ArenaMemory.is_present`), which reports the fault."""

    def access(self, fn: FunctionText, access: Access) -> str | None:
        """Write *access* behind a look at the presence bytes."""
        size = access.row.size
        low = fn.value(f"and i64 {access.base}, {(1 << 32) - 1}")
        offset = fn.value(f"add i64 {low}, {access.off}") if access.off else low
        go, slow, absent = fn.name("present"), fn.name("slow"), fn.name("absent")
        fn.branch(_is_present(fn, offset, size), go, slow, expect=True)
        fn.label(slow)
        fn.put(Word.ARG, access.base)
        site = ArenaSite(access.pc, access.off, size, access.is_write)
        answer = fn.call_out(site)
        fn.branch(fn.value(f"icmp ne i64 {answer}, 0"), go, absent)
        base = fn.constant(Word.KERN)
        return _or_absent(
            fn, access, go, absent, lambda: fn.pointer(fn.value(f"add i64 {base}, {offset}"))
        )


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


class Checked:
    """Sandbox: exact bounds of the regions, and the arena's rules in its kernel view."""

    def access(self, fn: FunctionText, access: Access) -> str | None:
        """Write *access* behind a call of @access."""
        address = _address_of(fn, access)
        size, write = access.row.size, access.is_write
        fn.put(Word.FRAME, "%frame")
        site = ArenaSite(access.pc, access.off, size, write, is_address=True)
        verdict = fn.value(
            f"call i64 @access(ptr %s, i64 {address}, i64 {size}, i64 {int(write)},"
            f" i64 {fn.tables.site(site)})"
        )
        go, refused, absent = fn.name("go"), fn.name("refused"), fn.name("absent")
        fn.do(
            f"switch i64 {verdict}, label %stop"
            f" [ i64 1, label %{go} i64 0, label %{refused} i64 2, label %{absent} ]"
        )
        fn.label(refused)
        fn.stop_at(Trap(access.pc, size=size, write=write), address)
        return _or_absent(fn, access, go, absent, lambda: fn.pointer(address))


#: @access(state, address, size, write, site) -> 0 refused, 1 go on, 2 absent, 3 stopped.
#: Rows of the region table are sorted by base; the row that matched last is tried first.
_IN_REGIONS = f"""
define internal i1 @allows(ptr %row, i64 %address, i64 %size, i64 %write) alwaysinline nounwind {{
  %base = load i64, ptr %row
  %size.at = getelementptr i64, ptr %row, i64 1
  %limit = load i64, ptr %size.at
  %at = sub i64 %address, %base
  %starts = icmp ult i64 %at, %limit
  %end = add i64 %at, %size
  %ends = icmp ule i64 %end, %limit
  %inside = and i1 %starts, %ends
  %writable.at = getelementptr i64, ptr %row, i64 2
  %writable = load i64, ptr %writable.at
  %permitted = icmp uge i64 %writable, %write
  %plain = and i1 %inside, %permitted
  %stride.at = getelementptr i64, ptr %row, i64 3
  %stride = load i64, ptr %stride.at
  %strided = icmp ne i64 %stride, 0
  br i1 %strided, label %element, label %done
element:
  %within = urem i64 %at, %stride
  %element.end = add i64 %within, %size
  %elem_size.at = getelementptr i64, ptr %row, i64 4
  %elem_size = load i64, ptr %elem_size.at
  %fits = icmp ule i64 %element.end, %elem_size
  %both = and i1 %plain, %fits
  ret i1 %both
done:
  ret i1 %plain
}}

define internal i64 @region(ptr %s, i64 %address, i64 %size, i64 %write) noinline nounwind {{
entry:
  %hint.at = getelementptr i64, ptr %s, i64 {int(Word.REGION_HINT)}
  %hint = load ptr, ptr %hint.at
  %again = call i1 @allows(ptr %hint, i64 %address, i64 %size, i64 %write)
  br i1 %again, label %yes, label %find
find:
  %table.at = getelementptr i64, ptr %s, i64 {int(Word.REGIONS)}
  %table = load ptr, ptr %table.at
  %count.at = getelementptr i64, ptr %s, i64 {int(Word.REGION_COUNT)}
  %count = load i64, ptr %count.at
  br label %next
next:
  %low = phi i64 [ 0, %find ], [ %low.1, %split ]
  %high = phi i64 [ %count, %find ], [ %high.1, %split ]
  %open = icmp ult i64 %low, %high
  br i1 %open, label %split, label %found
split:
  %sum = add i64 %low, %high
  %middle = lshr i64 %sum, 1
  %index = mul i64 %middle, {REGION_WORDS}
  %row = getelementptr i64, ptr %table, i64 %index
  %base = load i64, ptr %row
  %below = icmp ule i64 %base, %address
  %middle.1 = add i64 %middle, 1
  %low.1 = select i1 %below, i64 %middle.1, i64 %low
  %high.1 = select i1 %below, i64 %high, i64 %middle
  br label %next
found:
  %none = icmp eq i64 %low, 0
  br i1 %none, label %no, label %try
try:
  %last = sub i64 %low, 1
  %last.index = mul i64 %last, {REGION_WORDS}
  %candidate = getelementptr i64, ptr %table, i64 %last.index
  %allowed = call i1 @allows(ptr %candidate, i64 %address, i64 %size, i64 %write)
  br i1 %allowed, label %keep, label %no
keep:
  store ptr %candidate, ptr %hint.at
  br label %yes
yes:
  ret i64 1
no:
  ret i64 0
}}
"""

_NO_ARENA = """
define internal i64 @access(ptr %s, i64 %address, i64 %size, i64 %write, i64 %site) nounwind {
  %found = call i64 @region(ptr %s, i64 %address, i64 %size, i64 %write)
  ret i64 %found
}
"""

_WITH_ARENA = f"""
define internal i64 @access(ptr %s, i64 %address, i64 %size, i64 %write, i64 %site) nounwind {{
entry:
  %kern.at = getelementptr i64, ptr %s, i64 {int(Word.KERN)}
  %kern = load i64, ptr %kern.at
  %offset = sub i64 %address, %kern
  %above = add i64 %offset, {ARENA_GUARD}
  %inside = icmp ult i64 %above, {(1 << 32) + 2 * ARENA_GUARD}
  br i1 %inside, label %arena, label %outside
outside:
  %found = call i64 @region(ptr %s, i64 %address, i64 %size, i64 %write)
  ret i64 %found
arena:
  %presence.at = getelementptr i64, ptr %s, i64 {int(Word.PRESENCE)}
  %presence = load ptr, ptr %presence.at
  %first.page = ashr i64 %offset, 12
  %first.at = getelementptr i8, ptr %presence, i64 %first.page
  %first = load volatile i8, ptr %first.at
  %first.there = icmp ne i8 %first, 0
  %end = add i64 %offset, %size
  %last.offset = sub i64 %end, 1
  %last.page = ashr i64 %last.offset, 12
  %last.at = getelementptr i8, ptr %presence, i64 %last.page
  %last = load volatile i8, ptr %last.at
  %last.there = icmp ne i8 %last, 0
  %there = and i1 %first.there, %last.there
  br i1 %there, label %go, label %ask
ask:
  %arg.at = getelementptr i64, ptr %s, i64 {int(Word.ARG)}
  store i64 %address, ptr %arg.at
  %answer = call i64 @call_out(ptr %s, i64 %site)
  %stop.at = getelementptr i64, ptr %s, i64 {int(Word.STOP)}
  %stop = load i64, ptr %stop.at
  %stopped = icmp ne i64 %stop, 0
  br i1 %stopped, label %stopping, label %answered
answered:
  %present = icmp ne i64 %answer, 0
  %result = select i1 %present, i64 1, i64 2
  ret i64 %result
stopping:
  ret i64 3
go:
  ret i64 1
}}
"""


def sandbox_functions(*, arena: bool) -> str:
    """Return the functions that `Checked` calls."""
    return _IN_REGIONS + (_WITH_ARENA if arena else _NO_ARENA)
