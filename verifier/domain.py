"""The value domain of a kernel: what the walk asks of numbers, by one interface.

Until 7.3 a scalar has four ranges (`bounds`, `alu`, `branch`), then two circular ones
(`cnum_bounds`, `cnum_alu`, `cnum_branch`). The rules choose once, and nothing else asks which.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bpfvm.isa import AluOp, EndOp, JmpOp
from bpfvm.rules import KernelRules
from verifier import alu, bounds, branch, cnum_alu, cnum_bounds, cnum_branch
from verifier.bounds import Scalar
from verifier.branch import Ways

__all__ = ["CNUM", "RANGES", "Domain", "domain_of"]

#: (width, dst, src) to what `dst op= src` leaves in dst.
Transfer = Callable[[int, Scalar, Scalar], Scalar]
#: (width, a, b) to whether `a op b` always or never holds, or both as known either way.
Comparison = Callable[[int, Scalar, Scalar], "bool | Ways"]


@dataclass(frozen=True)
class Domain:
    """Operations on scalars; those of one domain work on scalars that come from it.

    Attributes:
        transfer: per operation, what a binary ALU insn leaves; the result is settled.
        neg: (width, scalar) to its negative.
        mov32: a scalar's low 32 bits, zero-extended.
        movsx: (width, bits, scalar) to its low bits sign-extended.
        end: (operation, bits, scalar) to what a byte order operation leaves.
        add_ptr, sub_ptr: a pointer's variable offset after a scalar moved it; not synced.
        sync: a scalar with tnum and ranges tightened by each other.
        coerce_to_size: a scalar's low bytes, zero-extended.
        sign_extend: (scalar, bytes, bits) to its low bytes sign-extended to *bits*.
        comparison: per condition, what a conditional jump tells.
    """

    transfer: Mapping[AluOp, Transfer]
    neg: Callable[[int, Scalar], Scalar]
    mov32: Callable[[Scalar], Scalar]
    movsx: Callable[[int, int, Scalar], Scalar]
    end: Callable[[EndOp, int, Scalar], Scalar]
    add_ptr: Callable[[Scalar, Scalar], Scalar]
    sub_ptr: Callable[[Scalar, Scalar], Scalar]
    sync: Callable[[Scalar], Scalar]
    coerce_to_size: Callable[[Scalar, int], Scalar]
    sign_extend: Callable[[Scalar, int, int], Scalar]
    comparison: Callable[[JmpOp], Comparison]


def _sign_extend(s: Scalar, from_bytes: int, to_bits: int) -> Scalar:
    return bounds.reset_if_broken(bounds.sign_extend(s, from_bytes, to_bits))


#: Four ranges: signed and unsigned, of 64 and of 32 bits.
RANGES = Domain(
    transfer=alu.TRANSFER,
    neg=alu.neg,
    mov32=alu.mov32,
    movsx=alu.movsx,
    end=alu.end,
    add_ptr=alu.add_ptr,
    sub_ptr=alu.sub_ptr,
    sync=bounds.sync,
    coerce_to_size=bounds.coerce_to_size,
    sign_extend=_sign_extend,
    comparison=branch.comparison,
)
#: Two circular ranges: of 64 and of 32 bits.
CNUM = Domain(
    transfer=cnum_alu.TRANSFER,
    neg=cnum_alu.neg,
    mov32=cnum_bounds.zext32,
    movsx=cnum_alu.movsx,
    end=cnum_alu.end,
    add_ptr=cnum_alu.add_ptr,
    sub_ptr=cnum_alu.sub_ptr,
    sync=cnum_bounds.resync,
    coerce_to_size=cnum_bounds.coerce_to_size,
    sign_extend=cnum_bounds.sign_extend,
    comparison=cnum_branch.comparison,
)


def domain_of(rules: KernelRules) -> Domain:
    """Return the domain of a kernel."""
    return CNUM if rules.circular_ranges else RANGES
