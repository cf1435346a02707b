"""Which registers may still be read, per insn (kernel: bpf_compute_live_registers)."""

from __future__ import annotations

from collections.abc import Sequence

from bpfvm import isa
from bpfvm.insn import Insn
from bpfvm.isa import CallKind, Kind
from bpfvm.program import Program
from bpfvm.proto import Registry
from verifier.graph import successors

__all__ = ["live_registers"]

_LDIMM64 = 0x18


def live_registers(
    program: Program,
    registry: Registry,
    insns: Sequence[Insn],
    rows: Sequence[isa.InsnDef | None],
    orders: Sequence[Sequence[int]],
) -> list[int]:
    """Return, per slot, the bits of the registers that are live before it; -1 for the second half
    of an ldimm64, 0 where none of *orders* leads."""
    live = [-1 if row is None else 0 for row in rows]
    # A row that stands for no valid insn ends its path in the walk; what it uses is nothing.
    for idx in range(len(insns)):
        if rows[idx] is None and not (idx and insns[idx - 1].opcode == _LDIMM64):
            live[idx] = 0
    for order in orders:
        data = []
        for idx in order:
            row = rows[idx]
            use, define = (
                (0, 0) if row is None else _uses_and_defs(program, registry, insns[idx], row)
            )
            data.append((idx, tuple(successors(idx, insns[idx])), use, ~define))
        changed = True
        while changed:
            changed = False
            for idx, following, use, kept in data:
                after = 0
                for nxt in following:
                    after |= live[nxt]
                before = after & kept | use
                if before != live[idx]:
                    live[idx] = before
                    changed = True
    return live


def _uses_and_defs(
    program: Program, registry: Registry, insn: Insn, row: isa.InsnDef
) -> tuple[int, int]:
    """Return the bits of the registers that *insn* reads and writes (kernel:
    compute_insn_live_regs)."""
    dst, src = 1 << insn.dst, 1 << insn.src
    match row.kind:
        case Kind.ALU:
            return dst | (src if row.is_reg else 0), dst
        case Kind.NEG | Kind.END:
            return dst, dst
        case Kind.MOV | Kind.MOVSX | Kind.CAST_KERN | Kind.CAST_USER:
            return src if row.is_reg else 0, dst
        case Kind.LDIMM64:
            return 0, dst
        case Kind.LDX | Kind.LOAD_ACQ:
            return src, dst
        case Kind.ST:
            return dst, 0
        case Kind.STX | Kind.STORE_REL:
            return dst | src, 0
        case Kind.ATOMIC:
            if row.op is isa.AtomicOp.CMPXCHG:
                return dst | src | 1, 1
            return dst | src, src if row.fetch else 0
        case Kind.JA | Kind.MAY_GOTO:
            return 0, 0
        case Kind.JCOND:
            return dst | (src if row.is_reg else 0), 0
        case Kind.CALL | Kind.CALLX:
            return _call_uses(program, registry, insn), 0x3F
        case Kind.EXIT:
            return 1, 0
        case Kind.LD_ABS | Kind.LD_IND:
            return 1 << 6 | (src if row.kind is Kind.LD_IND else 0), 0x3F


def _call_uses(program: Program, registry: Registry, insn: Insn) -> int:
    proto = None
    if insn.src == CallKind.HELPER.value:
        proto = registry.helper(insn.imm, program.prog_type)
    elif insn.src == CallKind.KFUNC.value and 0 <= insn.imm < len(program.kfuncs):
        proto = registry.kfuncs.get(program.kfuncs[insn.imm])
    count = 5 if proto is None else len(proto.args)
    return (1 << count + 1) - 2
