"""Arguments of helper calls against their prototypes.

Rules: Linux 6.18 (check_func_arg, check_reg_type). Nothing here knows a helper by name.
"""

from __future__ import annotations

from typing import assert_never

from bpfvm.bits import U32_MAX, s64
from bpfvm.errors import InternalError
from bpfvm.maps.base import Lookup
from bpfvm.proto import ArgType, FuncProto
from bpfvm.record import FieldKind
from verifier.bounds import ZERO
from verifier.callkit import check_memory, check_size, check_unmoved
from verifier.conststr import check_const_str
from verifier.ctx import check_ctx_pointer, moves_freely
from verifier.dynptrs import Dynptr, check_dynptr, check_release, construct
from verifier.env import Env
from verifier.locks import process_lock
from verifier.memory import check_alignment
from verifier.precision import mark_reg, mark_slot
from verifier.privs import check_leak
from verifier.reasons import Reason, Reject
from verifier.sockets import SOCKET_TYPES
from verifier.state import Base, FuncState, Mod, RegState, RegType
from verifier.timers import check_async_field, check_same_map
from verifier.transfer import readable

__all__ = ["Call", "check_arg"]

_SCALAR, _STACK = RegType.SCALAR, RegType.STACK
_PACKETS = (RegType.PACKET, RegType.PACKET_META)

_MEMORY = (
    RegType.STACK,
    RegType.PACKET,
    RegType.PACKET_META,
    RegType.MAP_KEY,
    RegType.MAP_VALUE,
    RegType.MEM,
    RegType.MEM.having(Mod.RINGBUF),
    RegType.BUF,
)
_MEMORY_WORDS = "fp, pkt, pkt_meta, map_key, map_value, mem, ringbuf_mem, buf, trusted_ptr_"

_DYNPTRS = (RegType.STACK, RegType.DYNPTR)
_DYNPTR_WORDS = "fp, dynptr_ptr"
_READABLE = (
    *_MEMORY, RegType.MEM.having(Mod.RDONLY), RegType.BUF.having(Mod.RDONLY),
)  # fmt: skip
_STRUCTS = (RegType.BTF_ID, RegType.BTF_ID.having(Mod.TRUSTED), RegType.BTF_ID.having(Mod.RCU))
_SOCKETS_WORDS = "sock_common, sock, tcp_sock, xdp_sock"
#: Structs of the kernel that begin with a struct sock_common.
_SOCKET_STRUCTS = frozenset(
    {
        "tcp_sock", "tcp6_sock", "udp6_sock", "unix_sock", "mptcp_sock", "tcp_request_sock",
        "tcp_timewait_sock",
    }
)  # fmt: skip

