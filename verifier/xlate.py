"""The rewrite: an accepted program as engines run it, with what the walk found about each insn.

Slots never move. What changes: accesses and arithmetic through arena pointers, casts, and
context accesses (kernel: convert_ctx_accesses, do_misc_fixups).
"""

from __future__ import annotations

from bpfvm import isa
from bpfvm.insn import Insn
from bpfvm.isa import Kind
from bpfvm.mapimage import map_image
from bpfvm.maps.base import MapFlags
from bpfvm.memory import RegionKind
from bpfvm.proto import Variant
from bpfvm.xlated import CallSite, InsnAux, Xlated
from verifier.env import Env
from verifier.log import Snapshot

__all__ = ["xlate"]

_SIZE_MASK = 0x18
_CLASS_MASK = 0x07
_MOV32 = next(r.opcode for r in isa.TABLE if r.mnemonic == "mov32_reg")


def xlate(env: Env) -> Xlated:
    """Return the product of a finished walk."""
    sites = _call_sites(env)
    snapshot = env.printer.snapshot
    aux = tuple(
        InsnAux(
            seen=snap is not None,
            access=env.access[idx],
            call=sites.get(idx),
            regs="" if snap is None else snapshot(snap).strip(),
        )
        for idx, snap in enumerate(_snapshots(env))
    )
    return Xlated(
        env.program,
        tuple(_rewritten(env, idx, insn) for idx, insn in enumerate(env.insns)),
        aux,
        verified=True,
        stack_depth=tuple(env.stack_depth),
        max_ctx_offset=env.max_ctx_offset,
        map_images=_map_images(env),
    )


def _map_images(env: Env) -> dict[int, bytes]:
    """Return what the program sees of the maps whose structs it reads, by index."""
    btf = env.kernel_types.btf if env.shown_maps else None
    if btf is None:
        return {}
    images = {}
    for index in sorted(env.shown_maps & set(range(len(env.program.maps)))):
        facts = env.facts[index]
        struct = btf.composite(env.map_types.traits(facts.defn).kernel_struct)
        if struct is not None:
            images[index] = map_image(btf, struct, facts, index)
    return images


def _snapshots(env: Env) -> list[Snapshot | None]:
    """Return the states before the insns; an ldimm64's second slot counts as its first."""
    found = list(env.first_seen)
    for idx, row in enumerate(env.cfg.rows):
        if row is not None and row.kind is Kind.LDIMM64:
            found[idx + 1] = found[idx]
    return found


def _call_sites(env: Env) -> dict[int, CallSite]:
    """Return the calls by slot. A kfunc's later sites follow an earlier non-sleepable one, as in
    the kernel, where they share one descriptor."""
    sites = {}
    sticky: set[str] = set()
    for idx, facts in sorted(env.calls.items()):
        proto = facts.proto
        variant = Variant.SLEEPABLE
        if proto.is_polymorphic:
            if facts.context:
                sticky.add(proto.name)
            if proto.name in sticky:
                variant = Variant.NON_SLEEPABLE
        sites[idx] = CallSite(proto, variant, not facts.context, facts.context)
    return sites


def _rewritten(env: Env, idx: int, insn: Insn) -> Insn:
    row = env.cfg.rows[idx]
    if row is None or not env.seen[idx]:
        return insn
    match row.kind:
        case Kind.CAST_KERN:
            return _mov32(insn)
        case Kind.CAST_USER if _is_unconverted(env):
            return _mov32(insn)
        case Kind.ALU if idx in env.with_arena:
            return insn._replace(opcode=insn.opcode & ~_CLASS_MASK | isa.InsnClass.ALU)
        case Kind.LDX | Kind.ST | Kind.STX | Kind.ATOMIC | Kind.LOAD_ACQ | Kind.STORE_REL:
            if env.access[idx] is RegionKind.ARENA:
                return insn._replace(opcode=isa.to_arena(row).opcode)
            access = env.ctx_access.get(idx)
            if access is not None:
                opcode = insn.opcode & ~_SIZE_MASK | isa.SIZE_BITS[access.size]
                return insn._replace(opcode=opcode, off=access.off)
            return insn
        case _:
            return insn


def _mov32(insn: Insn) -> Insn:
    return Insn(_MOV32, insn.dst, insn.src)


def _is_unconverted(env: Env) -> bool:
    """Say whether the arena's user pointers are its 32-bit offsets."""
    arena = env.cfg.arena
    return arena is not None and bool(env.facts[arena].defn.flags & MapFlags.NO_USER_CONV)
