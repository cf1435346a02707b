"""What calling a subprog may do, its callees included (kernel: merge_callee_effects)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bpfvm.insn import Insn
from bpfvm.isa import CallKind, LdKind
from bpfvm.program import Program
from bpfvm.proto import FuncProto, KfuncFlags, Registry
from bpfvm.rules import KernelRules

__all__ = ["Effects", "effects_of", "needs_sleep"]

_CALL, _LDIMM64 = 0x85, 0x18
_ARENA_FLAGS = KfuncFlags.ARENA_RET | KfuncFlags.ARENA_ARG2


@dataclass(frozen=True, slots=True)
class Effects:
    """What a call of one subprog may do.

    Attributes:
        might_sleep: it holds a helper or kfunc that sleeps.
        changes_packet: it holds one after which packet pointers mean nothing.
        throws: it may end the program.
    """

    might_sleep: bool = False
    changes_packet: bool = False
    throws: bool = False


def needs_sleep(proto: FuncProto, rules: KernelRules) -> bool:
    """Say whether a call of *proto* needs a context that can sleep."""
    return proto.might_sleep or (
        proto.helper_id is None
        and bool(proto.flags & _ARENA_FLAGS)
        and not rules.arena_kfuncs_any_context
    )


def effects_of(
    program: Program, registry: Registry, rules: KernelRules, starts: Sequence[int]
) -> tuple[Effects, ...]:
    """Return the effects of each subprog; *starts* are their first slots, ascending."""
    insns = program.insns
    found: list[Effects] = []
    callees: list[set[int]] = []
    for start, end in zip(starts, [*starts[1:], len(insns)], strict=True):
        protos = [_proto(program, registry, insns[idx]) for idx in range(start, end)]
        found.append(
            Effects(
                any(p is not None and needs_sleep(p, rules) for p in protos),
                any(p is not None and p.changes_packet for p in protos),
                any(p is not None and p.throws for p in protos),
            )
        )
        callees.append(
            {starts.index(idx + 1 + insns[idx].imm) for idx in range(start, end)
             if _is_local(insns[idx])}
        )  # fmt: skip
    changed = True
    while changed:
        changed = False
        for number, called in enumerate(callees):
            merged = _merged([found[number], *(found[c] for c in called)])
            if merged != found[number]:
                found[number], changed = merged, True
    return tuple(found)


def _merged(parts: Sequence[Effects]) -> Effects:
    return Effects(
        any(p.might_sleep for p in parts),
        any(p.changes_packet for p in parts),
        any(p.throws for p in parts),
    )


def _is_local(insn: Insn) -> bool:
    """Say whether *insn* calls a subprog, or takes the address of one to be called back."""
    return (insn.opcode == _CALL and insn.src == CallKind.LOCAL.value) or (
        insn.opcode == _LDIMM64 and insn.src == LdKind.FUNC.value
    )


def _proto(program: Program, registry: Registry, insn: Insn) -> FuncProto | None:
    if insn.opcode != _CALL:
        return None
    if insn.src == CallKind.HELPER.value:
        return registry.helper(insn.imm, program.prog_type)
    if insn.src == CallKind.KFUNC.value and 0 <= insn.imm < len(program.kfuncs):
        return registry.kfuncs.get(program.kfuncs[insn.imm])
    return None
