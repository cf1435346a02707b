"""Objects of the program's own structs: made, followed, handed to lists, dropped.

A program that holds an object must drop it or give it away. What it gives to a list it may still
read and write, until the lock of the list is given back (a non-owning reference). Rules: Linux
6.18 and 7.3 (check_special_kfunc, __process_kf_arg_ptr_to_graph_root and _node, btf_struct_access,
ref_convert_owning_non_owning).
"""

from __future__ import annotations

from collections.abc import Sequence

from bpfvm.bits import U32_MAX, s64
from bpfvm.errors import InternalError
from bpfvm.program import LocalType
from bpfvm.record import Contained, FieldKind, MapField
from verifier.bounds import ZERO, var_off_text
from verifier.env import Env, arg_name
from verifier.reasons import Reason, Reject
from verifier.resources import acquire, drop
from verifier.state import LOCKS, FuncState, Mod, RegState, RegType, replace_regs

__all__ = [
    "OBJECT",
    "check_head",
    "check_member",
    "check_node",
    "check_owned",
    "forget_given",
    "give_away",
    "new_object",
    "node_of",
    "struct_named",
]

OBJECT = RegType.BTF_ID.having(Mod.ALLOC)
#: Said before the complaint where another lock is held.
_OTHER_LOCK = "held lock and object are not in the same allocation"
_OBJECT_OR_NULL = OBJECT.having(Mod.MAYBE_NULL)


def struct_named(env: Env, type_id: int) -> LocalType:
    """Return the struct of number *type_id*, of which an object is asked for."""
    if type_id > U32_MAX:
        raise Reject(Reason.OBJ_ID_RANGE)
    if not any(sub.params is not None for sub in env.program.subprogs):
        raise Reject(Reason.OBJ_NO_BTF)
    found = next((t for t in env.program.types if t.id == type_id), None)
    if found is None:
        raise Reject(Reason.OBJ_NO_STRUCT)
    return found


def new_object(env: Env, kind: LocalType, off: int = 0) -> RegState:
    """Return a pointer to byte *off* of an object that the program holds from now on, or NULL."""
    env.new_id()  # the kernel's null check has a number of its own, which is not used
    id_ = acquire(env)
    return RegState(_OBJECT_OR_NULL, off=off, id=id_, ref=id_, info=kind)


def node_of(env: Env, holds: Contained) -> RegState:
    """Return what comes out of a list: the node in an object of it."""
    kind = next((t for t in env.program.types if t.name == holds.name), None)
    if kind is None:
        raise InternalError(f"no struct {holds.name}")
    return new_object(env, kind, holds.off)


def check_owned(env: Env, reg: RegState, regno: int) -> None:
    """Refuse what is no object, or one that the program does not hold."""
    if reg.type is not OBJECT:
        raise Reject(Reason.OBJ_EXPECTED, arg=arg_name(env, regno))
    if not reg.ref:
        raise Reject(Reason.OBJ_NOT_OWNED)


def _offset(env: Env, reg: RegState, regno: int, name: str) -> int:
    if reg.scalar.mask:
        arg = f"R{regno}"
        raise Reject(Reason.GRAPH_VARIABLE, arg=arg, field=name)
    return reg.off + s64(reg.scalar.value)


def _field_at(fields: Sequence[MapField], kind: FieldKind, at: int) -> MapField:
    found = next((f for f in fields if f.kind is kind and f.off == at), None)
    if found is None:
        raise Reject(Reason.GRAPH_NOT_FOUND, field=kind.label, off=at & U32_MAX)
    return found


def check_head(env: Env, frame: FuncState, regno: int, kind: FieldKind) -> Contained:
    """Check the head of a list, or root of a tree, in *regno*: it is there, and its lock is held.
    Return what it holds."""
    reg = frame.regs[regno]
    if reg.type is not RegType.MAP_VALUE and reg.type is not OBJECT:
        raise Reject(Reason.GRAPH_PLACE, arg=arg_name(env, regno))
    if reg.type is OBJECT:
        if not reg.ref:
            raise Reject(Reason.OBJ_NOT_OWNED)
        raise Reject(Reason.NOT_SUPPORTED, what="lists and trees in allocated objects")
    at = _offset(env, reg, regno, kind.label)
    fields = env.facts[reg.arg].defn.record or ()
    head = _field_at(fields, kind, at)
    lock = next((f.off for f in fields if f.kind is FieldKind.SPIN_LOCK), -1)
    held = [ref for ref in env.cur.refs if ref.kind in LOCKS]
    if not any(ref.owner == reg.arg and ref.id == reg.id for ref in held):
        other = [_OTHER_LOCK] if held else []
        raise Reject(Reason.GRAPH_UNLOCKED, before=other, off=lock, field=kind.label)
    if head.holds is None:
        raise Reject(Reason.NOT_SUPPORTED, what=f"{kind.label} of which nothing is known")
    return head.holds


def check_node(
    env: Env, frame: FuncState, regno: int, holds: Contained, head: FieldKind, node: FieldKind
) -> None:
    """Check that *regno* points to the node by which a list or tree has the object."""
    reg = frame.regs[regno]
    check_owned(env, reg, regno)
    at = _offset(env, reg, regno, node.label)
    kind = reg.info
    if not isinstance(kind, LocalType):
        raise InternalError("an object of no struct")
    _field_at(kind.fields, node, at)
    if kind.name != holds.name:
        raise Reject(
            Reason.GRAPH_STRUCT,
            head=head.label,
            node=node.label,
            off=holds.off,
            struct=holds.name,
            at=at,
            other=kind.name,
        )
    if at != holds.off:
        raise Reject(Reason.GRAPH_NODE, at=at, node=node.label, off=holds.off, struct=holds.name)


def give_away(env: Env, id_: int) -> None:
    """The object of reference *id_* belongs to a list from now on; pointers to it stay, until the
    lock goes."""
    if not drop(env.cur, id_):
        raise InternalError(f"no reference {id_}")

    def change(reg: RegState) -> RegState | None:
        if reg.ref != id_:
            return None
        return reg._replace(type=reg.type.having(Mod.NON_OWN_REF), id=0, ref=0)

    replace_regs(env.cur, change)


def forget_given(env: Env) -> None:
    """What lists own may be gone: a lock was given back (kernel: invalidate_non_owning_refs)."""

    def change(reg: RegState) -> RegState | None:
        return env.ended_reg if reg.type.mods & Mod.NON_OWN_REF else None

    replace_regs(env.cur, change)


def check_member(pointer: RegState, regno: int, off: int, size: int, kind: LocalType) -> None:
    """Check an access to *size* bytes of an object, which may be changed but for its special
    fields (kernel: check_ptr_to_btf_access, btf_struct_access)."""
    if pointer.scalar.mask:
        var_off = var_off_text(pointer.scalar)
        raise Reject(Reason.STRUCT_VARIABLE, reg=regno, struct=kind, off=off, var_off=var_off)
    at = off if pointer.scalar == ZERO else off + s64(pointer.scalar.value)
    if at < 0:
        raise Reject(Reason.STRUCT_NEGATIVE, reg=regno, struct=kind, off=at)
    for field in kind.fields:
        if at < field.end and field.off < at + size:
            raise Reject(Reason.OBJ_FIELD, field=field.kind.label)
    if at + size > kind.size:
        raise Reject(Reason.BEYOND_STRUCT, struct=kind, off=at, size=size)
