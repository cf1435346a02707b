"""The sandbox's guard: every access against the region table and the arena's rules.

The check is one function of the compiled program, `@access`, written here as text. The region
table is a copy of the address space's regions, sorted by base; the row that matched last is tried
first.
"""

from __future__ import annotations

from dataclasses import dataclass

from bpfvm.runtime import ARENA_GUARD
from jit.mem import Access, address_of, emit_access, or_absent
from jit.state import REGION_WORDS, ArenaSite, Trap, Word
from jit.text import FunctionText

__all__ = ["Checked", "sandbox_functions"]


@dataclass(frozen=True, slots=True)
class Checked:
    """Exact bounds of the regions; in the kernel view of an *arena*, its rules."""

    arena: bool

    def access(self, fn: FunctionText, access: Access) -> None:
        """Write *access* behind a call of @access."""
        address = address_of(fn, access)
        size, write = access.row.size, access.is_write
        site = 0
        if self.arena:
            asks = ArenaSite(access.pc, access.off, size, write, is_address=True)
            site = fn.tables.site(asks)
        trap = fn.tables.trap(Trap(access.pc, size=size, write=write))
        verdict = fn.value(
            f"call i64 @access(ptr %s, i64 %frame, i64 {address}, i64 {size << 1 | write},"
            f" i64 {site}, i64 {trap})"
        )
        go = fn.name("go")
        if not self.arena:
            fn.branch(fn.value(f"icmp ne i64 {verdict}, 0"), go, "stop", expect=True)
            fn.label(go)
            emit_access(fn, access, fn.pointer(address_of(fn, access)), volatile=True)
            return
        absent = fn.name("absent")
        fn.do(f"switch i64 {verdict}, label %stop [ i64 1, label %{go} i64 2, label %{absent} ]")
        or_absent(fn, access, go, absent, lambda: address_of(fn, access))


_IN_REGIONS = f"""
define internal i1 @allows(ptr %row, i64 %address, i64 %size, i64 %write) nounwind {{
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

#: @access(state, frame, address, size << 1 | write, site, trap) -> 0: the run has been stopped,
#: 1: go on, 2: a page of the arena is absent.
_ACCESS = """
define internal i64 @access(ptr %s, i64 %frame, i64 %address, i64 %kind, i64 %site,
                           i64 %trap) noinline nounwind {
  %size = lshr i64 %kind, 1
  %write = and i64 %kind, 1
"""
_ARENA_FIRST = f"""\
  %kern.at = getelementptr i64, ptr %s, i64 {int(Word.KERN)}
  %kern = load i64, ptr %kern.at
  %offset = sub i64 %address, %kern
  %above = add i64 %offset, {ARENA_GUARD}
  %inside = icmp ult i64 %above, {(1 << 32) + 2 * ARENA_GUARD}
  br i1 %inside, label %arena, label %outside
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
  %verdict = call i64 @ask(ptr %s, i64 %frame, i64 %address, i64 %site)
  ret i64 %verdict
"""
_THEN_REGIONS = f"""\
outside:
  %found = call i64 @region(ptr %s, i64 %address, i64 %size, i64 %write)
  %allowed = icmp ne i64 %found, 0
  br i1 %allowed, label %go, label %refused
refused:
  %address.at = getelementptr i64, ptr %s, i64 {int(Word.ADDR)}
  store i64 %address, ptr %address.at
  store i64 %trap, ptr %s
  br label %stopping
stopping:
  ret i64 0
go:
  ret i64 1
}}
"""


def sandbox_functions(*, arena: bool) -> str:
    """Return the functions that `Checked` calls."""
    first = _ARENA_FIRST if arena else "  br label %outside\n"
    return _IN_REGIONS + _ACCESS + first + _THEN_REGIONS
