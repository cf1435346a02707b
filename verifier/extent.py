"""Whether an access lies inside what a pointer of known extent points to."""

from __future__ import annotations

from collections.abc import Sequence

from bpfvm.bits import S64_MIN, s32
from bpfvm.record import MapField
from verifier.bounds import Scalar
from verifier.env import Env
from verifier.reasons import Reason, Reject
from verifier.state import RegState

__all__ = ["check_fields_untouched", "check_region"]

#: kernel: BPF_MAX_VAR_OFF
MAX_VAR_OFF = 1 << 29


def check_region(
    env: Env,
    regno: int,
    pointer: RegState,
    off: int,
    size: int,
    limit: int,
    detail: str,
    *,
    zero_ok: bool = False,
) -> None:
    """Check [off, off + size) from where *pointer*'s variable part may lead against [0, limit)
    (kernel: check_mem_region_access). *detail* is a template with `{off}` and `{size}`."""
    s = pointer.scalar
    low = s.smin + off
    moved_below = (
        env.rules.pointer_off_in_range and not s.mask and s.smin + pointer.off < 0 and low < 0
    )
    if moved_below or (s.smin < 0 and (s.smin == S64_MIN or low != s32(low) or low < 0)):
        raise Reject(Reason.MIN_NEGATIVE, reg=regno)

    def outside(start: int) -> bool:
        return start < 0 or start + size > limit or (size == 0 and not zero_ok)

    if outside(low):
        raise Reject(Reason.MIN_OUTSIDE, before=[detail.format(off=s32(low), size=size)], reg=regno)
    # From 7.3 on the constant part counts as well, and below 0 it is large as an unsigned number.
    moved = pointer.off if env.rules.pointer_off_in_range else 0
    if s.umax + moved >= MAX_VAR_OFF or s.smin + moved < 0:
        raise Reject(Reason.UNBOUNDED_ACCESS, reg=regno)
    high = s.umax + off
    if outside(high):
        raise Reject(
            Reason.MAX_OUTSIDE, before=[detail.format(off=s32(high), size=size)], reg=regno
        )


def check_fields_untouched(s: Scalar, off: int, size: int, record: Sequence[MapField]) -> None:
    """Refuse to touch special fields of a map's value."""
    for field in record:
        if s.smin + off < field.end and field.off < s.umax + off + size:
            if field.kind.is_pointer:
                raise Reject(Reason.NOT_SUPPORTED, what=f"{field.kind.label} in a map's value")
            raise Reject(Reason.FIELD_ACCESS, field=field.kind.label)
