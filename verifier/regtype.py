"""Types of registers: a base with modifiers, one instance of each combination."""

from __future__ import annotations

from enum import Enum, Flag, auto, unique
from functools import cache
from typing import ClassVar

__all__ = ["Base", "Mod", "RegType"]


@unique
class Base(Enum):
    """What a register holds, its modifiers aside: (name in the log, may move by arithmetic)."""

    NOT_INIT = ("?", False)
    SCALAR = ("scalar", False)
    CTX = ("ctx", True)
    MAP_PTR = ("map_ptr", False)
    MAP_VALUE = ("map_value", True)
    MAP_KEY = ("map_key", True)
    STACK = ("fp", True)
    PACKET = ("pkt", True)
    PACKET_META = ("pkt_meta", True)
    PACKET_END = ("pkt_end", False)
    FLOW_KEYS = ("flow_keys", False)
    SOCKET = ("sock", False)
    SOCK_COMMON = ("sock_common", False)
    TCP_SOCK = ("tcp_sock", False)
    XDP_SOCK = ("xdp_sock", False)
    TP_BUFFER = ("tp_buffer", True)
    BTF_ID = ("ptr_", True)
    MEM = ("mem", True)
    ARENA = ("arena", False)
    BUF = ("buf", True)
    FUNC = ("func", True)
    DYNPTR = ("dynptr_ptr", True)

    def __init__(self, label: str, may_move: bool) -> None:
        self.label, self.may_move = label, may_move


class Mod(Flag):
    """Modifiers of a pointer type (kernel: enum bpf_type_flag), in the order the log names them."""

    NONE = 0
    RDONLY = auto()
    RINGBUF = auto()
    USER = auto()
    PERCPU = auto()
    RCU = auto()
    UNTRUSTED = auto()
    TRUSTED = auto()
    MAYBE_NULL = auto()
    ALLOC = auto()
    NON_OWN_REF = auto()
    #: Into a packet, through a dynptr.
    PACKET_SLICE = auto()


#: Modifiers that the log puts before the base type's name.
_PREFIXES = (
    Mod.RDONLY, Mod.RINGBUF, Mod.USER, Mod.PERCPU, Mod.RCU, Mod.UNTRUSTED, Mod.TRUSTED,
)  # fmt: skip


class RegType:
    """What a register holds: a base with modifiers. There is one instance of each combination, so
    types are compared by identity, modifiers and all, as the kernel compares its numbers.

    Attributes:
        base, mods: what it is made of.
        label: its name in the log and in messages (kernel: reg_type_str).
        may_be_null: a null check is asked for before it is used.
        may_move: pointer arithmetic is allowed.
    """

    __slots__ = ("base", "label", "may_be_null", "may_move", "mods")

    NOT_INIT: ClassVar[RegType]
    SCALAR: ClassVar[RegType]
    CTX: ClassVar[RegType]
    MAP_PTR: ClassVar[RegType]
    MAP_VALUE: ClassVar[RegType]
    MAP_VALUE_OR_NULL: ClassVar[RegType]
    MAP_KEY: ClassVar[RegType]
    STACK: ClassVar[RegType]
    PACKET: ClassVar[RegType]
    PACKET_META: ClassVar[RegType]
    PACKET_END: ClassVar[RegType]
    FLOW_KEYS: ClassVar[RegType]
    SOCKET: ClassVar[RegType]
    SOCK_COMMON: ClassVar[RegType]
    TCP_SOCK: ClassVar[RegType]
    XDP_SOCK: ClassVar[RegType]
    TP_BUFFER: ClassVar[RegType]
    BTF_ID: ClassVar[RegType]
    MEM: ClassVar[RegType]
    ARENA: ClassVar[RegType]
    BUF: ClassVar[RegType]
    FUNC: ClassVar[RegType]
    DYNPTR: ClassVar[RegType]

    def __init__(self, base: Base, mods: Mod) -> None:
        """Use `of`."""
        self.base, self.mods = base, mods
        self.may_be_null = bool(mods & Mod.MAYBE_NULL)
        self.may_move = base.may_move and not self.may_be_null
        prefix = "".join(f"{str(mod.name).lower()}_" for mod in _PREFIXES if mods & mod)
        suffix = ""
        if self.may_be_null:
            suffix = "or_null_" if base is Base.BTF_ID else "_or_null"
        self.label = f"{prefix}{base.label}{suffix}"

    @staticmethod
    @cache
    def of(base: Base, mods: Mod) -> RegType:
        """Return the type of *base* with *mods*."""
        return RegType(base, mods)

    def having(self, mods: Mod) -> RegType:
        """Return this type with *mods* too."""
        return RegType.of(self.base, self.mods | mods)

    def without(self, mods: Mod) -> RegType:
        """Return this type without *mods*."""
        return RegType.of(self.base, self.mods & ~mods)

    def __repr__(self) -> str:
        return f"<{self.label}>"


for _base in Base:
    setattr(RegType, _base.name, RegType.of(_base, Mod.NONE))
RegType.MAP_VALUE_OR_NULL = RegType.MAP_VALUE.having(Mod.MAYBE_NULL)
