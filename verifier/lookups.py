"""What a lookup in a map gives: a value, another map, a socket.

Before 7.3 the kernel calls all of them values until they are known not to be NULL
(mark_ptr_not_null_reg), later at once.
"""

from __future__ import annotations

from bpfvm.maps.base import Lookup
from verifier.env import Env
from verifier.state import Mod, RegState, RegType

__all__ = ["acquires", "found", "is_inner", "proven"]

_TYPES = {
    Lookup.MAP: RegType.MAP_PTR,
    Lookup.SOCKET: RegType.SOCKET,
    Lookup.XDP_SOCK: RegType.XDP_SOCK,
}


def _lookup(env: Env, index: int) -> Lookup:
    return env.map_types.traits(env.facts[index].defn).lookup


def acquires(env: Env, index: int) -> bool:
    """Say whether a lookup in map *index* gives a reference (kernel: is_acquire_function)."""
    return _lookup(env, index) is Lookup.SOCKET


def is_inner(env: Env, index: int) -> bool:
    """Say whether map *index* is an element of another."""
    return index in env.inner_maps.values()


def found(env: Env, index: int) -> RegState:
    """Return what a lookup in map *index* gives, to be checked for NULL."""
    value = RegState(RegType.MAP_VALUE_OR_NULL, id=env.new_id(), arg=index)
    lookup = _lookup(env, index)
    if lookup is Lookup.VALUE or not env.rules.lookup_refined_at_once:
        return value
    arg = env.inner_maps[index] if lookup is Lookup.MAP else 0
    return value._replace(type=_TYPES[lookup].having(Mod.MAYBE_NULL), arg=arg)


def proven(env: Env, reg: RegState) -> RegState:
    """Return maybe-null *reg* once it is known not to be NULL."""
    lookup = _lookup(env, reg.arg) if reg.type is RegType.MAP_VALUE_OR_NULL else Lookup.VALUE
    if lookup is Lookup.VALUE:
        return reg._replace(type=reg.type.without(Mod.MAYBE_NULL))
    arg = env.inner_maps[reg.arg] if lookup is Lookup.MAP else 0
    return reg._replace(type=_TYPES[lookup], arg=arg)
