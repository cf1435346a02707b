"""Loads, stores and atomics: what a memory operand may point to, and what an access leaves.

Rules: Linux 6.18 (check_mem_access and its kin). Stack accesses are in `verifier.stack`.
"""

from __future__ import annotations

from bpfvm.bits import s64, sext, u64
from bpfvm.insn import Insn
from bpfvm.isa import AtomicOp, InsnDef, Kind
from bpfvm.maps.base import MapFlags
from bpfvm.memory import RegionKind
from bpfvm.program import LocalType
from verifier import bounds, stack, tnum
from verifier.bounds import UNKNOWN, Scalar, var_off_text
from verifier.ctx import access_ctx
from verifier.domain import RANGES, Domain
from verifier.env import Env, Step
from verifier.extent import check_fields_untouched, check_region
from verifier.objects import check_member
from verifier.privs import check_leak, check_struct_access
from verifier.reasons import Reason, Reject
from verifier.sockets import SOCKET_TYPES, check_buffer, check_flow_keys, check_sock, check_struct
from verifier.state import (
    UNKNOWN_REG,
    Base,
    FuncState,
    Mod,
    RegState,
    RegType,
    const_reg,
)
from verifier.structs import load_member
from verifier.transfer import check_writable, guard, readable

__all__ = [
    "check_alignment",
    "check_map_access",
    "check_mem_access",
    "check_packet_access",
    "compile_atomic",
    "compile_load",
    "compile_store",
]

#: kernel: BPF_MAX_VAR_OFF, BPF_F_STRICT_ALIGNMENT
MAX_VAR_OFF = 1 << 29
STRICT_ALIGNMENT = 1

_SCALAR, _NOT_INIT = RegType.SCALAR, RegType.NOT_INIT
_STACK, _ARENA, _CTX = RegType.STACK, RegType.ARENA, RegType.CTX
_UNTRUSTED_MEM = RegType.MEM.having(Mod.RDONLY | Mod.UNTRUSTED)
_MAP_VALUE, _MAP_PTR = RegType.MAP_VALUE, RegType.MAP_PTR
_PACKETS = (RegType.PACKET, RegType.PACKET_META)

_REGION = {
    Base.STACK: RegionKind.STACK,
    Base.CTX: RegionKind.CTX,
    Base.PACKET: RegionKind.PACKET,
    Base.PACKET_META: RegionKind.PACKET,
    Base.MAP_VALUE: RegionKind.MAP_VALUE,
    Base.MAP_KEY: RegionKind.MEM,
    Base.MEM: RegionKind.MEM,
    Base.ARENA: RegionKind.ARENA,
}
#: Types that one insn may not meet together with any other.
_EXCLUSIVE = frozenset({Base.CTX, Base.ARENA, Base.BTF_ID, *(t.base for t in SOCKET_TYPES)})


def _narrowed(domain: Domain, scalar: Scalar, size: int, *, sx: bool) -> Scalar:
    return domain.sign_extend(scalar, size, 64) if sx else domain.coerce_to_size(scalar, size)


#: What a load gives of which nothing is known, by (size, sign-extended); the same in any domain.
_UNKNOWN_LOAD = {
    (size, sx): UNKNOWN_REG
    if size == 8
    else RegState(_SCALAR, _narrowed(RANGES, UNKNOWN, size, sx=sx))
    for size in (1, 2, 4, 8)
    for sx in (False, True)
}


# -- insns -------------------------------------------------------------------------------------


def compile_load(_env: Env, idx: int, insn: Insn, row: InsnDef) -> Step:
    """Return the step of a load or acquire load."""
    dst, src, off, size, sx = insn.dst, insn.src, insn.off, row.size, bool(row.sx)
    refused = guard((src,), dst)
    if refused:
        return refused
    is_atomic = row.kind is Kind.LOAD_ACQ

    def step(env: Env, frame: FuncState) -> int:
        regs = frame.regs
        pointer = regs[src]
        kind = pointer.type
        if kind is _NOT_INIT:
            raise Reject(Reason.NOT_READABLE, reg=src)
        if is_atomic and env.rules.atomic_load_type_first:
            _check_acquire(src, kind)
        value = load(env, idx, src, pointer, off, size, sx=sx, strict=is_atomic)
        regs[dst] = _cut(env, value, size, sx=sx)
        _note_pointer(env, idx, kind)
        if is_atomic and not env.rules.atomic_load_type_first:
            _check_acquire(src, regs[src].type)
            if kind in _NOT_ATOMIC:
                _check_acquire(src, kind)
        return idx + 1

    return step


