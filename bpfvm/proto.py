"""Prototypes of helpers and kfuncs, and the registry that holds them.

The verifier reads prototypes and never an implementation; engines call the implementation that
the verifier chose. Adding a helper or kfunc is one function under its decorator.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, Flag, auto, unique
from types import ModuleType
from typing import TypeVar

from bpfvm.errors import InternalError

__all__ = [
    "POSSIBLE_CPUS",
    "ArgType",
    "Callback",
    "DynptrType",
    "Effect",
    "FuncProto",
    "Impl",
    "IterStep",
    "IterType",
    "KfuncFlags",
    "Registry",
    "RetType",
    "Variant",
    "helper",
    "implements",
    "kfunc",
]

#: How many CPUs the verifier allows for (kernel: nr_cpu_ids); runs are on the first.
POSSIBLE_CPUS = 2

#: impl(rt: Runtime, *args: int) -> int; args and result are taken modulo 2**64.
Impl = Callable[..., int]
_F = TypeVar("_F", bound=Impl)


@unique
class ArgType(Enum):
    """What a call's argument must be (kernel: enum bpf_arg_type and kfunc parameter suffixes)."""

    # helpers
    ANYTHING = auto()
    CONST_MAP_PTR = auto()
    MAP_KEY = auto()
    MAP_VALUE = auto()
    UNINIT_MAP_VALUE = auto()
    MEM_RDONLY = auto()
    UNINIT_MEM = auto()
    CONST_SIZE = auto()
    CONST_SIZE_OR_ZERO = auto()
    CTX = auto()
    ALLOC_SIZE_OR_ZERO = auto()  # a known constant: size of the memory that is returned
    RINGBUF_MEM = auto()  # a ring buffer's record
    WRITTEN_MEM = auto()  # initialised memory that the helper writes to
    FIXED_MEM = auto()  # memory of `FuncProto.sizes` bytes that the helper reads
    FIXED_OUT = auto()  # the same, aligned: the helper writes all of it
    FIXED_WRITTEN = auto()  # the same, aligned: the helper reads and writes it
    SOCK_COMMON = auto()  # any socket, full or not
    SOCKET = auto()
    BTF_SOCK_COMMON = auto()  # a socket, also as a struct of the kernel
    BTF_ID = auto()  # a struct of the kernel
    ZERO = auto()  # flags of which there are none
    CONST_STR = auto()  # a constant string in a read-only map
    FUNC = auto()  # a subprog to call back
    CALLBACK_CTX = auto()  # what is handed to it: a pointer into the stack, or 0
    SPIN_LOCK = auto()  # a struct bpf_spin_lock in a map's value
    TIMER = auto()  # a struct bpf_timer in a map's value
    DYNPTR = auto()  # a dynptr of kind `FuncProto.dynptr`, if that is said
    CONST_DYNPTR = auto()  # the same; the dynptr itself is not changed
    DYNPTR_UNINIT = auto()  # where a dynptr of kind `FuncProto.dynptr` is made
    # kfuncs
    SCALAR = auto()
    KF_MAP = auto()  # suffix __map: a map pointer; its type is tested at run time
    KF_IGNORE = auto()  # suffix __ign: not checked at all
    KF_CONST_STR = auto()  # suffix __str: pointer to a constant string in a read-only map
    KF_MEM = auto()  # memory whose size is the next argument
    KF_MEM_SIZE = auto()  # suffix __sz: size of the memory before it
    KF_ITER = auto()  # an iterator on the stack (`FuncProto.iterates`)
    KF_CTX = auto()
    KF_DYNPTR = auto()
    KF_DYNPTR_UNINIT = auto()  # suffix __uninit; a clone where `FuncProto.dynptr` is not said
    KF_MEM_OR_NULL = auto()  # suffix __opt: memory whose size is the next argument, or NULL
    KF_CONST_MEM_SIZE = auto()  # suffix __szk: its size, a known constant
    KF_RES_SPIN_LOCK = auto()  # a struct bpf_res_spin_lock in a map's value
    KF_TIMER = auto()  # a struct bpf_timer in a map's value
    KF_WORKQUEUE = auto()  # a struct bpf_wq in a map's value
    KF_TYPE_ID = auto()  # suffix __k: a known number, of a struct of the program
    KF_OBJECT = auto()  # suffix __alloc: an object that the program holds
    KF_LIST_HEAD = auto()  # a list in a map's value or an object
    KF_LIST_NODE = auto()  # a node in an object that the program holds
    KF_FUNC = auto()  # a subprog to call back
    KF_IRQ_FLAG = auto()  # suffix __irq_flag: where the IRQ state is kept, on the stack


