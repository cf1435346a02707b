"""Calls that keep registers: the spills and fills around them that are taken out.

A compiler that knows of such calls saves what it needs of r1 to r5 in stack slots of their own,
the lowest of the subprog; a kernel that inlines the callee takes the pairs out again, and the
stack with them. This counts where the stack of a chain of calls is summed up; engines run the
program as it came (kernel: mark_fastcall_patterns, check_fastcall_stack_contract,
remove_fastcall_spills_fills).
"""

from __future__ import annotations

from collections.abc import Sequence

from bpfvm import flow, isa
from bpfvm.insn import Insn
from bpfvm.isa import CallKind
from bpfvm.program import Program
from bpfvm.proto import FuncProto, Registry, RetType
from bpfvm.rules import KernelRules
from verifier.state import FP_REG

__all__ = ["Fastcalls"]

_SPILL = next(r.opcode for r in isa.TABLE if r.mnemonic == "stxdw")
_FILL = next(r.opcode for r in isa.TABLE if r.mnemonic == "ldxdw")
_CALL = 0x85
#: Registers that a call may change.
_SCRATCH = 0b111111
#: Below every stack offset: nothing is found, or it is not to be trusted.
NOWHERE = -(1 << 15)


class Fastcalls:
    """The patterns of one program.

    Attributes:
        bottom: by subprog, the offset from the frame pointer below which only patterns may access
            the stack; NOWHERE where there are none.
        members: slots of the spills and fills of patterns.
    """

    def __init__(
        self, program: Program, registry: Registry, rules: KernelRules, starts: Sequence[int]
    ) -> None:
        self._insns = program.insns
        self._ends = [*starts[1:], len(program.insns)]
        self._starts = starts
        #: Slots that are jumped to; None as long as nobody asked.
        self._targets: frozenset[int] | None = None if rules.fastcalls_whole else frozenset()
        self.bottom = [NOWHERE] * len(starts)
        self.members: set[int] = set()
        #: Subprogs with a pattern that is taken out; with one that stays, as its callee is called.
        self._shrinks: set[int] = set()
        self._keeps: set[int] = set()
        for number, (start, end) in enumerate(zip(starts, self._ends, strict=True)):
            spills = [insn.off for insn in program.insns[start:end] if _is_spill(insn)]
            if spills:
                self._find(program, registry, number, min(0, *spills))

    def _find(self, program: Program, registry: Registry, number: int, lowest: int) -> None:
        for idx in range(self._starts[number], self._ends[number]):
            proto = _callee(program, registry, self._insns[idx])
            pairs = 0 if proto is None else self._pairs(idx, proto, lowest)
            if proto is None or not pairs:
                continue
            is_inlined = program.prog_type in proto.fastcall
            (self._shrinks if is_inlined else self._keeps).add(number)
            bottom = lowest + 8 * pairs
            self.bottom[number] = (
                bottom if self.bottom[number] == NOWHERE else min(bottom, self.bottom[number])
            )

    def _pairs(self, idx: int, proto: FuncProto, lowest: int) -> int:
        """Return how many spills before call *idx* have their fills behind it."""
        insns = self._insns
        clobbered = (1 << len(proto.args) + 1) - (2 if proto.ret is RetType.VOID else 1)
        expected = _SCRATCH & ~clobbered
        pairs = 0
        while idx - pairs > 0 and idx + pairs + 1 < len(insns):
            spill, fill = insns[idx - pairs - 1], insns[idx + pairs + 1]
            off = lowest + 8 * pairs
            if not (
                _is_spill(spill)
                and fill.opcode == _FILL
                and fill.src == FP_REG
                and spill.src == fill.dst
                and expected >> spill.src & 1
                and spill.off == fill.off == off
            ):
                break
            targets = self._jumped_to()
            if idx - pairs in targets or idx + pairs + 1 in targets:
                break
            expected &= ~(1 << spill.src)
            pairs += 1
            self.members |= {idx - pairs, idx + pairs}
        return pairs

    def _jumped_to(self) -> frozenset[int]:
        found = self._targets
        if found is None:
            rows = ((idx, insn, isa.lookup(insn)) for idx, insn in enumerate(self._insns))
            found = self._targets = frozenset(
                flow.jump_target(idx, insn, row) or 0 for idx, insn, row in rows if row is not None
            )
        return found

    def check(self, number: int, idx: int) -> None:
        """Slot *idx* accesses the stack of subprog *number* below `bottom`: where that is for
        something else than a pattern, the subprog's patterns stay."""
        if idx not in self.members:
            self.bottom[number] = NOWHERE
            self._shrinks.discard(number)
            self.members -= set(range(self._starts[number], self._ends[number]))

    def depths(self, depths: Sequence[int]) -> list[int]:
        """Return the stack that is left of *depths* when the patterns are gone."""
        return [
            -self.bottom[number] if number in self._shrinks - self._keeps else depth
            for number, depth in enumerate(depths)
        ]


def _is_spill(insn: Insn) -> bool:
    return insn.opcode == _SPILL and insn.dst == FP_REG


def _callee(program: Program, registry: Registry, insn: Insn) -> FuncProto | None:
    if insn.opcode != _CALL:
        return None
    if insn.src == CallKind.HELPER.value:
        return registry.helper(insn.imm, program.prog_type)
    if insn.src == CallKind.KFUNC.value and 0 <= insn.imm < len(program.kfuncs):
        return registry.kfuncs.get(program.kfuncs[insn.imm])
    return None