def _cut(env: Env, value: RegState, size: int, *, sx: bool) -> RegState:
    """Return what a load of *size* bytes leaves of *value*."""
    if value.type is not _SCALAR or size == 8:
        return value
    if value is UNKNOWN_REG:
        return _UNKNOWN_LOAD[size, sx]
    related = value.id and not (sx and value.scalar.umax >> (8 * size - 1))
    return value._replace(
        scalar=_narrowed(env.domain, value.scalar, size, sx=sx),
        id=value.id if related else 0,
        off=value.off if related else 0,
    )


def compile_store(_env: Env, idx: int, insn: Insn, row: InsnDef) -> Step:
    """Return the step of a store of a register or constant, or of a release store."""
    dst, src, off, size = insn.dst, insn.src, insn.off, row.size
    is_reg = row.kind is not Kind.ST
    refused = guard((src, dst) if is_reg else (dst,))
    if refused:
        return refused
    imm = const_reg(insn.imm)
    is_atomic = row.kind is Kind.STORE_REL

    def step(env: Env, frame: FuncState) -> int:
        value = frame.regs[src] if is_reg else imm
        if value.type is _NOT_INIT:
            raise Reject(Reason.NOT_READABLE, reg=src)
        pointer = readable(frame, dst)
        kind = pointer.type
        save(
            env,
            idx,
            frame,
            dst,
            pointer,
            off,
            size,
            value=value,
            value_regno=src if is_reg else None,
            strict=is_atomic,
        )
        _note_pointer(env, idx, kind)
        if is_atomic and kind in _NOT_ATOMIC:
            raise Reject(Reason.ATOMIC_STORE_TYPE, reg=dst, type=kind.label)
        return idx + 1

    return step


#: Pointers through which atomics are refused (kernel: atomic_ptr_type_ok).
_NOT_ATOMIC = (_CTX, *_PACKETS, RegType.FLOW_KEYS, *SOCKET_TYPES)
#: Fetching operations that the x86-64 JIT does not have for arenas.
_NOT_ON_ARENA = (AtomicOp.AND, AtomicOp.OR, AtomicOp.XOR)


def _check_acquire(regno: int, kind: RegType) -> None:
    if kind in _NOT_ATOMIC:
        raise Reject(Reason.ATOMIC_LOAD_TYPE, reg=regno, type=kind.label)


def compile_atomic(_env: Env, idx: int, insn: Insn, row: InsnDef) -> Step:
    """Return the step of a read-modify-write."""
    dst, src, off, size, op = insn.dst, insn.src, insn.off, row.size, row.op
    reads = (src, dst, 0) if op is AtomicOp.CMPXCHG else (src, dst)
    values = (0, src) if op is AtomicOp.CMPXCHG else (src,)
    refused = guard(reads)
    if refused:
        return refused
    result = None if not row.fetch else 0 if op is AtomicOp.CMPXCHG else src

    def step(env: Env, frame: FuncState) -> int:
        for regno in reads:
            readable(frame, regno)
        for regno in values:
            check_leak(env, regno, frame.regs[regno], "mem")
        pointer = frame.regs[dst]
        kind = pointer.type
        if kind in _NOT_ATOMIC or (kind is _ARENA and row.fetch and op in _NOT_ON_ARENA):
            raise Reject(Reason.ATOMIC_STORE_TYPE, reg=dst, type=kind.label)
        if result is not None:
            check_writable(result)
            # The kernel forgets the result register before it looks at the address.
            frame.regs[result] = _UNKNOWN_LOAD[size, False]
            pointer = frame.regs[dst]
        load(env, idx, dst, pointer, off, size, sx=False, strict=True, to_reg=False)
        if result is not None:
            old = load(env, idx, dst, pointer, off, size, sx=False, strict=True)
            frame.regs[result] = _cut(env, old, size, sx=False)
        save(
            env,
            idx,
            frame,
            dst,
            pointer,
            off,
            size,
            value=None,
            value_regno=None,
            strict=True,
        )
        _note_atomic(env, idx, kind)
        return idx + 1

    return step


# -- one insn, one kind of pointer -------------------------------------------------------------


