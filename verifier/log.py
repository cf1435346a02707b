"""The log in the kernel's format, written late.

Walking records entries (insn numbers, register values, which are immutable); text is made of them
only when the log is asked for. At level 1 only the current path is kept: when a path ends, the
log goes back to where it forked, as the kernel's does, with the same leftovers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from bpfvm.bits import U64_MAX
from bpfvm.program import MapFacts
from bpfvm.proto import DynptrType, IterType
from verifier import bounds
from verifier.bounds import snum_text, unum_text
from verifier.domain import CNUM
from verifier.state import (
    ADD_CONST,
    Base,
    FuncState,
    Ref,
    RegState,
    RegType,
    Role,
    SlotObject,
    StackSlot,
    VerifierState,
)

__all__ = ["ALL_REGS", "LEVEL1", "LEVEL2", "STATS", "Log", "RegPrinter", "Snapshot"]

LEVEL1, LEVEL2, STATS = 1, 2, 4

#: Every register and stack slot of a frame.
ALL_REGS = (1 << 11) - 1
ALL_SLOTS = -1

#: What is printed of a state: a frame's number, registers, stack slots; numbers of references; and
#: what ends the line.
Snapshot = tuple[
    int,
    tuple[tuple[int, RegState], ...],
    tuple[tuple[int, StackSlot], ...],
    tuple[int, ...],
    str,
]
#: What ends a line about a frame that is a callback's.
_ROLES = {Role.CALLBACK: " cb", Role.ASYNC: " async_cb"}

_PACKET = frozenset({Base.PACKET, Base.PACKET_META})
_OF_MAP = frozenset({Base.MAP_PTR, Base.MAP_VALUE, Base.MAP_KEY})


class RegPrinter:
    """Texts of registers and slots (kernel: print_reg_state), remembered: states repeat.

    *offsets_apart*: a pointer's fixed offset has its own `off=`, as in 6.18; else it is part of
    the constant or the range. *all_precise*: every scalar counts as precise.
    """

    def __init__(
        self, facts: Sequence[MapFacts], *, offsets_apart: bool, all_precise: bool = False
    ) -> None:
        self._facts, self._offsets_apart, self._all_precise = facts, offsets_apart, all_precise
        self._texts: dict[tuple[RegState, int], str] = {}

    def reg(self, reg: RegState, frameno: int) -> str:
        """Return the text of *reg* as seen from frame *frameno*."""
        key = (reg, frameno)
        text = self._texts.get(key)
        if text is None:
            text = self._texts[key] = self._reg(reg, frameno)
        return text

    def _reg(self, reg: RegState, frameno: int) -> str:
        kind, s = reg.type, reg.scalar
        if kind is RegType.SCALAR:
            lead = "P" if reg.precise or self._all_precise else ""
            if not s.mask:
                return lead + snum_text(s.value)
            attrs = self._ids(reg) + bounds.scalar_attrs(s)
            return f"{lead}scalar({','.join(attrs)})"
        if kind is RegType.ARENA:
            return kind.label
        label = kind.label
        if kind.base is Base.BTF_ID:
            label += str(reg.info)
        if kind is RegType.STACK:
            if reg.arg != frameno:
                label += f"[{reg.arg}]"
            if not s.mask:
                return label + snum_text(s.value + reg.off)
        attrs = self._ids(reg)
        if reg.ref and self._offsets_apart:
            attrs.append(f"ref_obj_id={reg.ref}")
        elif kind.base is Base.MEM and isinstance(reg.info, int) and not self._offsets_apart:
            attrs.append(f"parent_id={reg.info}")
        elif reg.ref != reg.id and reg.ref:
            attrs.append(f"parent_id={reg.ref}")
        if kind.base in _OF_MAP:
            defn = self._facts[reg.arg].defn
            attrs += [f"map={defn.name[:15]}"] if defn.name else []
            attrs.append(f"ks={defn.key_size},vs={defn.value_size}")
        if self._offsets_apart and reg.off:
            attrs.append(f"off={snum_text(reg.off)}")
        if kind.base in _PACKET:
            attrs.append(f"r={unum_text(reg.arg & U64_MAX)}")
        if isinstance(reg.info, DynptrType):
            attrs.append(f"type={reg.info.value}")
        if kind.base is Base.MEM:
            attrs.append(f"sz={reg.arg}")
        if not self._offsets_apart and reg.off:
            s = _shifted(s, reg.off)
        if s.mask:
            attrs += bounds.scalar_attrs(s)
        elif s.value:
            attrs.append(f"imm={snum_text(s.value)}")
        return f"{label}({','.join(attrs)})"

    @staticmethod
    def _ids(reg: RegState) -> list[str]:
        if not reg.id:
            return []
        text = f"id={reg.id & ~ADD_CONST}"
        return [f"{text}{reg.off:+d}" if reg.id & ADD_CONST else text]

    def slot(self, spi: int, slot: StackSlot, frameno: int) -> str:
        """Return ` fp-8=...` of slot *spi*, "" where nothing was ever written."""
        types = slot.types
        if slot.spilled is not None and types[-1] == "r":
            return (
                f" fp{-8 * (spi + 1)}={types[: types.index('r')]}{self.reg(slot.spilled, frameno)}"
            )
        if slot.object is not None:
            text = self._object(slot.object)
            return f" fp{-8 * (spi + 1)}={text}" if text else ""
        return "" if types == "????????" else f" fp{-8 * (spi + 1)}={types}"

    def _object(self, part: SlotObject) -> str:
        """Return the text of an object's slot, "" where another slot tells of it."""
        kind = part.type
        if isinstance(kind, IterType):
            if not part.is_first:
                return ""
            state = "active" if part.active else "drained"
            word = "ref_id" if self._offsets_apart else "id"
            return f"iter_{kind.name}({word}={part.ref},state={state},depth={part.depth})"
        if isinstance(kind, DynptrType):
            if not part.is_first:
                return ""
            attrs = [f"id={part.id}"]
            if part.ref:
                attrs.append(f"{'ref_id' if self._offsets_apart else 'parent_id'}={part.ref}")
            return f"dynptr_{kind.value}({','.join(attrs)})"
        return "ffffffff"

    def snapshot(self, snap: Snapshot) -> str:
        """Return one state line without its line end (kernel: print_verifier_state)."""
        frameno, regs, slots, refs, tail = snap
        parts = [f" frame{frameno}:"] if frameno else []
        parts += [f" R{i}={self.reg(reg, frameno)}" for i, reg in regs]
        parts += [self.slot(spi, slot, frameno) for spi, slot in slots]
        if refs and refs[0]:
            parts.append(" refs=" + ",".join(str(ref) for ref in refs if ref))
        return "".join([*parts, tail])


