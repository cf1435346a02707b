"""Global subprograms: what their BTF prototype asks of a caller, and what it promises them.

A global subprog is verified alone, with arguments that are whatever the prototype allows, and a
call of it is checked against the prototype only. Rules: Linux 6.18 (btf_prepare_func_args,
btf_check_func_arg_match, do_check_common) and 7.3.
"""

from __future__ import annotations

from enum import Enum, unique
from typing import assert_never

from bpfvm.bits import S32_MAX
from bpfvm.context import CTX_STRUCTS
from bpfvm.program import Param, Subprog
from bpfvm.proto import DynptrType
from verifier.bounds import ZERO
from verifier.callkit import check_memory, check_place, check_unmoved
from verifier.dynptrs import check_dynptr
from verifier.env import Env
from verifier.precision import mark_reg
from verifier.prototype import ArgKind, GlobalArg
from verifier.reasons import Reason, Reject
from verifier.stackargs import check_passed, count_stack_args
from verifier.state import (
    NOT_INIT_REG,
    UNKNOWN_REG,
    Base,
    FuncState,
    Mod,
    RegState,
    RegType,
)

__all__ = ["check_args", "entry_regs", "signature"]

#: kernel: MAX_BPF_FUNC_REG_ARGS
MAX_ARGS = 5

_SCALAR = RegType.SCALAR
_INTEGERS = frozenset({"INT", "ENUM", "ENUM64"})
_STRUCTS = frozenset({"STRUCT", "UNION"})
_UNSIZED = frozenset({"UNKNOWN", "FWD", "FUNC", "FUNC_PROTO"})
_DYNPTR = "bpf_dynptr"


@unique
class _Tag(Enum):
    """Decl tags `arg:...` of parameters."""

    CTX = "ctx"
    TRUSTED = "trusted"
    UNTRUSTED = "untrusted"
    NONNULL = "nonnull"
    NULLABLE = "nullable"
    ARENA = "arena"


_TAG_PREFIX = "arg:"
#: The type tag of a pointer into an arena.
_ARENA_TYPE_TAG = "arena"


def signature(env: Env, number: int) -> tuple[GlobalArg, ...]:
    """Return what global subprog *number* takes; see `_signature`."""
    found = env.signatures.get(number)
    if found is None:
        found = _signature(env, env.subprogs[env.cfg.starts[number]])
        env.signatures[number] = found
    return found


def _signature(env: Env, subprog: Subprog) -> tuple[GlobalArg, ...]:
    """Return what global *subprog* takes.

    Raises:
        Reject: the kernel can't verify a function of this prototype.
    """
    params = subprog.params or ()
    if len(params) > MAX_ARGS and env.rules.stack_args:
        raise Reject(Reason.GLOBAL_STACK_ARGS, name=subprog.name, count=len(params), limit=MAX_ARGS)
    if len(params) > MAX_ARGS:
        raise Reject(Reason.GLOBAL_TOO_MANY, name=subprog.name, count=len(params), limit=MAX_ARGS)
    _check_result(env, subprog)
    return tuple(_arg(env, subprog, i, param) for i, param in enumerate(params))


def _check_result(env: Env, subprog: Subprog) -> None:
    ret, rules = subprog.ret, env.rules
    if ret is None:
        fine = subprog.params is None or rules.void_globals
    elif ret.is_pointer:
        fine = _ARENA_TYPE_TAG in ret.tags and rules.arena_type_tags
    else:
        fine = ret.kind in _INTEGERS
    if fine:
        return
    if rules.void_globals:
        raise Reject(Reason.GLOBAL_RESULT_OR_VOID, name=subprog.name)
    raise Reject(Reason.GLOBAL_RESULT, name=subprog.name)