def _note_pointer(env: Env, idx: int, kind: RegType) -> None:
    """Refuse an insn that meets pointers which need different machine code."""
    before = env.pointer_types[idx]
    if before is None:
        env.pointer_types[idx] = kind
    elif before is not kind and (before.base in _EXCLUSIVE or kind.base in _EXCLUSIVE):
        raise Reject(Reason.SAME_INSN)
    env.note_access(idx, _REGION.get(kind.base, RegionKind.MEM))


def _note_atomic(env: Env, idx: int, kind: RegType) -> None:
    before = env.pointer_types[idx]
    if (
        before is not None
        and before is not kind
        and _ARENA in (before, kind)
        and not env.rules.arena_atomic_merge_check
    ):
        # 6.18 accepts this and makes wrong machine code of it.
        raise Reject(Reason.NOT_SUPPORTED, what="an atomic insn with arena and other pointers")
    _note_pointer(env, idx, kind)


def _check_untrusted(env: Env, kind: RegType) -> None:
    """Refuse to read untrusted memory, whose loads may fault, to users who may not read any."""
    if env.rules.kfunc_capabilities and not env.privs.allow_ptr_leaks:
        raise Reject(Reason.UNTRUSTED_PERM, type=kind.label)


# -- by kind of pointer ------------------------------------------------------------------------


def load(
    env: Env,
    idx: int,
    regno: int,
    pointer: RegState,
    off: int,
    size: int,
    *,
    sx: bool,
    strict: bool,
    to_reg: bool = True,
) -> RegState:
    """Check a load of *size* bytes at `pointer + off`; return what it gives, not cut to size."""
    kind = pointer.type
    check_alignment(env, pointer, off, size, strict=strict)
    at = off + pointer.off
    if kind is _STACK:
        return stack.fill(env, regno, pointer, at, size, to_reg=to_reg)
    if kind is _ARENA:
        return UNKNOWN_REG
    if kind is _MAP_VALUE:
        check_map_access(env, regno, pointer, at, size, write=False)
        return _constant(env, pointer, at, size, sx=sx)
    if kind is _CTX:
        return access_ctx(env, idx, regno, pointer, off, size, write=False, sx=sx)
    if kind in _PACKETS:
        check_packet_access(env, regno, pointer, at, size)
        return UNKNOWN_REG
    if kind.base is Base.MEM and not kind.may_be_null:
        if kind is _UNTRUSTED_MEM:
            _check_untrusted(env, kind)
        else:
            check_mem_access(env, regno, pointer, at, size)
        return UNKNOWN_REG
    is_own = isinstance(pointer.info, LocalType)
    if kind.base is Base.BTF_ID and not kind.may_be_null and not is_own:
        struct = check_struct(env, pointer, regno, at, write=False)
        return load_member(env, struct, at, size, pointer)
    if _access_object(env, regno, pointer, at, size, write=False):
        return UNKNOWN_REG
    if kind is _MAP_PTR:
        struct = _check_map_ptr(env, regno, pointer, at, write=False)
        env.shown_maps.add(pointer.arg)
        return load_member(env, struct, at, size)
    raise Reject(Reason.INVALID_MEM, reg=regno, type=kind.label)


def save(
    env: Env,
    idx: int,
    frame: FuncState,
    regno: int,
    pointer: RegState,
    off: int,
    size: int,
    *,
    value: RegState | None,
    value_regno: int | None,
    strict: bool,
) -> None:
    """Check a store of *size* bytes at `pointer + off`, and do it where it is to the stack."""
    kind = pointer.type
    check_alignment(env, pointer, off, size, strict=strict)
    at = off + pointer.off
    if kind is _STACK:
        stack.store(env, frame, regno, pointer, at, size, value=value, value_regno=value_regno)
    elif kind is _ARENA:
        pass
    elif kind is _MAP_VALUE:
        check_leak(env, value_regno, value, "map")
        check_map_access(env, regno, pointer, at, size, write=True)
    elif kind is _CTX:
        check_leak(env, value_regno, value, "ctx")
        access_ctx(env, idx, regno, pointer, off, size, write=True, sx=False)
    elif kind in _PACKETS:
        if not env.prog_type.packet_write:
            raise Reject(Reason.PACKET_READ_ONLY)
        check_leak(env, value_regno, value, "packet")
        check_packet_access(env, regno, pointer, at, size)
    elif kind.base is Base.MEM and not kind.may_be_null:
        check_leak(env, value_regno, value, "mem")
        check_mem_access(env, regno, pointer, at, size, write=True)
    else:
        if kind is RegType.FLOW_KEYS:
            check_leak(env, value_regno, value, "flow keys")
        if _access_object(env, regno, pointer, at, size, write=True):
            return
        if kind is _MAP_PTR:
            _check_map_ptr(env, regno, pointer, at, write=True)
        raise Reject(Reason.INVALID_MEM, reg=regno, type=kind.label)


