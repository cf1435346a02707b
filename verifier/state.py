"""What the walk knows at one point of one path: registers, stack, frames.

`RegState` and `StackSlot` are immutable and shared freely between states; copying a state copies
lists of references only. Mutation happens in `FuncState` and `VerifierState` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from enum import Enum, unique
from typing import NamedTuple

from verifier.bounds import UNKNOWN, ZERO, Scalar, const
from verifier.regtype import Base, Mod, RegType

__all__ = [
    "ADD_CONST",
    "ADD_CONST32",
    "ADD_CONST64",
    "FP_REG",
    "LOCKS",
    "NOT_INIT_REG",
    "UNKNOWN_REG",
    "ZERO_REG",
    "Base",
    "Executed",
    "FuncState",
    "LoopVisit",
    "Mod",
    "Ref",
    "RefKind",
    "RegState",
    "RegType",
    "Role",
    "SlotObject",
    "StackSlot",
    "VerifierState",
    "const_reg",
    "replace_regs",
    "scalar_reg",
    "with_precise",
]

#: r10's index.
FP_REG = 10
#: Bits of a scalar's id: the register is its class's value plus `off`, in 64 bits or in the low 32
#: (kernel: BPF_ADD_CONST64, BPF_ADD_CONST32).
ADD_CONST64 = 1 << 31
ADD_CONST32 = 1 << 30
ADD_CONST = ADD_CONST64 | ADD_CONST32
#: Markers in a packet pointer's `arg`, in place of a proven range.
AT_PKT_END = -1
BEYOND_PKT_END = -2


@unique
class RefKind(Enum):
    """What has to be given back before a path ends (kernel: enum ref_state_type)."""

    POINTER = "pointer"
    IRQ = "irq"
    LOCK = "lock"
    RES_LOCK = "res_lock"
    RES_LOCK_IRQ = "res_lock_irq"


#: References that are locks.
LOCKS = frozenset({RefKind.LOCK, RefKind.RES_LOCK, RefKind.RES_LOCK_IRQ})


class Ref(NamedTuple):
    """Something acquired and not given back (kernel: bpf_reference_state).

    Attributes:
        kind: see `RefKind`.
        id: number of the reference (pointers: the `ref` of its registers).
        insn: where it was acquired.
        owner: of a lock, what it lies in: a hashable that is equal for the same lock.
    """

    kind: RefKind
    id: int
    insn: int
    owner: Hashable = None


class RegState(NamedTuple):
    """One register.

    Attributes:
        type: see `RegType`.
        scalar: a scalar's value; a pointer's variable offset.
        off: a pointer's fixed offset; of a linked scalar (id has `ADD_CONST`) its distance.
        id: equality class of scalars, null-check class of maybe-null pointers, variable base of
            packet pointers; 0 for none.
        arg: map index (map_ptr, map_value, map_key), frame number (fp), proven bytes or an end
            marker (pkt, pkt_meta), bytes of memory (mem), subprog number (func); else 0.
        precise: pruning may not treat a different scalar as equal.
        ref: number of the reference it holds (kernel: ref_obj_id), 0 for none.
        info: what else its type needs, such as the name of a ptr_'s struct; else None.
    """

    type: RegType
    scalar: Scalar = ZERO
    off: int = 0
    id: int = 0
    arg: int = 0
    precise: bool = False
    ref: int = 0
    info: Hashable = None


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


class SlotObject(NamedTuple):
    """What a kfunc or helper keeps in stack slots: an iterator, a dynptr, an IRQ flag.

    Attributes:
        type: which kind of it: a `bpfvm.proto` value, equal for the same kind.
        id: its own number; 0 for none.
        ref: number of the reference it stands for; of an iterator's further slots 0.
        is_first: it is the slot where the object begins (its lowest address).
        active: an iterator may have more items.
        depth: how many items an iterator has given on this path.
    """

    type: Hashable
    id: int = 0
    ref: int = 0
    is_first: bool = True
    active: bool = True
    depth: int = 0


def with_precise(reg: RegState, precise: bool) -> RegState:
    """Return *reg* with that mark (`_replace` in a fifth of the time)."""
    kind, scalar, off, id_, arg, _, ref, info = reg
    return RegState(kind, scalar, off, id_, arg, precise, ref, info)


class StackSlot(NamedTuple):
    """Eight bytes of stack.

    Attributes:
        types: one character per byte, the byte nearest to the frame pointer first:
            `?` never written, `m` some data, `0` zero, `r` part of a spilled register; and for
            all eight at once `i` an iterator, `d` a dynptr, `f` an IRQ flag.
        spilled: the register of the `r` bytes, which run from the slot's lowest address.
        object: what the slot is part of, where it is `i`, `d` or `f`.
    """

    types: str
    spilled: RegState | None = None
    object: SlotObject | None = None


EMPTY_TYPES = "????????"
#: Characters of slots that hold an object.
OBJECT_TYPES = frozenset("idf")
SPILL_TYPES = "rrrrrrrr"


@unique
class Role(Enum):
    """Why a frame is there."""

    CALL = "call"
    CALLBACK = "callback"
    ASYNC = "async callback"
    EXCEPTION = "exception callback"


class FuncState:
    """One call frame.

    Attributes:
        slots: how many slots of stack the path has come down to (kernel: allocated_stack).
        stack: `stack[i]` are the bytes [fp - 8*(i+1), fp - 8*i); absent: never written.
        callsite: the call insn that opened it, -1 for the outermost.
        role: see `Role`.
        result: of a callback, the range of what it may return.
        callback_depth: turns of the callback that its current call insn has made on this path.
        async_entries: how many async callbacks led to this frame.
        stack_args: what it passes on the stack, from the sixth argument on.
        has_passed, has_called: it has put arguments there, and has called something: its own can't
            be read any more.
    """

    __slots__ = (
        "async_entries",
        "callback_depth",
        "callsite",
        "frameno",
        "has_called",
        "has_passed",
        "regs",
        "result",
        "role",
        "slots",
        "stack",
        "stack_args",
        "subprog",
    )

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
        self.role = Role.CALL
        self.result: tuple[int, int] | None = None
        self.callback_depth = self.async_entries = self.slots = 0
        self.stack_args: tuple[RegState, ...] = ()
        self.has_passed = self.has_called = False

    def copy(self) -> FuncState:
        """Return a frame that can be changed on its own."""
        new = FuncState(
            self.frameno, self.subprog, self.callsite, self.regs.copy(), self.stack.copy()
        )
        new.role, new.result = self.role, self.result
        new.callback_depth, new.async_entries = self.callback_depth, self.async_entries
        new.stack_args = self.stack_args
        new.has_passed, new.has_called = self.has_passed, self.has_called
        new.slots = self.slots
        return new


#: A stack access is (frameno, slot); a linked register is (frameno, is a register, index).
StackAccess = tuple[int, int]
LinkedReg = tuple[int, bool, int]
#: An executed insn: its slot, and where there is more to say with its spill or fill and the linked
#: registers that it refined.
Executed = int | tuple[int, StackAccess | None, tuple[LinkedReg, ...]]


class LoopVisit:
    """A loop being walked, in one chain of calls (kernel: bpf_scc_visit).

    Attributes:
        entry: the saved state it was entered with, while it is being walked.
        backedges: paths that came round again, each with the state that covered it before the
            marks of that were complete.
    """

    __slots__ = ("backedges", "entry", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.entry: VerifierState | None = None
        self.backedges: list[tuple[VerifierState, VerifierState]] = []


class VerifierState:
    """One path's knowledge before `insn_idx`.

    Attributes:
        frames: innermost last.
        parent: the saved state this path came through last.
        branches: (saved states) paths below it that are not finished.
        history: insns executed since *parent*, oldest first.
        history_len: how many of them the kernel would record too (for its heuristics).
        first_insn, last_insn: insn of *parent*, and the insn executed before this state.
        may_goto_depth: may_gotos passed through on this path.
        unroll_depth: callbacks entered on this path.
        sleepable: the program or async callback can sleep, regions aside.
        speculative: the path is a mispredicted one (`verifier.speculation`).
        cleaned, evicted: (saved states) what is dead was forgotten; dropped from the list it was
            compared in.
        visit: (saved states) of the loop it lies in.
        refs: what is acquired and not given back, oldest first.
        rcu_depth, preempt_depth: RCU read sections and preempt-disabled regions that are open.
    """

    __slots__ = (
        "branches",
        "cleaned",
        "evicted",
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
        "preempt_depth",
        "rcu_depth",
        "refs",
        "sleepable",
        "speculative",
        "unroll_depth",
        "visit",
    )

    def __init__(self, frames: list[FuncState], *, sleepable: bool) -> None:
        self.frames = frames
        self.sleepable = sleepable
        self.speculative = False
        self.parent: VerifierState | None = None
        self.branches = 0
        self.history: list[Executed] = []
        self.history_len = 0
        self.insn_idx = 0
        self.first_insn = 0
        self.last_insn = -1
        self.may_goto_depth = self.unroll_depth = 0
        self.refs: tuple[Ref, ...] = ()
        self.rcu_depth = self.preempt_depth = 0
        self.hit_cnt = 0
        self.miss_cnt = 0
        self.cleaned = self.evicted = False
        self.visit: LoopVisit | None = None

    def copy(self) -> VerifierState:
        """Return a state that can be changed on its own."""
        new = VerifierState([f.copy() for f in self.frames], sleepable=self.sleepable)
        new.speculative = self.speculative
        new.parent = self.parent
        new.history = self.history.copy()
        new.history_len = self.history_len
        new.insn_idx = self.insn_idx
        new.first_insn = self.first_insn
        new.last_insn = self.last_insn
        new.may_goto_depth, new.unroll_depth = self.may_goto_depth, self.unroll_depth
        new.refs = self.refs
        new.rcu_depth, new.preempt_depth = self.rcu_depth, self.preempt_depth
        return new

    @property
    def callsites(self) -> tuple[int, ...]:
        """The call insns of the open frames, outermost first."""
        return tuple(f.callsite for f in self.frames)

    @property
    def is_incomplete(self) -> bool:
        """Whether marks may still be missing in this saved state: a path that came round was
        covered in its loop, which is not walked to the end."""
        return self.visit is not None and bool(self.visit.backedges)

    def frame_insn(self, frameno: int) -> int:
        """Return the insn where frame *frameno* stands: the current one, or its open call."""
        if frameno == len(self.frames) - 1:
            return self.insn_idx
        return self.frames[frameno + 1].callsite


def replace_regs(state: VerifierState, change: Callable[[RegState], RegState | None]) -> None:
    """Let *change* replace registers, spilled ones too, in all frames; None keeps one."""
    for frame in state.frames:
        regs = frame.regs
        for regno, reg in enumerate(regs):
            new = change(reg)
            if new is not None:
                regs[regno] = new
        if frame.stack_args:
            frame.stack_args = tuple(change(reg) or reg for reg in frame.stack_args)
        for spi, slot in frame.stack.items():
            if slot.spilled is not None:
                new = change(slot.spilled)
                if new is not None:
                    frame.stack[spi] = slot._replace(spilled=new)