def _arg(env: Env, subprog: Subprog, i: int, param: Param) -> GlobalArg:
    tags = _tags(env, i, param)
    if not param.is_pointer:
        if tags:
            raise Reject(Reason.ARG_TAG_NO_POINTER, arg=i)
        if param.kind not in _INTEGERS:
            raise Reject(Reason.ARG_KIND, arg=i, kind=param.kind, name=subprog.name)
        return GlobalArg(ArgKind.SCALAR)
    if _Tag.CTX in tags or _is_ctx(env, param):
        if tags - {_Tag.CTX}:
            raise Reject(Reason.ARG_TAGS, arg=i)
        if _Tag.CTX in tags:
            _check_ctx(env, i, param)
        return GlobalArg(ArgKind.CTX)
    if param.pointee_kind == "STRUCT" and param.pointee_name == _DYNPTR:
        if tags:
            raise Reject(Reason.ARG_TAGS, arg=i)
        return GlobalArg(ArgKind.DYNPTR)
    if _Tag.TRUSTED in tags:
        if tags - {_Tag.TRUSTED, _Tag.NULLABLE}:
            raise Reject(Reason.ARG_TAGS, arg=i)
        mods = Mod.TRUSTED | (Mod.MAYBE_NULL if _Tag.NULLABLE in tags else Mod.NONE)
        return GlobalArg(ArgKind.OBJECT, mods=mods, info=_essential(param.pointee_name))
    if _Tag.UNTRUSTED in tags:
        return _untrusted(i, param, tags)
    if _Tag.ARENA in tags:
        if tags - {_Tag.ARENA}:
            raise Reject(Reason.ARG_ARENA_TAGS, arg=i)
        return GlobalArg(ArgKind.ARENA)
    return _memory(i, param, tags)


def _essential(name: str) -> str:
    """Return the kernel's name of a struct, without what a program appended for a flavour of its
    own (kernel: bpf_core_essential_name_len)."""
    return name.partition("___")[0]


def _tags(env: Env, i: int, param: Param) -> frozenset[_Tag]:
    tags = set()
    for tag in param.tags:
        if tag.startswith(_TAG_PREFIX):
            try:
                tags.add(_Tag(tag.removeprefix(_TAG_PREFIX)))
            except ValueError:
                raise Reject(Reason.ARG_TAG_UNKNOWN, arg=i) from None
    if _ARENA_TYPE_TAG in param.tags and param.is_pointer and env.rules.arena_type_tags:
        tags.add(_Tag.ARENA)
    return frozenset(tags)


def _untrusted(i: int, param: Param, tags: frozenset[_Tag]) -> GlobalArg:
    if tags - {_Tag.UNTRUSTED}:
        raise Reject(Reason.ARG_UNTRUSTED_TAGS, arg=i)
    if param.pointee_kind == "UNKNOWN" or param.pointee_kind in _INTEGERS:
        return GlobalArg(ArgKind.UNTRUSTED_MEM, mods=Mod.RDONLY | Mod.UNTRUSTED)
    if param.pointee_kind not in _STRUCTS:
        raise Reject(
            Reason.ARG_UNTRUSTED_KIND, arg=i, kind=param.pointee_kind, type=param.pointee_name
        )
    return GlobalArg(ArgKind.OBJECT, mods=Mod.UNTRUSTED, info=_essential(param.pointee_name))


def _memory(i: int, param: Param, tags: frozenset[_Tag]) -> GlobalArg:
    if _Tag.NULLABLE in tags:
        raise Reject(Reason.ARG_TAGS, arg=i)
    if param.pointee_kind in _UNSIZED:
        raise Reject(Reason.ARG_NO_SIZE, arg=i, kind=param.pointee_kind, type=param.pointee_name)
    mods = Mod.NONE if _Tag.NONNULL in tags else Mod.MAYBE_NULL
    return GlobalArg(ArgKind.MEM, param.pointee_size, mods)


# -- contexts ----------------------------------------------------------------------------------

#: Types whose functions may take their context as any pointer, where it is tagged.
_ANY_CTX = frozenset({"tracepoint", "syscall", "ext"})
#: Types that may take it as an array of u64.
_WORDS_CTX = frozenset({"raw_tp", "raw_tp_writable", "tracing", "lsm", "struct_ops"})
_REGS_TYPEDEF = "bpf_user_pt_regs_t"
_REGS_TYPES = frozenset({"kprobe", "perf_event"})
#: enum bpf_attach_type: BPF_TRACE_RAW_TP, BPF_TRACE_ITER
_TRACE_RAW_TP, _TRACE_ITER = 23, 28