def _access_object(
    env: Env, regno: int, pointer: RegState, at: int, size: int, *, write: bool
) -> bool:
    """Check an access to what the kernel lends; False: *pointer* is to nothing of the kind."""
    kind = pointer.type
    if kind in SOCKET_TYPES:
        check_sock(pointer, regno, at, size, write=write)
    elif isinstance(pointer.info, LocalType) and not kind.may_be_null:
        check_member(pointer, regno, at, size, pointer.info)
    elif kind.base is Base.BTF_ID and not kind.may_be_null:
        check_struct(env, pointer, regno, at, write=write)
    elif kind is RegType.FLOW_KEYS:
        check_flow_keys(at, size)
    elif kind.base in (Base.TP_BUFFER, Base.BUF) and not kind.may_be_null:
        check_buffer(env, pointer, regno, at, size, write=write)
    elif kind is RegType.MAP_KEY:
        check_key_access(env, regno, pointer, at, size, write=write)
    else:
        return False
    return True


_ALIGN_WORDS = {
    Base.STACK: "stack ",
    Base.MAP_VALUE: "value ",
    Base.MAP_KEY: "key ",
    Base.CTX: "context ",
    Base.FLOW_KEYS: "flow keys ",
    Base.SOCKET: "sock ",
    Base.SOCK_COMMON: "sock_common ",
    Base.TCP_SOCK: "tcp_sock ",
    Base.XDP_SOCK: "xdp_sock ",
}


def check_alignment(env: Env, pointer: RegState, off: int, size: int, *, strict: bool) -> None:
    """Refuse an access that is not aligned where it must be (kernel: check_ptr_alignment).

    *strict*: whatever the program asks for.
    """
    kind = pointer.type
    if size == 1 or kind is _ARENA:
        return
    is_packet = kind in _PACKETS
    by_flag = bool(env.program.flags & STRICT_ALIGNMENT)
    if kind is not _STACK and not by_flag and (is_packet or not strict):
        return
    s = pointer.scalar
    fixed = pointer.off + off + (2 if is_packet else 0)
    t = tnum.add(bounds.var_off(s), tnum.const(u64(fixed)))
    if not (t.value | t.mask) & (size - 1):
        return
    if env.rules.pointer_off_in_range:
        whole = _signed_text(tnum.add(bounds.var_off(s), tnum.const(u64(pointer.off))))
        if is_packet:
            raise Reject(Reason.MISALIGNED_PACKET_ONE, var_off=whole, off=off, size=size)
        raise Reject(
            Reason.MISALIGNED_ONE,
            what=_ALIGN_WORDS.get(kind.base, ""),
            var_off=whole,
            off=off,
            size=size,
        )
    if is_packet:
        raise Reject(
            Reason.MISALIGNED_PACKET,
            var_off=var_off_text(s),
            reg_off=pointer.off,
            off=off,
            size=size,
        )
    raise Reject(
        Reason.MISALIGNED,
        what=_ALIGN_WORDS.get(kind.base, ""),
        var_off=var_off_text(s),
        reg_off=pointer.off,
        off=off,
        size=size,
    )


def _signed_text(t: tnum.Tnum) -> str:
    return str(s64(t.value)) if not t.mask else tnum.text(t)


def check_map_access(
    env: Env,
    regno: int,
    pointer: RegState,
    off: int,
    size: int,
    *,
    write: bool,
    zero_ok: bool = False,
) -> None:
    """Check an access of *size* bytes at `pointer + off` (with the pointer's own) to a value."""
    defn = env.facts[pointer.arg].defn
    value_size = defn.value_size
    if write and defn.flags & MapFlags.RDONLY_PROG:
        raise Reject(Reason.MAP_READ_ONLY, value_size=value_size, off=off, size=size)
    if not write and defn.flags & MapFlags.WRONLY_PROG:
        raise Reject(Reason.MAP_WRITE_ONLY, value_size=value_size, off=off, size=size)
    detail = f"invalid access to map value, value_size={value_size} off={{off}} size={{size}}"
    check_region(env, regno, pointer, off, size, value_size, detail, zero_ok=zero_ok)
    if defn.record:
        check_fields_untouched(pointer.scalar, off, size, defn.record)