#: Per kind of argument: register types it takes, and how a complaint lists them.
_ACCEPTED: dict[ArgType, tuple[tuple[RegType, ...], str]] = {
    ArgType.CONST_MAP_PTR: ((RegType.MAP_PTR,), "map_ptr"),
    ArgType.MAP_KEY: (_MEMORY, _MEMORY_WORDS),
    ArgType.MAP_VALUE: (_MEMORY, _MEMORY_WORDS),
    ArgType.UNINIT_MAP_VALUE: (_MEMORY, _MEMORY_WORDS),
    ArgType.MEM_RDONLY: (_READABLE, _MEMORY_WORDS),
    ArgType.UNINIT_MEM: (_MEMORY, _MEMORY_WORDS),
    ArgType.WRITTEN_MEM: (_MEMORY, _MEMORY_WORDS),
    ArgType.FIXED_MEM: (_READABLE, _MEMORY_WORDS),
    ArgType.FIXED_OUT: (_MEMORY, _MEMORY_WORDS),
    ArgType.FIXED_WRITTEN: (_MEMORY, _MEMORY_WORDS),
    ArgType.SOCK_COMMON: (SOCKET_TYPES, _SOCKETS_WORDS),
    ArgType.SOCKET: ((RegType.SOCKET,), "sock"),
    ArgType.BTF_SOCK_COMMON: (
        (*SOCKET_TYPES, *_STRUCTS[:2]),
        f"{_SOCKETS_WORDS}, ptr_, trusted_ptr_",
    ),
    ArgType.BTF_ID: (_STRUCTS, "ptr_, trusted_ptr_, rcu_ptr_"),
    ArgType.CONST_STR: ((RegType.MAP_VALUE,), "map_value"),
    ArgType.ZERO: ((RegType.SCALAR,), "scalar"),
    ArgType.CONST_SIZE: ((RegType.SCALAR,), "scalar"),
    ArgType.CONST_SIZE_OR_ZERO: ((RegType.SCALAR,), "scalar"),
    ArgType.CTX: ((RegType.CTX,), "ctx"),
    ArgType.SCALAR: ((RegType.SCALAR,), "scalar"),
    ArgType.ALLOC_SIZE_OR_ZERO: ((RegType.SCALAR,), "scalar"),
    ArgType.DYNPTR: (_DYNPTRS, _DYNPTR_WORDS),
    ArgType.CONST_DYNPTR: (_DYNPTRS, _DYNPTR_WORDS),
    ArgType.DYNPTR_UNINIT: (_DYNPTRS, _DYNPTR_WORDS),
    ArgType.SPIN_LOCK: ((RegType.MAP_VALUE,), "map_value, ptr_"),
    ArgType.TIMER: ((RegType.MAP_VALUE,), "map_value"),
    ArgType.RINGBUF_MEM: ((RegType.MEM.having(Mod.RINGBUF),), "ringbuf_mem"),
    ArgType.FUNC: ((RegType.FUNC,), "func"),
    ArgType.CALLBACK_CTX: ((RegType.STACK,), "fp"),
}


class Call:
    """What one helper call has shown so far, argument by argument."""

    __slots__ = (
        "dynptr",
        "id",
        "key",
        "map_index",
        "mem_size",
        "name",
        "proto",
        "ref",
        "size",
        "timer_map",
    )

    def __init__(self, proto: FuncProto) -> None:
        self.proto = proto
        self.name, self.id = proto.name, proto.helper_id
        self.map_index: int | None = None
        self.key: int | None = None  # a map key that is a known constant
        self.timer_map: int | None = None  # the map whose value holds a timer
        self.mem_size = 0  # of the memory it returns
        self.dynptr: Dynptr | None = None
        self.size = 0  # the most that its last size argument may be
        self.ref = 0  # the reference that an argument holds


