"""What compiled code and Python share: the run state's words, and the tables behind its numbers.

Compiled code gets one pointer, to an array of 64-bit words (`Word`), and finds everything through
it: it holds no absolute addresses, so it is the same for every machine. Numbers that it hands out
(`Site`, `Trap`) index tables that lowering made beside the text.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from bpfvm.runtime import MAX_FRAMES

__all__ = [
    "FIRST_TRAP",
    "MAY_GOTO_SLICE",
    "NO_PACKET",
    "PENDING",
    "REGION_WORDS",
    "WORDS",
    "ArenaSite",
    "CallSlot",
    "CallxSlot",
    "Lowered",
    "MayGotoSite",
    "PacketSite",
    "RefillSite",
    "Site",
    "Trap",
    "Word",
]


class Word(IntEnum):
    """Indices into the run state. ARG is the first of five, CALLER of `MAX_FRAMES` words."""

    STOP = 0  # 0: go on; PENDING; else FIRST_TRAP + index of the trap that ended the run
    ADDR = 1  # operand of that trap
    BUDGET = 2  # insns left before the next refill, signed
    FRAME = 3  # number of the frame that calls out
    MAY_GOTO = 4  # how often a frame's may_gotos fall through
    CLEAR = 5  # 1: a faulting fetch clears its result register
    STACK_TOP = 6
    POOL = 7  # address of the words for `Lowered.pool`
    DISPATCH = 8  # address of the function that serves sites
    REGIONS = 9  # address of the region table
    REGION_COUNT = 10
    REGION_HINT = 11  # address of the row that matched last
    KERN = 12  # arena: kern_vm_start
    PRESENCE = 13  # arena: presence_addr
    CAST_HIGH = 14  # arena: upper half that a cast to user gives
    RESULT = 15  # what the last call out gave
    ARG = 16
    CALLER = 21
    LEFT = 21 + MAX_FRAMES  # 1: the last call out jumped to another program, with its RESULT


#: Words in a run state.
WORDS = Word.LEFT + 1
#: Value of STOP while Python serves a site: it stays if serving ends in an exception.
PENDING = 1
#: Value of STOP for `Lowered.traps[0]`.
FIRST_TRAP = 2
#: How many may_gotos fall through before Python is asked for more, which also looks after signals.
MAY_GOTO_SLICE = 1 << 20
#: Words in a row of the region table: base, size, writable, stride, elem_size.
REGION_WORDS = 5


@dataclass(frozen=True, slots=True)
class CallSlot:
    """The helper or kfunc call in slot *pc*."""

    pc: int


@dataclass(frozen=True, slots=True)
class CallxSlot:
    """The callx in slot *pc*; word ADDR holds the helper's number."""

    pc: int


@dataclass(frozen=True, slots=True)
class ArenaSite:
    """An arena access whose presence byte is zero: asks and answers whether it may go on.

    ARG holds the 64-bit address register, or in the sandbox the whole address.
    """

    pc: int
    off: int
    size: int
    write: bool
    is_address: bool = False


@dataclass(frozen=True, slots=True)
class MayGotoSite:
    """A may_goto whose slice is used up: answers with the next one, 0 where the rest (ARG) is 0."""

    pc: int


@dataclass(frozen=True, slots=True)
class RefillSite:
    """The block at *pc*, of *cost* insns, does not fit into what is left of the budget's slice."""

    pc: int
    cost: int


@dataclass(frozen=True, slots=True)
class PacketSite:
    """The packet load in slot *pc*, at the offset in ARG: answers with the bytes, `NO_PACKET` where
    they are not there."""

    pc: int
    size: int


#: See `PacketSite`.
NO_PACKET = 1 << 32

Site = CallSlot | CallxSlot | ArenaSite | MayGotoSite | RefillSite | PacketSite


@dataclass(frozen=True, slots=True)
class Trap:
    """A place where a run ends early.

    Attributes:
        pc: slot of the insn.
        reason: the text of the `RunFault`; for a refused access it is made from the rest.
        size, write: of a refused access; its address is in word ADDR.
        is_bug: verified code must never get here: an `InternalError`.
    """

    pc: int
    reason: str = ""
    size: int = 0
    write: bool = False
    is_bug: bool = False


@dataclass(frozen=True, slots=True)
class Lowered:
    """A program as LLVM IR text, and the tables for the numbers in it.

    Attributes:
        text: LLVM IR.
        sites: what code asks Python for.
        traps: where runs end early.
        callbacks: first slots of the subprogs that may be called back.
        pool: slots of the ldimm64s whose values the machine gives, by index of their pool word.
    """

    text: str
    sites: tuple[Site, ...]
    traps: tuple[Trap, ...]
    pool: tuple[int, ...]
    callbacks: tuple[int, ...] = ()
