"""The arguments of a global subprog, as its BTF prototype promises them to it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, unique

from verifier.state import Mod

__all__ = ["ArgKind", "GlobalArg"]


@unique
class ArgKind(Enum):
    """What an argument of a global subprog is."""

    SCALAR = "scalar"
    CTX = "ctx"
    MEM = "mem"
    UNTRUSTED_MEM = "untrusted mem"
    ARENA = "arena"
    DYNPTR = "dynptr"
    OBJECT = "object"  # a kernel's struct


@dataclass(frozen=True, slots=True)
class GlobalArg:
    """One argument: *size* bytes of memory, or the struct *info*; *mods* of its pointer."""

    kind: ArgKind
    size: int = 0
    mods: Mod = Mod.NONE
    info: str = ""
