"""What engines resolve alike when they link an xlated program to a machine."""

from __future__ import annotations

from bpfvm.bits import u32, u64
from bpfvm.errors import LoadError
from bpfvm.isa import CallKind, InsnDef, LdKind
from bpfvm.proto import FuncProto, Variant
from bpfvm.runtime import Machine, func_address
from bpfvm.xlated import CallSite, Xlated

__all__ = ["call_site", "imm64", "not_executable", "refused_access"]


def refused_access(size: int, addr: int, *, write: bool) -> str:
    """Return the reason of a run that ends at an access no region allows."""
    return f"invalid {'write' if write else 'read'} of {size} bytes at {addr:#x}"


def imm64(xlated: Xlated, machine: Machine, slot: int, row: InsnDef) -> int:
    """Return what the ldimm64 in *slot* puts into its register.

    Raises:
        LoadError: it names no map of *machine*, or something that has no meaning here.
    """
    low, high = xlated.insns[slot].imm, xlated.insns[slot + 1].imm
    match row.op:
        case LdKind.IMM64:
            return u32(low) | u32(high) << 32
        case LdKind.MAP_IDX | LdKind.MAP_IDX_VALUE:
            if not 0 <= low < len(machine.maps):
                raise LoadError(f"insn {slot}: no map number {low}")
            if row.op is LdKind.MAP_IDX:
                return machine.map_handle(low)
            return u64(machine.maps[low].value_addr(u32(high)))
        case LdKind.FUNC:
            return func_address(slot + 1 + low)
        case _:
            raise LoadError(f"insn {slot}: not supported: {row.mnemonic}")


def not_executable(proto: FuncProto) -> str:
    """Return why a call of *proto*, which has no implementation, can't be run."""
    return f"helper {proto.name} can't be executed yet"


def call_site(xlated: Xlated, machine: Machine, slot: int, row: InsnDef) -> CallSite | str:
    """Return what the helper or kfunc call in *slot* runs, or why there is nothing to run."""
    if xlated.verified:
        return xlated.aux[slot].call or "a call that the verifier did not record"
    program, imm = xlated.program, xlated.insns[slot].imm
    if row.op is CallKind.HELPER:
        helper = machine.registry.helpers.get(imm)
        if helper is None:
            return f"unknown helper {imm}"
        return CallSite(helper) if helper.is_executable else not_executable(helper)
    if not 0 <= imm < len(program.kfuncs):
        return f"unknown kfunc {imm}"
    kfunc = machine.registry.kfuncs.get(program.kfuncs[imm])
    if kfunc is None:
        return f"unknown kfunc {program.kfuncs[imm]}"
    variant = Variant.SLEEPABLE if program.sleepable else Variant.NON_SLEEPABLE
    return CallSite(kfunc, variant, program.sleepable)