def _is_ctx(env: Env, param: Param) -> bool:
    """Say whether a pointer is one to the program's context by its type's name alone."""
    regs = (param.pointee_typedef, param.pointee_name)
    if env.program.prog_type == "kprobe" and _REGS_TYPEDEF in regs:
        return True
    name = CTX_STRUCTS.get(env.program.prog_type, "")
    return bool(name) and param.pointee_kind in _STRUCTS and param.pointee_name == name


def _check_ctx(env: Env, i: int, param: Param) -> None:
    """Check the type of a parameter that is tagged to be the context (kernel:
    btf_validate_prog_ctx_type)."""
    prog_type, kind, name = env.program.prog_type, param.pointee_kind, param.pointee_name
    if prog_type in _REGS_TYPES and (
        param.pointee_typedef == _REGS_TYPEDEF or (kind in _STRUCTS and name == "pt_regs")
    ):
        return
    if kind == "UNKNOWN" or prog_type in _ANY_CTX:
        return
    if not name:
        raise Reject(Reason.ARG_CTX_NAMELESS, arg=i)
    if prog_type in _WORDS_CTX and kind == "INT" and param.pointee_size == 8:
        return
    if prog_type == "tracing" and kind in _STRUCTS and _is_tracing_ctx(env, name):
        return
    wanted = CTX_STRUCTS.get(prog_type, "")
    if not wanted:
        raise Reject(Reason.ARG_CTX_VOID, arg=i)
    if kind not in _STRUCTS or name != wanted:
        raise Reject(Reason.ARG_CTX_STRUCT, arg=i, type=wanted)


def _is_tracing_ctx(env: Env, name: str) -> bool:
    attach = env.program.expected_attach_type
    if attach == _TRACE_RAW_TP:
        return name == CTX_STRUCTS["raw_tp"]
    return attach == _TRACE_ITER and name.startswith("bpf_iter__")


# -- a call ------------------------------------------------------------------------------------


def check_args(env: Env, frame: FuncState, number: int) -> None:
    """Check the registers of a call of global subprog *number*.

    Raises:
        Reject: what is wrong with them, or with the prototype.
    """
    try:
        args = signature(env, number)
    except Reject as e:
        check_passed(frame, count_stack_args(env, number), e.lines)
        raise
    for i, arg in enumerate(args):
        _check_arg(env, frame, i, arg, number)


def _check_arg(env: Env, frame: FuncState, i: int, arg: GlobalArg, number: int) -> None:
    regno = i + 1
    reg = frame.regs[regno]
    match arg.kind:
        case ArgKind.SCALAR:
            if reg.type is not _SCALAR:
                raise Reject(Reason.KFUNC_SCALAR, reg=regno)
        case ArgKind.CTX:
            check_place(env, reg, regno, as_ctx=True)
            if reg.type is not RegType.CTX:
                raise Reject(Reason.ARG_NOT_CTX, arg=_named(env, i))
        case ArgKind.MEM:
            check_place(env, reg, regno)
            _check_mem(env, frame, i, arg, number)
        case ArgKind.ARENA:
            if reg.type is not RegType.ARENA and reg.type is not _SCALAR:
                raise Reject(Reason.ARG_NOT_ARENA, reg=regno)
        case ArgKind.DYNPTR:
            if reg.type not in (RegType.STACK, RegType.DYNPTR):
                check_place(env, reg, regno)
                raise Reject(Reason.DYNPTR_NOT_STACK, arg=_named(env, i))
            check_dynptr(env, frame, regno, None)
        case ArgKind.OBJECT:
            if not arg.mods & Mod.UNTRUSTED:
                _check_object(env, reg, regno, arg)
        case ArgKind.UNTRUSTED_MEM:
            pass  # whatever it is, it is read with care
        case _:
            assert_never(arg.kind)


def _named(env: Env, i: int) -> str:
    return f"R{i + 1}" if env.rules.kfunc_args_by_register else f"arg#{i}"


