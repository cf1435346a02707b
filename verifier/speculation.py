"""Mispredicted paths: what a CPU may do before it finds out that it went the wrong way.

For users who could profit from it (no CAP_PERFMON) the walk also follows the side of a branch
that is never taken, and the result of pointer arithmetic whose offset was masked to 0. What is
refused on such a path only means that the kernel puts a speculation barrier there: the path ends
and the program may still be fine (from kernel 6.17 on). What is left to refuse on real paths is
arithmetic that the kernel's masking can't confine.

The engines need neither masks nor barriers, and have none: a program here is part of the process
that runs it, so there is no kernel memory that its caches could tell its user about.
Rules: Linux 6.18 (sanitize_ptr_alu and kin, do_check).
"""

from __future__ import annotations

from typing import NamedTuple

from bpfvm.bits import s32, s64, u32
from bpfvm.isa import AluOp
from verifier import tnum
from verifier.bounds import ZERO, var_off, var_off_text
from verifier.env import Env
from verifier.extent import check_fields_untouched, check_region
from verifier.reasons import EACCES, EINVAL, EPERM, Reason, Reject
from verifier.state import EMPTY_TYPES, UNKNOWN_REG, RegState, RegType, StackSlot

__all__ = [
    "check_scalar_sum",
    "check_tail_calls",
    "confine",
    "is_over",
    "leave_mispredicted",
    "note_store",
    "note_tail_call",
    "stops",
    "watch",
]

#: kernel: MAX_BPF_STACK
MAX_STACK = 512
_OPS = {AluOp.ADD: "add", AluOp.SUB: "sub"}
#: What masks an insn's operand, where that is a number (kernel: BPF_ALU_NON_POINTER).
_NON_POINTER = ("number", 0)


class Window(NamedTuple):
    """How one execution of pointer arithmetic has to be masked (kernel: bpf_sanitize_info)."""

    to_left: bool
    kind: str
    limit: int


# -- paths -------------------------------------------------------------------------------------


def leave_mispredicted(env: Env, target: int, dst: int, src: int | None) -> None:
    """Leave the side of a decided branch that is not taken, to be walked as a CPU might; nothing
    is known there of the registers that were compared."""
    if env.privs.bypass_spec_v1:
        return
    other = env.push(target)
    other.speculative = True
    regs = other.frames[-1].regs
    regs[dst] = UNKNOWN_REG
    if src is not None:
        regs[src] = UNKNOWN_REG


def stops(env: Env, idx: int, reject: Reject) -> bool:
    """Say whether *reject*, met at slot *idx* of a mispredicted path, only ends the path there
    (kernel: error_recoverable_with_nospec).

    What this verifier can't follow does too: nothing that the engines do depends on it.
    """
    reason = reject.reason
    if reason.errno not in (EPERM, EACCES, EINVAL) and reason is not Reason.NOT_SUPPORTED:
        return False
    env.barriers.add(idx)
    env.masks.pop(idx, None)
    for line in reject.lines:
        env.log.line(line)
    return True


def is_over(env: Env, idx: int) -> bool:
    """Say whether a mispredicted path ends behind slot *idx*."""
    return idx in env.store_barriers


def note_store(env: Env, slot: StackSlot | None, size: int, value: RegState | None) -> None:
    """A store that a later load must not overtake is followed by a barrier: of an address, or
    over anything but data (kernel: check_stack_write_fixed_off)."""
    if env.privs.bypass_spec_v4:
        return
    types = EMPTY_TYPES if slot is None else slot.types
    is_pointer = value is not None and value.type is not RegType.SCALAR
    if is_pointer or set(types[:size]) - {"m", "0"}:
        env.store_barriers.add(env.insn_idx)


def note_tail_call(env: Env, map_index: int) -> None:
    """Note which map the current tail call takes its program from."""
    env.tail_call_maps.setdefault(env.insn_idx, set()).add(map_index)


def check_tail_calls(env: Env) -> None:
    """Refuse a tail call into maps that differ: its index is masked by the size of one (kernel:
    do_misc_fixups). To be asked when the walk is done."""
    if env.privs.bypass_spec_v1:
        return
    for idx, maps in env.tail_call_maps.items():
        if len(maps) > 1 and env.seen[idx]:
            raise Reject(Reason.TAIL_CALL_MAPS)


# -- arithmetic --------------------------------------------------------------------------------


def check_scalar_sum(env: Env, idx: int, op: AluOp, dst: int) -> None:
    """Refuse numbers where the same insn moves pointers on another path: their operand would be
    masked too."""
    if env.privs.bypass_spec_v1 or op not in _OPS or idx in env.barriers:
        return
    _use_mask(env, op, dst, _NON_POINTER)