@unique
class RetType(Enum):
    """What a call leaves in r0."""

    INTEGER = auto()  # unknown 64-bit scalar
    HOOK_RESULT = auto()  # what the hook returns: from 7.3 known to be 0 or a negative errno
    INT32 = auto()  # a C int: helpers sign-extend, kfuncs leave 32 bits (see verifier)
    CPU = auto()  # the number of one of `POSSIBLE_CPUS`
    VOID = auto()
    MAP_VALUE_OR_NULL = auto()
    LENGTH = auto()  # at most what the size argument says, or a negative errno
    MAP_VALUE = auto()
    SOCKET_OR_NULL = auto()
    SOCK_COMMON_OR_NULL = auto()
    TCP_SOCK_OR_NULL = auto()
    BTF_ID = auto()  # a trusted pointer to the kernel's struct `FuncProto.ret_struct`
    BTF_ID_OR_NULL = auto()
    RINGBUF_MEM_OR_NULL = auto()  # as many bytes as argument ALLOC_SIZE_OR_ZERO says
    POINTER_AS_SCALAR = auto()  # kfunc returning void *: a scalar for the verifier
    DYNPTR_MEM_OR_NULL = auto()  # as many bytes of a dynptr as argument ALLOC_SIZE_OR_ZERO says
    SLICE_OR_NULL = auto()  # as many bytes of a dynptr as argument KF_CONST_MEM_SIZE says
    RDONLY_SLICE_OR_NULL = auto()  # the same, to be read only
    LOCK_ERROR = auto()  # 0 with the lock taken, or a negative errno without
    OBJECT_OR_NULL = auto()  # an object of the struct that KF_TYPE_ID names
    NODE_OR_NULL = auto()  # the node in an object that came out of the list
    ITEM_OR_NULL = auto()  # the iterator's next item, read-only


class Callback(Enum):
    """What a helper calls the subprog with that it is given, and when."""

    LOOP = auto()  # (index, context), while the helper runs
    MAP_ELEM = auto()  # (map, key, value, context), while the helper runs
    SAMPLE = auto()  # (dynptr, context), while the helper runs
    TIMER = auto()  # (map, key, value), later
    WORKQUEUE = auto()  # the same, where it may sleep

    @property
    def is_async(self) -> bool:
        """Whether it is called later, from outside of the program."""
        return self in (Callback.TIMER, Callback.WORKQUEUE)


class KfuncFlags(Flag):
    """KF_* bits that we give a meaning."""

    NONE = 0
    SLEEPABLE = auto()
    SPINLOCK_SAFE = auto()
    ARENA_RET = auto()
    ARENA_ARG2 = auto()
    PERFMON = auto()


@unique
class Effect(Enum):
    """What a call does to the regions that the program is in."""

    RCU_LOCK = auto()
    RCU_UNLOCK = auto()
    PREEMPT_DISABLE = auto()
    PREEMPT_ENABLE = auto()
    IRQ_SAVE = auto()
    IRQ_RESTORE = auto()
    SPIN_LOCK = auto()
    SPIN_UNLOCK = auto()
    RES_SPIN_LOCK = auto()
    RES_SPIN_UNLOCK = auto()
    RES_SPIN_LOCK_IRQ = auto()
    RES_SPIN_UNLOCK_IRQ = auto()
    GIVE_NODE = auto()  # the object in r2 is the list's from now on


@unique
class DynptrType(Enum):
    """What a dynptr stands for, in the words of the log."""

    LOCAL = "local"
    RINGBUF = "ringbuf"
    SKB = "skb"
    XDP = "xdp"


@unique
class IterStep(Enum):
    """What a kfunc does with its iterator (kernel: KF_ITER_NEW and kin)."""

    NEW = auto()
    NEXT = auto()
    DESTROY = auto()


@dataclass(frozen=True, slots=True)
class IterType:
    """A kind of open-coded iterator: its name (bpf_iter_NAME), how many slots of stack it takes,
    and the size of the items that it points to."""

    name: str
    slots: int
    item_size: int


@unique
class Variant(Enum):
    """Which implementation of a polymorphic kfunc a call site runs."""

    SLEEPABLE = "sleepable"
    NON_SLEEPABLE = "non_sleepable"