def _check_mem(env: Env, frame: FuncState, i: int, arg: GlobalArg, number: int) -> None:
    """Check memory of the size that the prototype says (kernel: check_mem_reg)."""
    regno = i + 1
    reg = frame.regs[regno]
    is_null = reg.type is _SCALAR and reg.scalar == ZERO
    if is_null:
        # 6.18 leaves it imprecise; the callee would then take any number for a pointer.
        mark_reg(env, regno)
    if not is_null:
        try:
            frame.regs[regno] = reg._replace(type=reg.type.without(Mod.MAYBE_NULL))
            if arg.size > S32_MAX and env.rules.kfunc_args_by_register:
                raise Reject(Reason.MEM_TOO_LARGE, reg=regno, size=arg.size)
            check_memory(env, frame, regno, arg.size, zero_ok=True)
            check_memory(env, frame, regno, arg.size, write=True, zero_ok=True)
        except Reject as e:
            # Whatever it is, the kernel gives EINVAL for it.
            raise Reject(Reason.ARG_MEM, before=e.lines[:-1], text=e.lines[-1]) from None
        finally:
            frame.regs[regno] = reg
    is_packet = reg.type.base in (Base.PACKET, Base.PACKET_META) or reg.type.mods & Mod.PACKET_SLICE
    if is_packet and env.rules.packet_args_by_effect and env.cfg.effects[number].changes_packet:
        raise Reject(Reason.ARG_PACKET, reg=regno, func=number)
    # The kernel lets a constant 0 through to where a pointer is promised; its callee would fault.
    if not arg.mods & Mod.MAYBE_NULL and (is_null or reg.type.may_be_null):
        raise Reject(Reason.ARG_NULL, arg=_named(env, i))


def _check_object(env: Env, reg: RegState, regno: int, arg: GlobalArg) -> None:
    """Check a trusted pointer to a kernel's struct (kernel: check_reg_type)."""
    nullable = bool(arg.mods & Mod.MAYBE_NULL)
    if nullable and reg.type is _SCALAR and reg.scalar == ZERO:
        mark_reg(env, regno)
        return
    kind = reg.type.without(Mod.MAYBE_NULL) if nullable else reg.type
    trusted = RegType.BTF_ID.having(Mod.TRUSTED)
    if kind not in (trusted, RegType.BTF_ID.having(Mod.RCU)) and not (
        kind is RegType.BTF_ID and reg.ref
    ):
        words = "ptr_, trusted_ptr_, rcu_ptr_"
        raise Reject(Reason.ARG_TYPE, reg=regno, type=reg.type.label, expected=words)
    if reg.info != arg.info:
        raise Reject(Reason.ARG_STRUCT, reg=regno, type=reg.info, expected=arg.info)
    check_unmoved(reg, regno)


# -- the walk of one alone ---------------------------------------------------------------------


def entry_regs(env: Env, number: int) -> list[RegState]:
    """Return r0 to r9 at the start of global subprog *number*: all that its callers may pass."""
    regs = [NOT_INIT_REG] * 10
    for i, arg in enumerate(signature(env, number)):
        regs[i + 1] = _entry_reg(env, arg)
    return regs


def _entry_reg(env: Env, arg: GlobalArg) -> RegState:
    match arg.kind:
        case ArgKind.SCALAR | ArgKind.ARENA:
            return UNKNOWN_REG
        case ArgKind.CTX:
            return RegState(RegType.CTX)
        case ArgKind.MEM | ArgKind.UNTRUSTED_MEM:
            mem = RegType.of(Base.MEM, arg.mods)
            return RegState(mem, arg=arg.size, id=env.new_id() if mem.may_be_null else 0)
        case ArgKind.DYNPTR:
            return RegState(RegType.DYNPTR, id=env.new_id(), info=DynptrType.LOCAL)
        case ArgKind.OBJECT:
            return RegState(RegType.of(Base.BTF_ID, arg.mods), id=env.new_id(), info=arg.info)
        case _:
            assert_never(arg.kind)
