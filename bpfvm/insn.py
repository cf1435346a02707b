"""The raw insn: one 8-byte slot, as RFC 9669 section 3.1 lays it out (little-endian)."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from bpfvm.errors import LoadError

__all__ = ["MAX_INSNS", "SLOT", "Insn", "decode", "encode"]

#: Bytes in a slot.
SLOT = 8
#: The most slots a program may have (kernel: BPF_COMPLEXITY_LIMIT_INSNS).
MAX_INSNS = 1_000_000

_PACK = struct.Struct("<BBhi")


class Insn(NamedTuple):
    """One slot. `off` is signed 16 bits, `imm` signed 32 bits; registers are 0..15 as encoded.

    An ldimm64 takes two slots; the second has opcode 0 and holds the upper half in `imm`.
    """

    opcode: int
    dst: int = 0
    src: int = 0
    off: int = 0
    imm: int = 0

    def encode(self) -> bytes:
        """Return the 8 bytes of this slot."""
        return _PACK.pack(self.opcode, self.dst | self.src << 4, self.off, self.imm)


def encode(insns: Iterable[Insn]) -> bytes:
    """Return the bytes of *insns*, in order."""
    return b"".join(insn.encode() for insn in insns)


def decode(code: bytes, origin: str = "program") -> tuple[Insn, ...]:
    """Return the slots of *code*.

    Raises:
        LoadError: *code* is empty, not whole slots, or more than `MAX_INSNS` slots;
            *origin* names the place in the message.
    """
    if not code:
        raise LoadError(f"{origin}: no insns")
    if len(code) % SLOT:
        raise LoadError(f"{origin}: {len(code)} bytes are not a whole number of {SLOT}-byte insns")
    if len(code) // SLOT > MAX_INSNS:
        raise LoadError(f"{origin}: {len(code) // SLOT} insns, more than {MAX_INSNS}")
    return tuple(
        Insn(opcode, regs & 15, regs >> 4, off, imm)
        for opcode, regs, off, imm in _PACK.iter_unpack(code)
    )