@dataclass(frozen=True, slots=True)
class FuncProto:
    """One helper or kfunc.

    Attributes:
        name: the kernel's name, such as "bpf_map_lookup_elem".
        helper_id: the helper's number, or None for a kfunc.
        ret, args: types; at most five arguments.
        impls: by variant; NON_SLEEPABLE is absent where there is one for all contexts.
        gpl_only: refused to programs without a GPL-compatible licence.
        might_sleep: refused where the context can't sleep.
        pkt_access: memory arguments may point into a packet.
        prog_types: names of the program types that are offered it; None: all.
        attach_types: of those, the types of which only some attach types are, and which.
        only_tracing: refused by name to all programs but those of type tracing.
        only_probes: refused, after its arguments, to types other than kprobe and tracing.
        flags: kfunc flags.
        changes_packet: packet pointers mean nothing after a call (kernel:
            bpf_helper_changes_pkt_data).
        tail_call: runs another program in place of the frame that calls it.
        throws: ends the program, all its frames at once.
        callback: what the FUNC argument is called with, or None.
        nullable: numbers of the registers that may be 0 where a pointer is asked for.
        sizes: bytes of the memory that an argument FIXED_* points to, by register.
        fastcall: names of the program types where it is inlined, and changes no register but r0
            and its arguments' (kernel: allow_fastcall, KF_FASTCALL).
        is_cast: its result is the socket of its argument, and as long there (kernel:
            is_ptr_cast_function).
        ret_struct: name of the kernel's struct that a result BTF_ID points to.
        extra_args: how many registers after *args* are passed on as they are, unchecked
            (the values of bpf_trace_printk's format).
        acquires: its result is a reference that has to be released (kernel: KF_ACQUIRE,
            is_acquire_function).
        releases: number of the register whose reference ends with the call, 0 for none.
        effect: what it does to regions.
        iterates: of an iterator's kfunc: which iterator, and what is done with it.
        dynptr: kind of the dynptr that it takes or makes; None: any, or a clone.
        changes_map: refused where programs may only read the map.
        sets_result: its first argument is what the hook returns: 0 or a negative errno.
        dynptr_may_move_packet: packet pointers mean nothing after a call with a dynptr of an skb.
    """

    name: str
    helper_id: int | None
    ret: RetType
    args: tuple[ArgType, ...]
    impls: Mapping[Variant, Impl] = field(compare=False, hash=False)
    gpl_only: bool = False
    might_sleep: bool = False
    pkt_access: bool = False
    prog_types: frozenset[str] | None = None
    flags: KfuncFlags = KfuncFlags.NONE
    extra_args: int = 0
    changes_packet: bool = False
    acquires: bool = False
    releases: int = 0
    effect: Effect | None = None
    iterates: tuple[IterType, IterStep] | None = None
    callback: Callback | None = None
    tail_call: bool = False
    dynptr: DynptrType | None = None
    dynptr_may_move_packet: bool = False
    throws: bool = False
    nullable: frozenset[int] = frozenset()
    sizes: Mapping[int, int] = field(default_factory=dict, hash=False)
    ret_struct: str = ""
    is_cast: bool = False
    sets_result: bool = False
    changes_map: bool = False
    attach_types: Mapping[str, frozenset[int]] = field(default_factory=dict, hash=False)
    only_tracing: bool = False
    only_probes: bool = False
    fastcall: frozenset[str] = frozenset()

    def is_offered(self, prog_type: str, attach: int) -> bool:
        """Whether programs of *prog_type* with expected attach type *attach* have it."""
        if self.prog_types is not None and prog_type not in self.prog_types:
            return False
        attach_types = self.attach_types.get(prog_type)
        return attach_types is None or attach in attach_types

    @property
    def is_executable(self) -> bool:
        """Whether there is an implementation; the verifier asks for none."""
        return bool(self.impls)

    @property
    def arg_count(self) -> int:
        """How many registers, from r1 on, an engine hands to the implementation."""
        return len(self.args) + self.extra_args

    def impl(self, variant: Variant) -> Impl:
        """Return the implementation for *variant* (the sleepable one where there is just one)."""
        return self.impls.get(variant) or self.impls[Variant.SLEEPABLE]

    @property
    def is_polymorphic(self) -> bool:
        """Whether the call site's context selects the implementation."""
        return len(self.impls) > 1


def helper(
    helper_id: int,
    ret: RetType,
    args: tuple[ArgType, ...] = (),
    *,
    gpl_only: bool = False,
    might_sleep: bool = False,
    pkt_access: bool = False,
    prog_types: frozenset[str] | None = None,
    extra_args: int = 0,
    changes_packet: bool = False,
    acquires: bool = False,
    releases: int = 0,
    effect: Effect | None = None,
    callback: Callback | None = None,
    tail_call: bool = False,
    dynptr: DynptrType | None = None,
    dynptr_may_move_packet: bool = False,
    changes_map: bool = False,
    fastcall: frozenset[str] = frozenset(),
) -> Callable[[_F], _F]:
    """Declare the decorated function as helper *helper_id*; its name is the kernel's."""

    def mark(fn: _F) -> _F:
        _attach(
            fn,
            FuncProto(
                fn.__name__,
                helper_id,
                ret,
                args,
                {Variant.SLEEPABLE: fn},
                gpl_only,
                might_sleep,
                pkt_access,
                prog_types,
                extra_args=extra_args,
                changes_packet=changes_packet,
                acquires=acquires,
                releases=releases,
                effect=effect,
                callback=callback,
                tail_call=tail_call,
                dynptr=dynptr,
                dynptr_may_move_packet=dynptr_may_move_packet,
                changes_map=changes_map,
                fastcall=fastcall,
            ),
        )
        return fn

    return mark


