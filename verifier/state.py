"""What the walk knows at one point of one path: registers, stack, frames.

`RegState` and `StackSlot` are immutable and shared freely between states; copying a state copies
lists of references only. Mutation happens in `FuncState` and `VerifierState` alone.
"""

from __future__ import annotations

from enum import Enum, unique
from typing import NamedTuple

from verifier.bounds import UNKNOWN, ZERO, Scalar, const

__all__ = [
    "ADD_CONST",
    "FP_REG",
    "NOT_INIT_REG",
    "UNKNOWN_REG",
    "ZERO_REG",
    "FuncState",
    "History",
    "RegState",
    "RegType",
    "StackSlot",
    "VerifierState",
    "const_reg",
    "scalar_reg",
]

#: r10's index.
FP_REG = 10
#: Bit of a scalar's id: the register is its class's value plus `off` (kernel: BPF_ADD_CONST).
ADD_CONST = 1 << 31
#: Markers in a packet pointer's `arg`, in place of a proven range.
AT_PKT_END = -2
BEYOND_PKT_END = -1


@unique
class RegType(Enum):
    """What a register holds: (name in the log, may be null, may move by pointer arithmetic)."""

    NOT_INIT = ("?", False, False)
    SCALAR = ("scalar", False, False)
    CTX = ("ctx", False, True)
    MAP_PTR = ("map_ptr", False, False)
    MAP_VALUE = ("map_value", False, True)
    MAP_VALUE_OR_NULL = ("map_value_or_null", True, False)
    STACK = ("fp", False, True)
    PACKET = ("pkt", False, True)
    PACKET_META = ("pkt_meta", False, True)
    PACKET_END = ("pkt_end", False, False)
    MEM = ("mem", False, True)
    ARENA = ("arena", False, False)

    def __init__(self, label: str, may_be_null: bool, may_move: bool) -> None:
        self.label, self.may_be_null, self.may_move = label, may_be_null, may_move


class RegState(NamedTuple):
    """One register.

    Attributes:
        type: see `RegType`.
        scalar: a scalar's value; a pointer's variable offset.
        off: a pointer's fixed offset; of a linked scalar (id has `ADD_CONST`) its distance.
        id: equality class of scalars, null-check class of maybe-null pointers, variable base of
            packet pointers; 0 for none.
        arg: map index (map_ptr, map_value), frame number (fp), proven bytes or an end marker
            (pkt, pkt_meta), bytes of memory (mem); else 0.
        precise: pruning may not treat a different scalar as equal.
    """

    type: RegType
    scalar: Scalar = ZERO
    off: int = 0
    id: int = 0
    arg: int = 0
    precise: bool = False


NOT_INIT_REG = RegState(RegType.NOT_INIT)
UNKNOWN_REG = RegState(RegType.SCALAR, UNKNOWN)
ZERO_REG = RegState(RegType.SCALAR, ZERO)

_SCALAR = RegType.SCALAR


def scalar_reg(scalar: Scalar) -> RegState:
    """Return a register that holds *scalar*, related to no other."""
    return RegState(_SCALAR, scalar)


def const_reg(value: int) -> RegState:
    """Return a register that holds *value* (mod 2**64)."""
    return RegState(_SCALAR, const(value))


class StackSlot(NamedTuple):
    """Eight bytes of stack.

    Attributes:
        types: one character per byte, the byte nearest to the frame pointer first:
            `?` never written, `m` some data, `0` zero, `r` part of a spilled register.
        spilled: the register of the `r` bytes, which run from the slot's lowest address.
    """

    types: str
    spilled: RegState | None = None


EMPTY_TYPES = "????????"
SPILL_TYPES = "rrrrrrrr"


class FuncState:
    """One call frame. `stack[i]` are the bytes [fp - 8*(i+1), fp - 8*i); absent: never written."""

    __slots__ = ("callsite", "frameno", "regs", "stack", "subprog")

    def __init__(
        self,
        frameno: int,
        subprog: int,
        callsite: int,
        regs: list[RegState],
        stack: dict[int, StackSlot],
    ) -> None:
        self.frameno, self.subprog, self.callsite = frameno, subprog, callsite
        self.regs, self.stack = regs, stack

    def copy(self) -> FuncState:
        """Return a frame that can be changed on its own."""
        return FuncState(
            self.frameno, self.subprog, self.callsite, self.regs.copy(), self.stack.copy()
        )


#: Executed insns since a state was saved, newest first: (older, insn, stack access or None,
#: linked registers or None). A stack access is (frameno, slot); a linked register is
#: (frameno, is a register, index).
StackAccess = tuple[int, int]
LinkedReg = tuple[int, bool, int]
History = tuple["History | None", int, StackAccess | None, tuple[LinkedReg, ...]]


class VerifierState:
    """One path's knowledge before `insn_idx`.

    Attributes:
        frames: innermost last.
        parent: the saved state this path came through last.
        branches: (saved states) paths below it that are not finished.
        history: insns since *parent*; see `History`.
        history_len: entries of it that the kernel would record too (for its heuristics).
        first_insn, last_insn: insn of *parent*, and the insn executed before this state.
        may_goto_depth: may_gotos passed through on this path.
        sleepable: the context can sleep.
    """

    __slots__ = (
        "branches",
        "first_insn",
        "frames",
        "history",
        "history_len",
        "hit_cnt",
        "insn_idx",
        "last_insn",
        "may_goto_depth",
        "miss_cnt",
        "parent",
        "sleepable",
    )

    def __init__(self, frames: list[FuncState], *, sleepable: bool) -> None:
        self.frames = frames
        self.sleepable = sleepable
        self.parent: VerifierState | None = None
        self.branches = 0
        self.history: History | None = None
        self.history_len = 0
        self.insn_idx = 0
        self.first_insn = 0
        self.last_insn = -1
        self.may_goto_depth = 0
        self.hit_cnt = 0
        self.miss_cnt = 0

    def copy(self) -> VerifierState:
        """Return a state that can be changed on its own."""
        new = VerifierState([f.copy() for f in self.frames], sleepable=self.sleepable)
        new.parent = self.parent
        new.history = self.history
        new.history_len = self.history_len
        new.insn_idx = self.insn_idx
        new.first_insn = self.first_insn
        new.last_insn = self.last_insn
        new.may_goto_depth = self.may_goto_depth
        return new

    @property
    def callsites(self) -> tuple[int, ...]:
        """The call insns of the open frames, outermost first."""
        return tuple(f.callsite for f in self.frames)

    def frame_insn(self, frameno: int) -> int:
        """Return the insn where frame *frameno* stands: the current one, or its open call."""
        if frameno == len(self.frames) - 1:
            return self.insn_idx
        return self.frames[frameno + 1].callsite
