"""Accesses to the context, and what a load of it gives.

Rules: Linux 6.18 (check_ctx_access, __check_ptr_off_reg), 7.3 (constant offsets, and any into the
context of syscall programs: is_var_ctx_off_allowed).
"""

from __future__ import annotations

from bpfvm.bits import s64
from bpfvm.context import CtxKind
from verifier.bounds import var_off_text
from verifier.caps import grants_field
from verifier.env import Env
from verifier.extent import check_region
from verifier.hooks import load_argument
from verifier.reasons import Reason, Reject
from verifier.state import UNKNOWN_REG, Base, Mod, RegState, RegType

__all__ = ["access_ctx", "access_ctx_freely", "check_ctx_pointer", "moves_freely"]

#: kernel: U16_MAX, the size of a syscall program's context as far as it is known before it runs.
CTX_LIMIT = 65535

_TRUSTED = RegType.of(Base.BTF_ID, Mod.TRUSTED)
_RESULT = {
    CtxKind.SCALAR: UNKNOWN_REG,
    CtxKind.PACKET: RegState(RegType.PACKET),
    CtxKind.PACKET_META: RegState(RegType.PACKET_META),
    CtxKind.PACKET_END: RegState(RegType.PACKET_END),
    CtxKind.SOCKET: RegState(RegType.SOCKET),
    CtxKind.SOCKET_OR_NULL: RegState(RegType.SOCKET.having(Mod.MAYBE_NULL)),
    CtxKind.SOCK_COMMON_OR_NULL: RegState(RegType.SOCK_COMMON.having(Mod.MAYBE_NULL)),
    CtxKind.FLOW_KEYS: RegState(RegType.FLOW_KEYS),
    CtxKind.TP_BUFFER: RegState(RegType.TP_BUFFER),
    CtxKind.SK_BUFF: RegState(_TRUSTED, info="sk_buff"),
    CtxKind.NF_HOOK_STATE: RegState(_TRUSTED, info="nf_hook_state"),
}
#: What may not be loaded with sign extension (and what the kernel does not ask about).
_NO_SIGN = (CtxKind.PACKET, CtxKind.PACKET_META, CtxKind.PACKET_END)


def access_ctx(
    env: Env,
    idx: int,
    regno: int,
    pointer: RegState,
    off: int,
    size: int,
    *,
    write: bool,
    sx: bool,
) -> RegState:
    """Check an access to the context; return what a load of it gives."""
    prog_type = env.prog_type
    if moves_freely(env):
        access_ctx_freely(env, regno, pointer, off + pointer.off, size)
        return UNKNOWN_REG
    check_ctx_pointer(env, regno, pointer, may_move=not prog_type.rewritten)
    at = off + pointer.off
    if prog_type.is_hooked:
        if write:
            raise Reject(Reason.CTX_ACCESS, off=at, size=size)
        return load_argument(env, at, size)
    attach = env.program.expected_attach_type
    access = prog_type.ctx_access(at, size, write=write, attach=attach)
    if access is not None and not grants_field(env.privs, prog_type, at, write=write):
        access = None
    if access is not None and not env.privs.bpf_capable:
        field = prog_type.field_at(at)
        capable = prog_type.capable_writes if write else prog_type.capable_reads
        if field is not None and field.name in capable:
            access = None
    if access is None or (sx and access.kind in _NO_SIGN):
        raise Reject(Reason.CTX_ACCESS, off=at, size=size)
    if prog_type.fields is not None:
        env.ctx_access[idx] = access
    env.max_ctx_offset = max(env.max_ctx_offset, at + size)
    result = _RESULT[access.kind]
    return result._replace(id=env.new_id()) if result.type.may_be_null else result


def moves_freely(env: Env) -> bool:
    """Say whether the context is memory of which any byte may be used."""
    return env.rules.ctx_const_offset and env.prog_type.ctx_memory


def access_ctx_freely(
    env: Env, regno: int, pointer: RegState, off: int, size: int, *, zero_ok: bool = False
) -> None:
    """Check an access of *size* bytes at `pointer + off` (with the pointer's own) to a context
    that moves freely."""
    detail = f"invalid access to context, ctx_size={CTX_LIMIT} off={{off}} size={{size}}"
    check_region(env, regno, pointer, off, size, CTX_LIMIT, detail, zero_ok=zero_ok)
    env.max_ctx_offset = max(env.max_ctx_offset, pointer.scalar.umax + off + size)


def check_ctx_pointer(env: Env, regno: int, pointer: RegState, *, may_move: bool) -> None:
    """Refuse a context pointer that was moved (*may_move*: by a constant is fine, from 7.3)."""
    s = pointer.scalar
    whole = pointer.off + (0 if s.mask else s64(s.value))
    late = env.rules.ctx_const_offset
    if s.mask and late:
        raise Reject(Reason.CTX_VARIABLE, var_off=var_off_text(s))
    if whole < 0:
        raise Reject(Reason.CTX_NEGATIVE, reg=regno, off=whole)
    if whole and not (late and may_move):
        raise Reject(Reason.CTX_MODIFIED, reg=regno, off=whole)
    if s.mask:
        raise Reject(Reason.CTX_VARIABLE, var_off=var_off_text(s))
