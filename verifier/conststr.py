"""Constant strings, which lie in maps that nobody can write. Kernel: check_reg_const_str."""

from __future__ import annotations

from bpfvm.bits import s64
from bpfvm.maps.base import MapFlags, MapType
from verifier.env import Env
from verifier.extent import check_region
from verifier.reasons import Reason, Reject
from verifier.state import RegState

__all__ = ["check_const_str"]


def check_const_str(env: Env, reg: RegState, regno: int) -> None:
    """Refuse a map value that is no constant string up to a NUL."""
    facts = env.facts[reg.arg]
    if facts.defn.map_type == MapType.PERCPU_ARRAY and env.rules.no_percpu_strings:
        raise Reject(Reason.STR_PER_CPU, reg=regno)
    if facts.contents is None or not facts.defn.flags & MapFlags.RDONLY_PROG:
        raise Reject(Reason.STR_NOT_READ_ONLY, reg=regno)
    if reg.scalar.mask:
        raise Reject(Reason.STR_NOT_CONST, reg=regno)
    size = facts.defn.value_size
    detail = f"invalid access to map value, value_size={size} off={{off}} size={{size}}"
    check_region(env, regno, reg, reg.off, size - reg.off, size, detail)
    start = reg.off + s64(reg.scalar.value)
    if b"\0" not in facts.contents[start:]:
        raise Reject(Reason.STR_NOT_TERMINATED)