def watch(
    env: Env, op: AluOp, dst: int, src: int | None, pointer: RegState, delta: RegState
) -> Window | None:
    """Say how `pointer op= delta` is to be masked; leave the path where the mask makes the offset
    0. None: not at all. (*src* None: a constant.)"""
    if env.privs.bypass_spec_v1 or op not in _OPS or src is None or env.insn_idx in env.barriers:
        return None
    offset = delta.scalar
    at_dst = env.cur.frames[-1].regs[dst] is pointer
    window = None
    if not env.cur.speculative:
        if offset.mask and (offset.smin < 0) != (offset.smax < 0):
            raise Reject(Reason.SPEC_BOUNDS, reg=src if at_dst else dst)
        is_negative = offset.smin < 0
        to_left = is_negative == (op is AluOp.ADD)
        limit = _limit(env, op, dst, dst if at_dst else src, pointer, to_left=to_left)
        kind = ("-" if is_negative else "+") + ("" if offset.mask else "K")
        kind += "src" if at_dst else "dst"
        window = Window(to_left, kind, limit)
        if offset.mask:
            env.exact_scalars = True
    if offset.mask:
        other = env.push(env.insn_idx + 1)
        other.speculative = True
        if at_dst and pointer.scalar.mask:
            # The kernel has forgotten the 32-bit range by then.
            pointer = pointer._replace(scalar=env.domain.add_ptr(pointer.scalar, ZERO))
        other.frames[-1].regs[dst] = pointer
    return window


def confine(
    env: Env, op: AluOp, dst: int, src: int | None, moved: RegState, window: Window | None
) -> None:
    """Refuse *moved*, the result of pointer arithmetic, where masks can't keep it inside what it
    pointed to (kernel: sanitize_check_bounds)."""
    if env.privs.bypass_spec_v1:
        return
    if moved.type is RegType.STACK:
        _check_stack_move(env, dst, moved)
    elif moved.type is RegType.MAP_VALUE:
        _check_value_move(env, dst, moved)
    if window is None:
        return
    limit = _limit(env, op, dst, dst, moved, to_left=window.to_left)
    _use_mask(env, op, dst, (window.kind, abs(s32(window.limit - limit))))


def _check_stack_move(env: Env, dst: int, moved: RegState) -> None:
    s = moved.scalar
    off = s64(s.value) + moved.off
    if s.mask:
        text = var_off_text(s)
        if env.rules.pointer_off_in_range:
            text = tnum.text(tnum.add(var_off(s), tnum.const(moved.off)))
        raise Reject(Reason.SPEC_STACK_VARIABLE, reg=dst, var_off=text, off=off)
    if not -MAX_STACK <= off < 0:
        raise Reject(Reason.SPEC_STACK_RANGE, reg=dst, off=off)


def _check_value_move(env: Env, dst: int, moved: RegState) -> None:
    defn = env.facts[moved.arg].defn
    size = defn.value_size
    detail = f"invalid access to map value, value_size={size} off={{off}} size={{size}}"
    try:
        check_region(env, dst, moved, moved.off, 1, size, detail)
        if defn.record:
            check_fields_untouched(moved.scalar, moved.off, 1, defn.record)
    except Reject as reject:
        raise Reject(Reason.SPEC_VALUE_RANGE, before=reject.lines, reg=dst) from None


def _limit(env: Env, op: AluOp, dst: int, told: int, pointer: RegState, *, to_left: bool) -> int:
    """Return how far *pointer* may move to one side (kernel: retrieve_ptr_limit)."""
    s = pointer.scalar
    if pointer.type is RegType.STACK:
        limit, end = -(s.value + pointer.off), MAX_STACK + to_left
    elif pointer.type is RegType.MAP_VALUE:
        limit = (s.smin if to_left else s.umax) + pointer.off
        end = env.facts[pointer.arg].defn.value_size
    else:
        raise Reject(Reason.SPEC_TYPE, reg=told)
    if u32(limit) >= end:
        raise Reject(Reason.SPEC_LIMIT, reg=dst, op=_OPS[op])
    return u32(limit)


def _use_mask(env: Env, op: AluOp, dst: int, mask: tuple[str, int]) -> None:
    """Note how the current insn is masked: the same on all paths."""
    if env.masks.setdefault(env.insn_idx, mask) != mask:
        raise Reject(Reason.SPEC_PATHS, reg=dst, op=_OPS[op])
