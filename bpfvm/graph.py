"""Objects of a program's own structs, and the lists that hold them.

An object is memory of its own, whatever else the program keeps in it. A list's head and nodes are
laid out as the kernel has them (struct list_head, and the head that owns a node), all zeros where
nothing was ever put in.
"""

from __future__ import annotations

import struct
from errno import EINVAL

from bpfvm.errors import RunFault
from bpfvm.memory import RegionKind, RegionSpec
from bpfvm.proto import ArgType, Effect, KfuncFlags, RetType, kfunc
from bpfvm.record import FieldKind
from bpfvm.runtime import Object, RunContext

__all__ = [
    "bpf_list_pop_back",
    "bpf_list_pop_front",
    "bpf_list_push_back",
    "bpf_list_push_back_impl",
    "bpf_list_push_front",
    "bpf_list_push_front_impl",
    "bpf_obj_drop",
    "bpf_obj_drop_impl",
    "bpf_obj_new",
    "bpf_obj_new_impl",
]

_LINKS, _OWNER = struct.Struct("<QQ"), struct.Struct("<Q")
#: Where the owner stands in a node, behind its links.
_OWNER_OFF = 16
_SAFE = KfuncFlags.SPINLOCK_SAFE


# -- objects -------------------------------------------------------------------------------------


def _new(run: RunContext, type_id: int) -> int:
    kind = next((t for t in run.program.types if t.id == type_id), None)
    if kind is None:
        raise RunFault(run.pc, f"no struct of number {type_id}")
    if run.fail_alloc is not None and run.fail_alloc():
        return 0
    spec = RegionSpec(max(kind.size, 1), RegionKind.MEM)
    region = run.machine.space.borrow(spec)
    region.view[:] = bytes(len(region.view))
    run.machine.objects[region.base] = Object(kind, spec, region)
    return region.base


def _drop(run: RunContext, base: int) -> None:
    """Free the object at *base*, and what its lists hold (kernel: __bpf_obj_drop_impl)."""
    waiting = [base]
    while waiting:
        found = run.machine.objects.pop(waiting.pop(), None)
        if found is None:
            raise RunFault(run.pc, "an object that is none is dropped")
        for field in found.kind.fields:
            if field.kind is FieldKind.LIST_HEAD and field.holds is not None:
                head = found.region.base + field.off
                while node := _pop(run, head, at_end=False):
                    waiting.append(node - field.holds.off)
        run.machine.space.give_back(found.spec, found.region)


@kfunc(RetType.OBJECT_OR_NULL, (ArgType.KF_TYPE_ID, ArgType.KF_IGNORE), acquires=True)
def bpf_obj_new_impl(run: RunContext, type_id: int, _meta: int) -> int:
    """Return a new object, all zeros, or 0."""
    return _new(run, type_id)


@kfunc(RetType.OBJECT_OR_NULL, (ArgType.KF_TYPE_ID,), acquires=True)
def bpf_obj_new(run: RunContext, type_id: int) -> int:
    """Return a new object, all zeros, or 0."""
    return _new(run, type_id)


@kfunc(RetType.VOID, (ArgType.KF_OBJECT, ArgType.KF_IGNORE), releases=1)
def bpf_obj_drop_impl(run: RunContext, obj: int, _meta: int) -> int:
    """Free an object."""
    _drop(run, obj)
    return 0


@kfunc(RetType.VOID, (ArgType.KF_OBJECT,), releases=1)
def bpf_obj_drop(run: RunContext, obj: int) -> int:
    """Free an object."""
    _drop(run, obj)
    return 0


# -- lists ---------------------------------------------------------------------------------------


def _links(run: RunContext, addr: int) -> tuple[int, int]:
    """Return the next and the previous of the head or node at *addr*."""
    after, before = _LINKS.unpack(run.read(addr, _LINKS.size))
    return int(after), int(before)


def _link(run: RunContext, before: int, after: int) -> None:
    """Let *after* follow *before*."""
    run.write(before, _OWNER.pack(after))
    run.write(after + 8, _OWNER.pack(before))


def _push(run: RunContext, head: int, node: int, *, at_end: bool) -> int:
    """Kernel: __bpf_list_add."""
    first, last = _links(run, head)
    if not first:
        _link(run, head, head)
        first = last = head
    if any(run.read(node + _OWNER_OFF, _OWNER.size)):
        objects = run.machine.objects.items()
        _drop(run, next((b for b, obj in objects if b <= node < b + obj.region.size), 0))
        return -EINVAL
    before, after = (last, head) if at_end else (head, first)
    _link(run, before, node)
    _link(run, node, after)
    run.write(node + _OWNER_OFF, _OWNER.pack(head))
    return 0


def _pop(run: RunContext, head: int, *, at_end: bool) -> int:
    """Kernel: __bpf_list_del."""
    first, last = _links(run, head)
    node = last if at_end else first
    if node in (0, head):
        return 0
    after, before = _links(run, node)
    _link(run, before, after)
    _link(run, node, node)
    run.write(node + _OWNER_OFF, _OWNER.pack(0))
    return node


_PUSH = (ArgType.KF_LIST_HEAD, ArgType.KF_LIST_NODE)
_PUSH_IMPL = (*_PUSH, ArgType.KF_IGNORE, ArgType.KF_IGNORE)


@kfunc(RetType.INT32, _PUSH_IMPL, flags=_SAFE, effect=Effect.GIVE_NODE)
def bpf_list_push_front_impl(run: RunContext, head: int, node: int, _meta: int, _off: int) -> int:
    """Put an object at the list's beginning; -EINVAL, and the object goes: it is in a list."""
    return _push(run, head, node, at_end=False)


@kfunc(RetType.INT32, _PUSH, flags=_SAFE, effect=Effect.GIVE_NODE)
def bpf_list_push_front(run: RunContext, head: int, node: int) -> int:
    """Put an object at the list's beginning; -EINVAL, and the object goes: it is in a list."""
    return _push(run, head, node, at_end=False)


@kfunc(RetType.INT32, _PUSH_IMPL, flags=_SAFE, effect=Effect.GIVE_NODE)
def bpf_list_push_back_impl(run: RunContext, head: int, node: int, _meta: int, _off: int) -> int:
    """Put an object at the list's end; -EINVAL, and the object goes: it is in a list."""
    return _push(run, head, node, at_end=True)


@kfunc(RetType.INT32, _PUSH, flags=_SAFE, effect=Effect.GIVE_NODE)
def bpf_list_push_back(run: RunContext, head: int, node: int) -> int:
    """Put an object at the list's end; -EINVAL, and the object goes: it is in a list."""
    return _push(run, head, node, at_end=True)


@kfunc(RetType.NODE_OR_NULL, (ArgType.KF_LIST_HEAD,), flags=_SAFE, acquires=True)
def bpf_list_pop_front(run: RunContext, head: int) -> int:
    """Take the list's first node out, and return it; 0: the list is empty."""
    return _pop(run, head, at_end=False)


@kfunc(RetType.NODE_OR_NULL, (ArgType.KF_LIST_HEAD,), flags=_SAFE, acquires=True)
def bpf_list_pop_back(run: RunContext, head: int) -> int:
    """Take the list's last node out, and return it; 0: the list is empty."""
    return _pop(run, head, at_end=True)