def _shifted(s: bounds.Scalar, off: int) -> bounds.Scalar:
    """Return where a pointer leads with its fixed part, as kernels have it that keep no such part
    (from 7.3 on, with circular ranges)."""
    if not s.mask:
        return bounds.const(s.value + off)
    return CNUM.sync(CNUM.add_ptr(s, bounds.const(off)))


def take(
    frame: FuncState,
    regs: int = ALL_REGS,
    slots: int = ALL_SLOTS,
    refs: Sequence[Ref] = (),
) -> Snapshot:
    """Return what is now in the registers and slots whose bits are set, for later printing; and
    the numbers of *refs*."""
    values = frame.regs
    return (
        frame.frameno,
        tuple(
            (i, values[i])
            for i in range(11)
            if regs >> i & 1 and values[i].type is not RegType.NOT_INIT
        ),
        tuple(sorted((i, slot) for i, slot in frame.stack.items() if slots >> i & 1))
        if slots and frame.stack
        else (),
        tuple(ref.id for ref in refs),
        _ROLES.get(frame.role, ""),
    )


class _Mark:
    """Entries that are not plain lines; one instance each, told apart by identity."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


_APPEND = _Mark("state after the insn's text")
_OVERWRITTEN = _Mark("line end overwritten")
_Entry = str | int | _Mark | tuple[_Mark, Snapshot] | tuple[str, Snapshot]


class Log:
    """Entries of the log so far. An int is an insn's line, a str a line or more as it is.

    Attributes:
        level: bits LEVEL1, LEVEL2, STATS.
        on: whether insns and states are recorded.
    """

    def __init__(self, level: int, printer: RegPrinter, insn_text: Callable[[int], str]) -> None:
        self.level = level
        self.on = bool(level & (LEVEL1 | LEVEL2))
        self.verbose = bool(level & LEVEL2)
        self.printer = printer
        self._insn_text = insn_text
        self._entries: list[_Entry] = []
        self._after_insn = -1  # where the log ended after the last insn's text
        #: Gives the references that the current path holds.
        self.refs: Callable[[], Sequence[Ref]] = tuple
        #: Registers and slots of the current frame touched since the last print.
        self.regs = self.slots = 0

    def __len__(self) -> int:
        return len(self._entries)

    def touch_all(self) -> None:
        """Mark everything as touched."""
        self.regs, self.slots = ALL_REGS, ALL_SLOTS

    def line(self, text: str) -> None:
        """Add *text* and a line end."""
        if self.level:
            self._entries.append(text + "\n")

    def insn(self, idx: int, regs: int) -> None:
        """Add insn *idx*; *regs* are the registers that it touches."""
        self._entries.append(idx)
        self._after_insn = len(self._entries)
        self.regs |= regs

    def state(self, idx: int, frame: FuncState) -> None:
        """Print what was touched (kernel: print_insn_state)."""
        if not (self.regs or self.slots):
            return
        snap = take(frame, self.regs, self.slots, self.refs())
        if self._after_insn == len(self._entries):
            self._entries.append((_APPEND, snap))
        else:
            self._entries.append((f"{idx}:", snap))
        self.regs = self.slots = 0

    def full_state(self, lead: str, frame: FuncState, state: VerifierState | None = None) -> None:
        """Print *lead*, everything in *frame* and the references of *state*, which is the current
        path's where it is not said."""
        refs = self.refs() if state is None else state.refs
        self._entries.append((lead, take(frame, refs=refs)))

    def truncate(self, length: int) -> None:
        """Go back to where the log had *length* entries (kernel: bpf_vlog_reset).

        A state that was appended to the last kept line has put a blank over its line end.
        """
        if len(self._entries) <= length:
            return
        cut = self._entries[length]
        del self._entries[length:]
        if isinstance(cut, tuple) and cut[0] is _APPEND:
            self._entries.append(_OVERWRITTEN)
        if self._after_insn > length:
            self._after_insn = -1

    def text(self) -> str:
        """Return the log."""
        out: list[str] = []
        for entry in self._entries:
            if isinstance(entry, int):
                out.append(f"{entry}: {self._insn_text(entry)}\n")
            elif isinstance(entry, str):
                out.append(entry)
            elif isinstance(entry, _Mark):
                out[-1] = out[-1][:-1] + " "
            else:
                lead, snap = entry
                text = self.printer.snapshot(snap)
                if isinstance(lead, str):
                    out.append(f"{lead}{text}\n")
                else:
                    before = out[-1][:-1]
                    out[-1] = f"{before.ljust(_column(len(before)))};{text}\n"
        return "".join(out)


def _column(length: int) -> int:
    """Return the column of the `;` after an insn's text (kernel: vlog_alignment)."""
    return -(-max(length + 5, 40) // 8) * 8 - 2


def live_table(live: Iterable[int], scc: Sequence[int], insn_text: Callable[[int], str]) -> str:
    """Return LEVEL2's table of live registers; an insn's second slot has a negative mask."""
    lines = ["Live regs before insn:"]
    for idx, mask in enumerate(live):
        if mask < 0:
            continue
        comp = f"{scc[idx]:3d} " if scc[idx] else "    "
        regs = "".join(str(r) if mask >> r & 1 else "." for r in range(10))
        lines.append(f"{comp}{idx:3d}: {regs} {insn_text(idx)}")
    return "\n".join(lines) + "\n"