def check_arg(env: Env, frame: FuncState, call: Call, regno: int, arg: ArgType) -> None:
    """Check one helper argument (kernel: check_func_arg)."""
    reg = readable(frame, regno)
    if arg is ArgType.MAP_VALUE and _holds_sockets(env, call):
        arg = ArgType.BTF_SOCK_COMMON
    if arg is ArgType.ANYTHING:
        check_leak(env, regno, reg, "helper function")
        return
    if arg is ArgType.ZERO:
        _check_zero(env, call, regno, reg)
        return
    kind = reg.type
    if kind in _PACKETS and not (call.proto.pkt_access and env.prog_type.packet_args):
        raise Reject(Reason.PACKET_ARG)
    is_nullable = arg is ArgType.CALLBACK_CTX or regno in call.proto.nullable
    if is_nullable and kind is _SCALAR and reg.scalar == ZERO:
        # 6.18 leaves it imprecise; the callee would then get a number that it was not walked with.
        mark_reg(env, regno)
        return
    accepted, words = _ACCEPTED.get(arg, ((), ""))
    if words is _MEMORY_WORDS and env.rules.ctx_const_offset:
        accepted, words = (*accepted, RegType.CTX), f"{words}, ctx"
    given = kind.without(Mod.MAYBE_NULL) if is_nullable else kind
    if given not in accepted:
        raise Reject(Reason.ARG_TYPE, reg=regno, type=kind.label, expected=words)
    if kind is RegType.CTX and (arg is ArgType.CTX or not moves_freely(env)):
        check_ctx_pointer(env, regno, reg, may_move=False)
    if call.proto.releases == regno and arg is ArgType.DYNPTR:
        check_release(env, frame, regno)
    elif call.proto.releases == regno:
        _check_release(env, call, regno, reg)
    if reg.ref:
        call.ref = reg.ref
    match arg:
        case ArgType.CONST_MAP_PTR:
            check_unmoved(reg, regno)
            if call.timer_map is not None:
                check_same_map(env, call.timer_map, regno, reg.arg)
            call.map_index = reg.arg
        case ArgType.MAP_KEY:
            if call.map_index is None:
                raise Reject(Reason.NO_MAP_FOR_KEY)
            defn = env.facts[call.map_index].defn
            check_memory(env, frame, regno, defn.key_size)
            if env.map_types.traits(defn).constant_key_elision and env.privs.bpf_capable:
                call.key = _constant_key(env, reg, defn.key_size)
        case ArgType.MAP_VALUE | ArgType.UNINIT_MAP_VALUE:
            if call.map_index is None:
                raise Reject(Reason.NO_MAP_FOR_VALUE)
            size = env.facts[call.map_index].defn.value_size
            is_out = arg is ArgType.UNINIT_MAP_VALUE
            check_memory(env, frame, regno, size, write=is_out, raw=is_out)
        case ArgType.CONST_SIZE | ArgType.CONST_SIZE_OR_ZERO:
            before = call.proto.args[regno - 2]
            call.size = reg.scalar.umax
            check_size(
                env,
                frame,
                regno,
                write=before is not ArgType.MEM_RDONLY,
                raw=before is ArgType.UNINIT_MEM,
                zero_ok=arg is ArgType.CONST_SIZE_OR_ZERO,
            )
        case ArgType.ALLOC_SIZE_OR_ZERO:
            call.mem_size = _alloc_size(env, regno, reg)
        case ArgType.FUNC:
            check_unmoved(reg, regno)
        case (
            ArgType.MEM_RDONLY
            | ArgType.UNINIT_MEM
            | ArgType.WRITTEN_MEM
            | ArgType.CTX
            | ArgType.SOCK_COMMON
            | ArgType.SOCKET
            | ArgType.SCALAR
            | ArgType.CALLBACK_CTX
        ):
            pass  # memory is checked with its size, the next argument
        case ArgType.RINGBUF_MEM:
            pass
        case ArgType.DYNPTR | ArgType.CONST_DYNPTR:
            mutates = arg is ArgType.DYNPTR
            call.dynptr = check_dynptr(env, frame, regno, call.proto.dynptr, mutates=mutates)
        case ArgType.DYNPTR_UNINIT:
            if call.proto.dynptr is None:
                raise InternalError(f"{call.name} makes a dynptr of no kind")
            construct(env, frame, regno, call.proto.dynptr)
        case ArgType.TIMER:
            call.timer_map = check_async_field(env, frame, regno, FieldKind.TIMER)
        case ArgType.SPIN_LOCK:
            process_lock(env, frame, regno, call.proto.effect)
        case ArgType.FIXED_MEM | ArgType.FIXED_OUT | ArgType.FIXED_WRITTEN:
            size = call.proto.sizes[regno]
            is_out = arg is ArgType.FIXED_OUT
            check_memory(env, frame, regno, size, write=arg is not ArgType.FIXED_MEM, raw=is_out)
            if arg is not ArgType.FIXED_MEM:
                check_alignment(env, reg, 0, size, strict=True)
        case ArgType.BTF_SOCK_COMMON:
            if kind.base is Base.BTF_ID and reg.info not in _SOCKET_STRUCTS:
                raise Reject(Reason.NOT_SUPPORTED, what="structs of the kernel as arguments")
        case ArgType.BTF_ID:
            raise Reject(Reason.NOT_SUPPORTED, what="structs of the kernel as arguments")
        case ArgType.CONST_STR:
            check_const_str(env, reg, regno)
        case (
            ArgType.KF_MAP
            | ArgType.KF_IGNORE
            | ArgType.KF_CONST_STR
            | ArgType.KF_MEM
            | ArgType.KF_MEM_SIZE
            | ArgType.KF_ITER
            | ArgType.KF_IRQ_FLAG
            | ArgType.KF_TIMER
            | ArgType.KF_WORKQUEUE
            | ArgType.KF_FUNC
            | ArgType.KF_TYPE_ID
            | ArgType.KF_OBJECT
            | ArgType.KF_LIST_HEAD
            | ArgType.KF_LIST_NODE
            | ArgType.KF_RES_SPIN_LOCK
            | ArgType.KF_CTX
            | ArgType.KF_DYNPTR
            | ArgType.KF_DYNPTR_UNINIT
            | ArgType.KF_MEM_OR_NULL
            | ArgType.KF_CONST_MEM_SIZE
            | ArgType.ZERO
        ):
            raise InternalError(f"{call.name}: a helper with kfunc argument {arg.name}")
        case _:
            assert_never(arg)