def check_key_access(
    env: Env,
    regno: int,
    pointer: RegState,
    off: int,
    size: int,
    *,
    write: bool,
    zero_ok: bool = False,
) -> None:
    """Check an access of *size* bytes at `pointer + off` to a key that a callback was given."""
    if write:
        raise Reject(Reason.KEY_WRITE, reg=regno)
    limit = env.facts[pointer.arg].defn.key_size
    detail = f"invalid access to map key, key_size={limit} off={{off}} size={{size}}"
    check_region(env, regno, pointer, off, size, limit, detail, zero_ok=zero_ok)


def check_mem_access(
    env: Env,
    regno: int,
    pointer: RegState,
    off: int,
    size: int,
    *,
    write: bool = False,
    zero_ok: bool = False,
) -> None:
    """Check an access of *size* bytes at `pointer + off` (with the pointer's own) to memory."""
    if write and pointer.type.mods & Mod.RDONLY:
        raise Reject(Reason.RDONLY_WRITE, reg=regno, type=pointer.type.label)
    detail = f"invalid access to memory, mem_size={pointer.arg} off={{off}} size={{size}}"
    check_region(env, regno, pointer, off, size, pointer.arg, detail, zero_ok=zero_ok)


def _constant(env: Env, pointer: RegState, off: int, size: int, *, sx: bool) -> RegState:
    """Return what a load from a map value gives: a constant where the map is frozen."""
    contents = env.facts[pointer.arg].contents
    defn = env.facts[pointer.arg].defn
    if contents is None or pointer.scalar.mask or not defn.flags & MapFlags.RDONLY_PROG:
        return UNKNOWN_REG
    at = pointer.scalar.value + off
    value = int.from_bytes(contents[at : at + size], "little")
    return const_reg(sext(value, 8 * size) if sx else value)


def check_packet_access(
    env: Env, regno: int, pointer: RegState, off: int, size: int, *, zero_ok: bool = False
) -> None:
    """Check that *size* bytes at `pointer + off` are proven to lie in the packet."""
    limit = pointer.arg
    scalar = pointer.scalar
    fits = off >= 0 and off + size <= limit and (size > 0 or zero_ok)
    detail = "invalid access to packet, off={off} size={size}, R{reg}(id={id},off={at},r={limit})"

    def told(start: int, at: int, proven: int) -> list[str]:
        return [detail.format(off=start, size=size, reg=regno, id=pointer.id, at=at, limit=proven)]

    if not env.rules.packet_region_messages:
        if scalar.smin < 0:
            raise Reject(Reason.MIN_NEGATIVE, reg=regno)
        if limit < 0:
            raise Reject(Reason.PACKET_END_MARKED, reg=regno)
        if not fits:
            raise Reject(Reason.PACKET_OUTSIDE, before=told(off, pointer.off, limit), reg=regno)
        return
    if limit < 0:
        raise Reject(Reason.PACKET_END_MARKED, reg=regno)
    # 7.3 tells of a range that includes the variable part: from `low` to `high`, of `proven`.
    low, high = scalar.smin + off, scalar.smax + off
    proven = limit + scalar.smax if limit else 0
    if low < 0 and scalar.smin + pointer.off < 0:
        raise Reject(Reason.MIN_NEGATIVE, reg=regno)
    if low < 0 or (not fits and low + size > proven) or (not size and not zero_ok):
        raise Reject(Reason.MIN_OUTSIDE, before=told(low, low, proven), reg=regno)
    if scalar.smin + pointer.off < 0:  # as an unsigned number it is large
        raise Reject(Reason.UNBOUNDED_ACCESS, reg=regno)
    if off + size > limit:
        raise Reject(Reason.MAX_OUTSIDE, before=told(high, high, proven), reg=regno)


def _check_map_ptr(env: Env, regno: int, pointer: RegState, off: int, *, write: bool) -> str:
    """Check an access through a map pointer; return the kernel's struct that it is to (kernel:
    check_ptr_to_map_access)."""
    struct = env.map_types.traits(env.facts[pointer.arg].defn).kernel_struct
    check_struct_access(env, struct)
    if off < 0:
        raise Reject(Reason.MAP_PTR_NEGATIVE, reg=regno, struct=struct, off=off)
    if write:
        raise Reject(Reason.MAP_PTR_WRITE, struct=struct)
    return struct
