"""Stack accesses: what a frame's slots hold, byte by byte, and what spills and fills keep.

Rules: Linux 6.18 (check_stack_read, check_stack_write and kin). Bytes that
were never written may be read by the privileged, and give an unknown scalar.
"""

from __future__ import annotations

from verifier.bounds import var_off_text
from verifier.dynslots import destroy
from verifier.env import Env
from verifier.precision import mark_reg, mark_slot
from verifier.privs import (
    check_overwrite,
    check_spill_leak,
    check_stack_range,
    check_stack_read,
    lowest_readable,
)
from verifier.reasons import Reason, Reject
from verifier.speculation import note_store
from verifier.state import (
    EMPTY_TYPES,
    SPILL_TYPES,
    UNKNOWN_REG,
    ZERO_REG,
    FuncState,
    RegState,
    RegType,
    StackSlot,
)
from verifier.transfer import with_id

__all__ = ["check_bounds", "check_helper_range", "fill", "scrub", "store"]

#: kernel: MAX_BPF_STACK, BPF_MAX_VAR_OFF
MAX_STACK = 512
MAX_VAR_OFF = 1 << 29

_SCALAR = RegType.SCALAR
_EMPTY = StackSlot(EMPTY_TYPES)
_TO_MISC = str.maketrans("ridf", "mmmm")


def check_bounds(
    env: Env, frame: FuncState, regno: int, reg: RegState, off: int, size: int, *, write: bool
) -> tuple[int, int]:
    """Return the lowest and highest offset from the frame pointer where *size* bytes at
    `reg + off` may start (*off* includes the pointer's own), all inside *frame*.

    Raises:
        Reject: they may lie outside the stack.
    """
    how = " write to" if write else " read from"
    s = reg.scalar
    if s.mask:
        if s.smax >= MAX_VAR_OFF or s.smin <= -MAX_VAR_OFF:
            raise Reject(Reason.STACK_UNBOUNDED, how=how, reg=regno)
        low, high = s.smin + off, s.smax + off
    else:
        low = high = s.smin + off
    lowest = -MAX_STACK if write else lowest_readable(env, frame)
    if low < lowest or low > -1:
        is_low = True
    elif high + size > 0:
        is_low = False
    else:
        env.note_depth(frame, low)
        return low, high
    if s.mask:
        raise Reject(
            Reason.STACK_VAR_RANGE if is_low else Reason.STACK_VAR_RANGE_ABOVE,
            how=how,
            reg=regno,
            var_off=var_off_text(s),
            off=off,
            size=size,
        )
    raise Reject(
        Reason.STACK_RANGE if is_low else Reason.STACK_RANGE_ABOVE,
        how=how,
        reg=regno,
        off=low,
        size=size,
    )


def _is_zero(reg: RegState) -> bool:
    return reg.type is _SCALAR and reg == ZERO_REG._replace(id=reg.id, off=reg.off)


def _demoted(types: str) -> str:
    """Return *types* after the spilled register is gone: its bytes are just data."""
    return types.translate(_TO_MISC)


def store(
    env: Env,
    frame: FuncState,
    regno: int,
    pointer: RegState,
    off: int,
    size: int,
    *,
    value: RegState | None,
    value_regno: int | None,
) -> None:
    """Store *size* bytes at `pointer + off` (*off* includes the pointer's own).

    *value* is the register or constant stored, None for bytes nobody knows; *value_regno* the
    register it stands in, if it does.
    """
    owner = env.cur.frames[pointer.arg]
    low, high = check_bounds(env, owner, regno, pointer, off, size, write=True)
    if low != high or pointer.scalar.mask:
        _store_variable(env, owner, low, high + size, value, value_regno)
        return
    spi, at = divmod(-low - 1, 8)
    env.log.slots |= 1 << spi
    slot = owner.stack.get(spi, _EMPTY)
    if slot.object is not None:
        destroy(env, owner, spi)
        slot = owner.stack.get(spi, _EMPTY)
    check_overwrite(env, slot, size)
    note_store(env, slot, size, value)
    if size == 8:
        env.stack_live.write(owner.frameno, 1 << spi)
    tracked = low % 8 == 0 and env.privs.bpf_capable
    if value is not None and (value.type is not _SCALAR or tracked):
        if value.type is not _SCALAR:
            if size != 8:
                raise Reject(Reason.SPILL_SIZE)
            if owner is not frame and value.type is RegType.STACK:
                raise Reject(Reason.SPILL_CALLER)
        elif value_regno is not None:
            if value.scalar.umax < 1 << 8 * size:
                value = with_id(env, value)
                frame.regs[value_regno] = value
            else:
                value = value._replace(id=0, off=0)
        owner.stack[spi] = StackSlot(
            SPILL_TYPES if size == 8 else _demoted(slot.types[: 8 - size]) + "r" * size, value
        )
        env.note_stack(owner.frameno, spi)
        return
    kind = "m"
    if value is not None and _is_zero(value):
        kind = "0"
        if value_regno is not None:
            mark_reg(env, value_regno)
    types = _demoted(slot.types)
    owner.stack[spi] = StackSlot(types[: at - size + 1] + kind * size + types[at + 1 :])


