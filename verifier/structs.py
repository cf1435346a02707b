"""Loads from structs of the kernel, member by member, by the kernel's own BTF.

Rules: Linux 7.3 (btf_struct_access, btf_struct_walk, check_ptr_to_btf_access).
"""

from __future__ import annotations

from typing import NamedTuple

from bpfvm.btf import BtfKind, BtfType
from bpfvm.kernel_btf import KernelBtf
from verifier.env import Env
from verifier.reasons import Reason, Reject
from verifier.resources import sleep_context
from verifier.state import UNKNOWN_REG, Mod, RegState, RegType

__all__ = ["load_member"]

_COMPOSITE = (BtfKind.STRUCT, BtfKind.UNION)
_TAGS = {"user": Mod.USER, "percpu": Mod.PERCPU, "rcu": Mod.RCU}
_UNTRUSTED_MEM = RegState(RegType.MEM.having(Mod.RDONLY | Mod.UNTRUSTED))
_PLAIN = RegType.BTF_ID
#: What makes a pointer one that its holder may rely on, and what takes that away.
_TRUSTED = Mod.TRUSTED | Mod.ALLOC
_UNSAFE = Mod.MAYBE_NULL | Mod.UNTRUSTED | Mod.RCU


class _Pointer(NamedTuple):
    """A member that points to a struct."""

    struct: str
    member: str
    mods: Mod


def load_member(
    env: Env, struct: str, off: int, size: int, held: RegState | None = None
) -> RegState:
    """Return what a load of *size* bytes at byte *off* of the kernel's struct gives; *held*: by
    way of which pointer, None: a map's.

    Raises:
        Reject: there is no such member, or it can't be loaded so.
    """
    btf = env.kernel_types.btf
    found = None if btf is None else btf.composite(struct)
    if btf is None or found is None:
        raise Reject(Reason.NOT_SUPPORTED, what=f"loads from struct {struct} of the kernel")
    value = _walk(btf, found, off, size)
    if not isinstance(value, _Pointer):
        return value
    mods = value.mods if held is None else _mods(env, btf, struct, value, held)
    id_ = env.new_id() if mods & Mod.MAYBE_NULL else 0
    return RegState(_PLAIN.having(mods), id=id_, info=value.struct)


def _mods(env: Env, btf: KernelBtf, struct: str, found: _Pointer, held: RegState) -> Mod:
    """Return how far a pointer that was loaded through *held* may be relied on."""
    kind = held.type
    if kind.mods & Mod.UNTRUSTED:
        return Mod.UNTRUSTED
    is_trusted = bool(held.ref) or (kind.mods & _TRUSTED and not kind.mods & _UNSAFE)
    if not is_trusted and not kind.mods & Mod.RCU:
        return found.mods & ~(_TRUSTED | Mod.RCU)

    def listed(suffix: str) -> bool:
        return _is_listed(btf, struct + suffix, found)

    if listed("__safe_trusted"):
        return found.mods | Mod.TRUSTED
    if listed("__safe_trusted_or_null"):
        return found.mods | Mod.TRUSTED | Mod.MAYBE_NULL
    if not sleep_context(env) or kind.may_be_null:
        return Mod.UNTRUSTED
    if listed("__safe_rcu"):
        return found.mods | Mod.RCU
    if listed("__safe_rcu_or_null"):
        return (found.mods | Mod.RCU | Mod.MAYBE_NULL) & ~Mod.UNTRUSTED
    if found.mods & Mod.RCU:
        return found.mods | Mod.MAYBE_NULL
    if found.mods & (Mod.PERCPU | Mod.USER):
        return found.mods
    return found.mods & ~(_TRUSTED | Mod.RCU)


def _is_listed(btf: KernelBtf, name: str, found: _Pointer) -> bool:
    """Say whether the kernel lists the member among those that share their struct's trust."""
    listed = btf.composite(name)
    if listed is None:
        return False
    for member in btf.members(listed):
        target = btf.type(member.type_id)
        if member.name == found.member and target.kind is BtfKind.PTR:
            return btf.pointee(target)[0].name == found.struct
    return False


def _walk(btf: KernelBtf, struct: BtfType, off: int, size: int) -> RegState | _Pointer:
    """Go down to the member at *off* (kernel: btf_struct_walk)."""
    mods = Mod.NONE
    while True:
        name = struct.name
        if struct.kind is BtfKind.UNION and struct.vlen != 1:
            mods |= Mod.UNTRUSTED
        if off + size > struct.ref:
            struct, off = _flexible(btf, struct, off, size)
            if struct.kind not in _COMPOSITE:
                return UNKNOWN_REG
            continue
        inner = None
        for member in btf.members(struct):
            at = member.bit // 8
            if off + size <= at:
                break
            if member.bits:
                if off <= at and -(-(member.bit + member.bits) // 8) <= off + size:
                    return UNKNOWN_REG
                continue
            if off < at:
                break
            target, count = _element(btf, member.type_id)
            end = at + btf.size_of(member.type_id)
            if off >= end or at == end:
                continue
            if count != 1:
                width = (end - at) // count
                at += (off - at) // width * width
            if target.kind in _COMPOSITE:
                inner, off = target, off - at
                break
            if target.kind is BtfKind.PTR:
                return _pointer(btf, target, member.name, name, at, off, size, mods)
            if off + size > end and not mods & Mod.UNTRUSTED:
                raise Reject(
                    Reason.MEMBER_END, member=member.name, end=end, struct=name, off=off, size=size
                )
            return UNKNOWN_REG
        if inner is None:
            raise Reject(Reason.NO_MEMBER, struct=name, off=off)
        struct = inner


def _element(btf: KernelBtf, type_id: int) -> tuple[BtfType, int]:
    """Return the type of a member, of an array its elements', and how many there are."""
    found, count = btf.resolve(type_id), 1
    while found.kind is BtfKind.ARRAY:
        element, _, length = found.extra[0]
        found, count = btf.resolve(element), count * length
    return found, count


def _flexible(btf: KernelBtf, struct: BtfType, off: int, size: int) -> tuple[BtfType, int]:
    """Return the element at *off* of the array without an end that *struct* ends with."""
    members = list(btf.members(struct))
    if members:
        last = btf.resolve(members[-1].type_id)
        at = members[-1].bit // 8
        if last.kind is BtfKind.ARRAY and not last.extra[0][2] and off >= at:
            element = btf.resolve(last.extra[0][0])
            if element.kind is BtfKind.INT:
                return element, 0
            if element.kind in _COMPOSITE and element.ref:
                return element, (off - at) % element.ref
    raise Reject(Reason.BEYOND_STRUCT, struct=struct.name, off=off, size=size)


def _pointer(
    btf: KernelBtf,
    pointer: BtfType,
    member: str,
    struct: str,
    at: int,
    off: int,
    size: int,
    mods: Mod,
) -> RegState | _Pointer:
    if size != 8 or off != at:
        raise Reject(Reason.MEMBER_POINTER, member=member, at=at, struct=struct, off=off, size=size)
    target, tags = btf.pointee(pointer)
    if target.kind not in _COMPOSITE:
        return _UNTRUSTED_MEM
    for tag in tags:
        mods |= _TAGS.get(tag, Mod.NONE)
    return _Pointer(target.name, member, mods)