def kfunc(
    ret: RetType,
    args: tuple[ArgType, ...] = (),
    *,
    flags: KfuncFlags = KfuncFlags.NONE,
    non_sleepable: Impl | None = None,
    prog_types: frozenset[str] | None = None,
    acquires: bool = False,
    releases: int = 0,
    effect: Effect | None = None,
    iterates: tuple[IterType, IterStep] | None = None,
    dynptr: DynptrType | None = None,
    throws: bool = False,
    callback: Callback | None = None,
) -> Callable[[_F], _F]:
    """Declare the decorated function as a kfunc; *non_sleepable* is its other variant, if any."""

    def mark(fn: _F) -> _F:
        impls: dict[Variant, Impl] = {Variant.SLEEPABLE: fn}
        if non_sleepable is not None:
            impls[Variant.NON_SLEEPABLE] = non_sleepable
        _attach(
            fn,
            FuncProto(
                fn.__name__,
                None,
                ret,
                args,
                impls,
                gpl_only=True,
                might_sleep=bool(flags & KfuncFlags.SLEEPABLE),
                prog_types=prog_types,
                flags=flags,
                acquires=acquires,
                releases=releases,
                effect=effect,
                iterates=iterates,
                dynptr=dynptr,
                throws=throws,
                callback=callback,
            ),
        )
        return fn

    return mark


_PROTO = "__bpf_proto__"


def _attach(fn: Impl, proto: FuncProto) -> None:
    for impl in proto.impls.values():
        declared = len(inspect.signature(impl).parameters) - 1
        if declared != proto.arg_count:
            raise InternalError(
                f"{proto.name}: {declared} parameters, but {proto.arg_count} in the prototype"
            )
    setattr(fn, _PROTO, proto)


def implements(proto: FuncProto) -> Callable[[_F], _F]:
    """Declare the decorated function as the implementation of *proto*, which has its name."""

    def mark(fn: _F) -> _F:
        if fn.__name__ != proto.name:
            raise InternalError(f"{fn.__name__} under the prototype of {proto.name}")
        _attach(fn, replace(proto, impls={Variant.SLEEPABLE: fn}))
        return fn

    return mark


#: Where a module keeps prototypes that have no implementation.
_DECLARED = "DECLARED"


class Registry:
    """All helpers and kfuncs of a VM, built from an explicit list of modules.

    Attributes:
        helpers: by number.
        kfuncs: by name.
    """

    def __init__(self, modules: Iterable[ModuleType]) -> None:
        self.helpers: dict[int, FuncProto] = {}
        self.kfuncs: dict[str, FuncProto] = {}
        self._variants: dict[tuple[int, str], FuncProto] = {}
        modules = tuple(modules)
        for module in modules:
            for value in vars(module).values():
                proto = getattr(value, _PROTO, None)
                if isinstance(proto, FuncProto):
                    self._add(proto)
        for module in modules:
            for proto in getattr(module, _DECLARED, ()):
                self._declare(proto)

    def helper(self, number: int, prog_type: str) -> FuncProto | None:
        """Return helper *number* as programs of *prog_type* have it, or None: there is none.

        It may be one that is not offered to them.
        """
        return self._variants.get((number, prog_type)) or self.helpers.get(number)

    def _add(self, proto: FuncProto) -> None:
        if proto.helper_id is None:
            if proto.name in self.kfuncs:
                raise InternalError(f"kfunc {proto.name} is registered twice")
            self.kfuncs[proto.name] = proto
        else:
            if proto.helper_id in self.helpers:
                raise InternalError(f"helper {proto.helper_id} is registered twice")
            self.helpers[proto.helper_id] = proto

    def _declare(self, proto: FuncProto) -> None:
        """Take a prototype; a second one of a number is for its own program types."""
        number = proto.helper_id
        if number is None:
            raise InternalError(f"{proto.name}: only helpers can be declared alone")
        first = self.helpers.setdefault(number, proto)
        if first is proto:
            return
        for prog_type in proto.prog_types or ():
            if first.prog_types is None or prog_type in first.prog_types:
                raise InternalError(f"helper {number} has two prototypes for {prog_type}")
            self._variants[number, prog_type] = proto
