"""Accesses to sockets, flow keys and buffers: what the kernel lends to programs, field by field.

Rules: Linux 6.18 (check_sock_access, check_flow_keys_access, check_buffer_access).
"""

from __future__ import annotations

from bpfvm.ctxfields import FLOW_KEYS_SIZE, SOCKS, at_offset
from verifier.bounds import ZERO, var_off_text
from verifier.env import Env
from verifier.privs import check_struct_access
from verifier.reasons import Reason, Reject
from verifier.state import Base, Mod, RegState, RegType

__all__ = ["SOCKET_TYPES", "check_buffer", "check_flow_keys", "check_sock", "check_struct"]

#: Pointers to sockets that a program may follow.
SOCKET_TYPES = (RegType.SOCKET, RegType.SOCK_COMMON, RegType.TCP_SOCK, RegType.XDP_SOCK)


def check_sock(pointer: RegState, regno: int, off: int, size: int, *, write: bool) -> None:
    """Check an access to the socket that *pointer* is of; *off* has the pointer's own in it."""
    label = pointer.type.label
    if write:
        raise Reject(Reason.RDONLY_WRITE, reg=regno, type=label)
    if pointer.scalar.smin < 0:
        raise Reject(Reason.MIN_NEGATIVE, reg=regno)
    field = at_offset(SOCKS[label], off)
    if off < 0 or off % size or field is None or not field.grants(off, size, write=False):
        raise Reject(Reason.SOCK_ACCESS, reg=regno, type=label, off=off, size=size)


def check_struct(env: Env, pointer: RegState, regno: int, off: int, *, write: bool) -> str:
    """Check an access to a struct of the kernel, its members apart; return the struct (kernel:
    check_ptr_to_btf_access)."""
    struct = str(pointer.info)
    check_struct_access(env, struct)
    if not env.program.is_gpl:
        raise Reject(Reason.STRUCT_GPL, struct=struct)
    if off < 0:
        raise Reject(Reason.STRUCT_NEGATIVE, reg=regno, struct=struct, off=off)
    if pointer.scalar != ZERO:
        var_off = var_off_text(pointer.scalar)
        raise Reject(Reason.STRUCT_VARIABLE, reg=regno, struct=struct, off=off, var_off=var_off)
    for mod, memory in ((Mod.USER, "user"), (Mod.PERCPU, "percpu")):
        if pointer.type.mods & mod:
            raise Reject(Reason.STRUCT_MEMORY, reg=regno, struct=struct, memory=memory, off=off)
    if write:
        raise Reject(Reason.STRUCT_WRITE)
    return struct


def check_flow_keys(off: int, size: int) -> None:
    """Check an access to a dissector's flow keys."""
    if off < 0 or off + size > FLOW_KEYS_SIZE:
        raise Reject(Reason.FLOW_KEYS, off=off, size=size)


def check_buffer(
    env: Env, pointer: RegState, regno: int, off: int, size: int, *, write: bool
) -> None:
    """Check an access to a buffer whose size user space states when it attaches the program."""
    kind = pointer.type
    if kind.base is Base.TP_BUFFER:
        name = "tracepoint"
    else:
        name = "rdonly" if kind.mods & Mod.RDONLY else "rdwr"
    if write and kind.mods & Mod.RDONLY:
        raise Reject(Reason.RDONLY_WRITE, reg=regno, type=kind.label)
    s = pointer.scalar
    if off < 0:
        if env.rules.pointer_off_in_range:
            raise Reject(Reason.BUFFER_NEGATIVE_ONE, reg=regno, name=name, off=off, var_off=0)
        raise Reject(Reason.BUFFER_NEGATIVE, reg=regno, name=name, off=off, size=size)
    if s != ZERO:
        raise Reject(Reason.BUFFER_VARIABLE, reg=regno, off=off, var_off=var_off_text(s))
