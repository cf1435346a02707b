"""What a program may not do because its user lacks a capability.

Every rule of the walk that asks for privileges is a function here, called at the kernel's place.
`verifier.caps` has those of the passes before it.
"""

from __future__ import annotations

from verifier.bounds import var_off_text
from verifier.env import Env
from verifier.reasons import Reason, Reject
from verifier.state import FuncState, RegState, RegType, StackSlot

__all__ = [
    "check_comparison",
    "check_leak",
    "check_mov",
    "check_overwrite",
    "check_return",
    "check_spill_leak",
    "check_stack_range",
    "check_stack_read",
    "check_struct_access",
    "check_unary",
    "check_variable_offset",
    "is_secret",
    "lowest_readable",
]

#: kernel: MAX_BPF_STACK
MAX_STACK = 512


# -- addresses ---------------------------------------------------------------------------------


def is_secret(env: Env, reg: RegState) -> bool:
    """Say whether *reg* holds an address that this user must not learn (kernel:
    is_pointer_value)."""
    return not env.privs.allow_ptr_leaks and reg.type is not RegType.SCALAR


def check_leak(env: Env, regno: int | None, reg: RegState | None, into: str) -> None:
    """Refuse to write an address *into* memory that others see; *reg* None is a constant."""
    if reg is not None and is_secret(env, reg):
        raise Reject(Reason.LEAK_INTO, reg=regno, into=into)


def check_return(env: Env, regno: int, reg: RegState) -> None:
    """Refuse to return an address to the caller of the program."""
    if is_secret(env, reg):
        raise Reject(Reason.LEAK_RETURN, reg=regno)


def check_unary(env: Env, regno: int, reg: RegState) -> None:
    """Refuse to negate an address or to swap its bytes."""
    if is_secret(env, reg):
        raise Reject(Reason.PTR_UNARY, reg=regno)


def check_mov(env: Env, regno: int, reg: RegState, width: int) -> None:
    """Refuse to copy a part of an address."""
    if is_secret(env, reg):
        raise Reject(Reason.PTR_SIGN_PART if width == 64 else Reason.PTR_PART, reg=regno)


def check_comparison(env: Env, regno: int, reg: RegState) -> None:
    """Refuse to compare an address, which tells of its bits."""
    if is_secret(env, reg):
        raise Reject(Reason.PTR_COMPARED, reg=regno)


def check_struct_access(env: Env, struct: str) -> None:
    """Refuse to read the kernel's own structs."""
    if not env.privs.allow_ptr_leaks:
        raise Reject(Reason.STRUCT_PERM, struct=struct)


# -- stack -------------------------------------------------------------------------------------


def lowest_readable(env: Env, frame: FuncState) -> int:
    """Return the lowest offset from the frame pointer that may be read: who may not read what
    was never written has only the part of the stack that was used so far."""
    if env.privs.allow_uninit_stack:
        return -MAX_STACK
    return -8 * (max(frame.stack, default=-1) + 1)


def check_stack_read(env: Env, read: str, off: int, size: int) -> None:
    """Refuse to load stack bytes that were never written: *read* are the kinds of the *size*
    bytes from *off* on, the highest address first."""
    if "?" in read and not env.privs.allow_uninit_stack:
        raise Reject(Reason.STACK_UNREADABLE, off=off, at=read[::-1].index("?"), size=size)


def check_spill_leak(env: Env, reg: RegState, off: int) -> None:
    """Refuse to use a spilled address as a number (atomics)."""
    if is_secret(env, reg):
        raise Reject(Reason.STACK_LEAK, off=off)


def check_overwrite(env: Env, slot: StackSlot, size: int) -> None:
    """Refuse to overwrite a part of a spilled address."""
    spilled = slot.spilled
    if spilled is not None and size != 8 and slot.types[7] == "r" and is_secret(env, spilled):
        raise Reject(Reason.SPILL_CORRUPTED)


def check_variable_offset(env: Env, regno: int, pointer: RegState) -> None:
    """Refuse a stack access at an offset that a mispredicted path may have made."""
    if not env.privs.bypass_spec_v1 and pointer.scalar.mask:
        raise Reject(Reason.STACK_VAR_PROHIBITED, reg=regno, var_off=var_off_text(pointer.scalar))


def check_stack_range(
    env: Env, owner: FuncState, regno: int, pointer: RegState, low: int, end: int, size: int
) -> None:
    """Check that each byte of [low, end) may be read by a callee (kernel:
    check_stack_range_initialized)."""
    privs = env.privs
    if privs.allow_uninit_stack and privs.allow_ptr_leaks:
        return
    check_variable_offset(env, regno, pointer)
    for off in range(low, end):
        spi, at = divmod(-off - 1, 8)
        slot = owner.stack.get(spi)
        kind = "?" if slot is None else slot.types[at]
        if kind in "m0" or (kind == "?" and privs.allow_uninit_stack):
            continue
        spilled = None if slot is None or slot.types[7] != "r" else slot.spilled
        if spilled is not None and not is_secret(env, spilled):
            continue
        if pointer.scalar.mask:
            raise Reject(
                Reason.STACK_UNREADABLE_VAR,
                reg=regno,
                var_off=var_off_text(pointer.scalar),
                at=off - low,
                size=size,
            )
        raise Reject(Reason.STACK_UNREADABLE_ARG, reg=regno, off=low, at=off - low, size=size)