def _store_variable(
    env: Env,
    owner: FuncState,
    low: int,
    end: int,
    value: RegState | None,
    value_regno: int | None,
) -> None:
    """Store somewhere in [low, end): every byte there may have changed, or not."""
    writes_zero = value is not None and _is_zero(value)
    kept_zero = False
    for spi, first, last in _slots(low, end):
        env.log.slots |= 1 << spi
        destroy(env, owner, spi)
        slot = owner.stack.get(spi, _EMPTY)
        spilled = slot.spilled
        if writes_zero and spilled is not None and _is_zero(spilled):
            kept_zero = True
            if set(slot.types[first : last + 1]) <= {"r", "0"}:
                continue
        types = list(_demoted(slot.types))
        for at in range(first, last + 1):
            if writes_zero and types[at] == "0":
                kept_zero = True
            else:
                types[at] = "m"
        owner.stack[spi] = StackSlot("".join(types))
    if kept_zero and value_regno is not None:
        mark_reg(env, value_regno)


def _slots(low: int, end: int) -> list[tuple[int, int, int]]:
    """Return (slot, first, last byte index) of the bytes [low, end), from the top down."""
    found = []
    top, bottom = -(end - 1) - 1, -low - 1  # indices counted from the frame pointer down
    for spi in range(top // 8, bottom // 8 + 1):
        first = top % 8 if spi == top // 8 else 0
        last = bottom % 8 if spi == bottom // 8 else 7
        found.append((spi, first, last))
    return found


def fill(
    env: Env,
    regno: int,
    pointer: RegState,
    off: int,
    size: int,
    *,
    to_reg: bool,
) -> RegState:
    """Return what a load of *size* bytes at `pointer + off` gives, not yet cut to size.

    *to_reg* False: an atomic reads and nothing is kept.
    """
    owner = env.cur.frames[pointer.arg]
    if not to_reg and pointer.scalar.mask:
        raise Reject(
            Reason.STACK_VAR_ATOMIC, var_off=var_off_text(pointer.scalar), off=off, size=size
        )
    low, high = check_bounds(env, owner, regno, pointer, off, size, write=False)
    if pointer.scalar.mask:
        _note_reads(env, owner, low, high + size)
        _check_no_object(regno, pointer, owner, low, high + size, size)
        check_stack_range(env, owner, regno, pointer, low, high + size, size)
        return _fill_variable(env, owner, low, high + size)
    spi, at = divmod(-low - 1, 8)
    env.log.slots |= 1 << spi
    env.stack_live.read(env.cur, owner.frameno, 1 << spi)
    slot = owner.stack.get(spi, _EMPTY)
    read = slot.types[at - size + 1 : at + 1]
    if slot.object is not None:
        raise Reject(Reason.STACK_UNREADABLE, off=low, at=0, size=size)
    spilled = slot.spilled
    if spilled is None or slot.types[7] != "r":
        check_stack_read(env, read, low, size)
        return ZERO_REG if read == "0" * size else UNKNOWN_REG
    if slot.types == SPILL_TYPES and size == 8:
        if to_reg:
            env.note_stack(owner.frameno, spi)
        else:
            check_spill_leak(env, spilled, low)
        return spilled
    if spilled.type is not _SCALAR:
        raise Reject(Reason.FILL_SIZE)
    if not to_reg:
        return UNKNOWN_REG
    return _narrow_fill(env, owner, spi, slot, spilled, low, size, read)


def _note_reads(env: Env, owner: FuncState, low: int, end: int) -> None:
    """Note that the current insn may read the bytes [low, end)."""
    bits = 0
    for spi, _, _ in _slots(low, end):
        bits |= 1 << spi
    env.stack_live.read(env.cur, owner.frameno, bits)


def _fill_variable(env: Env, owner: FuncState, low: int, end: int) -> RegState:
    """Return what a load from somewhere in [low, end), or of all of it, gives: 0 where every byte
    there is 0 (kernel: mark_reg_stack_read)."""
    spilled_zeros = []
    for spi, first, last in _slots(low, end):
        slot = owner.stack.get(spi, _EMPTY)
        kinds = set(slot.types[first : last + 1])
        if "r" in kinds and env.rules.variable_zero_fill:
            if slot.spilled is None or not _is_zero(slot.spilled):
                return UNKNOWN_REG
            kinds.discard("r")
            spilled_zeros.append(spi)
        if kinds - {"0"}:
            return UNKNOWN_REG
    for spi in spilled_zeros:
        mark_slot(env, owner.frameno, spi)
    return ZERO_REG


def _narrow_fill(
    env: Env,
    owner: FuncState,
    spi: int,
    slot: StackSlot,
    spilled: RegState,
    low: int,
    size: int,
    read: str,
) -> RegState:
    """Return what a load of part of a spilled scalar gives."""
    spill_size = slot.types.count("r")
    if size <= spill_size and low % 8 == 0:
        env.note_stack(owner.frameno, spi)
        if spilled.scalar.umax >= 1 << 8 * size:
            return spilled._replace(id=0, off=0)
        return spilled
    check_stack_read(env, read, low, size)
    if read == "r" * size and _is_zero(spilled):
        env.note_stack(owner.frameno, spi)
        return ZERO_REG
    return _fill_variable(env, owner, low, low + size)


def check_helper_range(
    env: Env,
    regno: int,
    pointer: RegState,
    off: int,
    size: int,
    *,
    zero_ok: bool,
    write: bool,
    raw: bool,
) -> None:
    """Check *size* bytes that a callee reads or (*write*) writes at `pointer + off`.

    *raw*: the callee writes all of them, so what was there does not matter.
    """
    if size == 0 and not zero_ok:
        raise Reject(Reason.ZERO_SIZED)
    owner = env.cur.frames[pointer.arg]
    low, high = check_bounds(env, owner, regno, pointer, off, size, write=write)
    if size == 0 and low == high:
        return
    if not raw or pointer.scalar.mask:
        _note_reads(env, owner, low, high + size)
    if raw and not env.rules.helpers_destroy_dynptrs:
        _check_no_dynptr(owner, low, high + size)
    if not raw:
        _check_no_object(regno, pointer, owner, low, high + size, size)
        check_stack_range(env, owner, regno, pointer, low, high + size, size)
    if not write and not raw:
        return
    scrub(env, owner, low, high + size)


def _check_no_dynptr(owner: FuncState, low: int, end: int) -> None:
    """Refuse to let a callee fill [low, end) where a dynptr lies there."""
    for at in range(low, end):
        slot = owner.stack.get((-at - 1) // 8)
        if slot is not None and slot.types[0] == "d":
            raise Reject(Reason.DYNPTR_HELPER_WRITE, off=at)


def _check_no_object(
    regno: int, pointer: RegState, owner: FuncState, low: int, end: int, size: int
) -> None:
    """Refuse to read [low, end) where an iterator, a dynptr or an IRQ flag lies there."""
    for at in range(low, end):
        slot = owner.stack.get((-at - 1) // 8)
        if slot is None or slot.object is None:
            continue
        if pointer.scalar.mask:
            raise Reject(
                Reason.STACK_UNREADABLE_VAR,
                reg=regno,
                var_off=var_off_text(pointer.scalar),
                at=at - low,
                size=size,
            )
        raise Reject(Reason.STACK_UNREADABLE_ARG, reg=regno, off=low, at=at - low, size=size)


def scrub(env: Env, owner: FuncState, low: int, end: int) -> None:
    """Make the bytes [low, end) data that nobody knows."""
    for spi, first, last in _slots(low, end):
        env.log.slots |= 1 << spi
        destroy(env, owner, spi)
        types = _demoted(owner.stack.get(spi, _EMPTY).types)
        owner.stack[spi] = StackSlot(types[:first] + "m" * (last - first + 1) + types[last + 1 :])
