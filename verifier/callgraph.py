"""Which subprog calls which, and an order in which each comes after those that it calls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bpfvm.insn import Insn
from bpfvm.isa import CallKind, LdKind
from bpfvm.program import Program
from verifier.reasons import Reason, Reject

__all__ = ["callees_first", "refs_of", "subprog_name"]

_CALL, _LDIMM64 = 0x85, 0x18


def refs_of(insns: Sequence[Insn], start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield (slot, subprog's first slot) of the local calls in [start, end), and of the ldimm64s
    that take a subprog's address."""
    for idx in range(start, end):
        insn = insns[idx]
        if _is_call(insn) or _is_address(insn):
            yield idx, idx + 1 + insn.imm


def subprog_name(program: Program, start: int) -> str:
    """Return the name of the subprog that starts at slot *start*, as its BTF gives it; "" without
    BTF."""
    if all(s.params is None for s in program.subprogs):
        return ""
    return next((s.name for s in program.subprogs if s.start == start), "")


def callees_first(
    program: Program,
    insns: Sequence[Insn],
    starts: Sequence[int],
    orders: Sequence[Sequence[int]],
) -> list[int]:
    """Return the subprogs' numbers, each after those that it calls or takes the address of
    (kernel: sort_subprogs_topo). Only slots in *orders* count.

    Raises:
        Reject: a subprog is called while it runs.
    """
    numbers = {start: number for number, start in enumerate(starts)}
    found: list[int] = []
    done: set[int] = set()
    for root in range(len(starts)):
        if root in done:
            continue
        path = [(root, iter(orders[root]))]
        while path:
            number, slots = path[-1]
            for idx in slots:
                insn = insns[idx]
                if not (_is_call(insn) or _is_address(insn)):
                    continue
                callee = numbers[idx + 1 + insn.imm]
                if callee in done:
                    continue
                if all(callee != caller for caller, _ in path):
                    path.append((callee, iter(orders[callee])))
                    break
                if _is_call(insn):
                    raise Reject(
                        Reason.RECURSION,
                        caller=subprog_name(program, starts[number]),
                        callee=subprog_name(program, starts[callee]),
                    )
            else:
                done.add(number)
                found.append(number)
                path.pop()
    return found


def _is_call(insn: Insn) -> bool:
    return insn.opcode == _CALL and insn.src == CallKind.LOCAL.value


def _is_address(insn: Insn) -> bool:
    return insn.opcode == _LDIMM64 and insn.src == LdKind.FUNC.value