def _holds_sockets(env: Env, call: Call) -> bool:
    """Say whether the call's map takes sockets for values (kernel: resolve_map_arg_type)."""
    if call.map_index is None:
        return False
    return env.map_types.traits(env.facts[call.map_index].defn).lookup is Lookup.SOCKET


def _check_zero(env: Env, call: Call, regno: int, reg: RegState) -> None:
    """Refuse flags where there are none yet (kernel: check_helper_call's own lines)."""
    check_leak(env, regno, reg, "helper function")
    if reg.type is not _SCALAR or reg.scalar != ZERO:
        raise Reject(Reason.FLAGS_NOT_ZERO, name=call.name.removeprefix("bpf_"))
    if env.rules.zero_flags_precise:
        mark_reg(env, regno)


def _check_release(env: Env, call: Call, regno: int, reg: RegState) -> None:
    """Refuse to release what was moved, or was never acquired (kernel: check_func_arg)."""
    is_moved = reg.scalar != ZERO and (env.rules.pointer_off_in_range or not reg.scalar.mask)
    if reg.off or (is_moved and reg.type is not _SCALAR):
        raise Reject(Reason.RELEASE_MOVED, reg=regno)
    if reg.type is not _SCALAR:
        check_unmoved(reg, regno)
    if not reg.ref:
        if env.rules.ids_are_references:
            raise Reject(Reason.RELEASE_UNOWNED_HELPER, name=call.name, reg=regno)
        raise Reject(Reason.RELEASE_UNOWNED, reg=regno)


def _alloc_size(env: Env, regno: int, reg: RegState) -> int:
    if reg.scalar.mask:
        if env.rules.kfunc_args_by_register:
            raise Reject(Reason.ALLOC_SIZE_VARIABLE, reg=regno)
        raise Reject(Reason.SIZE_NOT_CONST, reg=regno)
    mark_reg(env, regno)
    size = reg.scalar.value
    if size > U32_MAX:
        if env.rules.kfunc_args_by_register:
            raise Reject(Reason.ALLOC_SIZE_LARGE, reg=regno)
        size &= U32_MAX
    return size


def _constant_key(env: Env, reg: RegState, size: int) -> int | None:
    """Return the key at stack pointer *reg* where its bytes are a known constant."""
    if reg.type is not _STACK or reg.scalar.mask:
        return None
    owner = env.cur.frames[reg.arg]
    spi, at = divmod(-(reg.off + s64(reg.scalar.value)) - 1, 8)
    slot = owner.stack.get(spi)
    if slot is None or at - size + 1 < 0:
        return None
    if slot.types[at - size + 1 : at + 1] == "0" * size:
        return 0
    spilled = slot.spilled
    if spilled is None or spilled.type is not _SCALAR or spilled.scalar.mask:
        return None
    spill_size = slot.types.count("r")
    if at != 7 or spill_size != size:
        return None
    mark_slot(env, owner.frameno, spi)
    return spilled.scalar.value
