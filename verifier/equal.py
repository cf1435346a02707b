"""When one state is covered by another: the question that lets the walk skip a path.

`covers(old, cur)` says that whatever the walk found safe from *old* is safe from *cur*. It rests
on: an unread register or slot does not matter; a scalar that nothing relied on may be any scalar;
a smaller range is inside what was checked. Ids only matter as relations, so they are compared
through a bijection. Rules: Linux 6.18 (states_equal, regsafe, stacksafe).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, unique
from functools import cache
from itertools import product, zip_longest

from verifier.bounds import range_within
from verifier.env import Env
from verifier.state import (
    ADD_CONST,
    EMPTY_TYPES,
    NOT_INIT_REG,
    SPILL_TYPES,
    UNKNOWN_REG,
    Base,
    FuncState,
    RegState,
    RegType,
    SlotObject,
    StackSlot,
    VerifierState,
)

__all__ = ["Ids", "Mode", "covers", "looks_same"]

_SlotSafe = Callable[[StackSlot, StackSlot, "Ids", "Mode", bool], bool]


@unique
class Mode(Enum):
    """How strict to be: ANY_IMPRECISE where *old*'s marks are complete, RANGES where they are not
    yet (inside a loop), EXACT to prove that nothing changed at all. For users without CAP_BPF all
    scalars are PRECISE; SAME_SCALARS where a mispredicted path may depend on their bounds."""

    ANY_IMPRECISE = "not exact"
    RANGES = "range within"
    EXACT = "exact"
    PRECISE = "all precise"
    SAME_SCALARS = "same scalars"


_NOT_EXACT, _RANGES, _EXACT = Mode.ANY_IMPRECISE, Mode.RANGES, Mode.EXACT
_SAME_SCALARS = Mode.SAME_SCALARS
_SCALAR, _NOT_INIT = RegType.SCALAR, RegType.NOT_INIT
#: Pointers into memory of a known size: a smaller variable offset is covered by a larger.
_REGIONS = frozenset({Base.MAP_KEY, Base.MAP_VALUE, Base.MEM, Base.BUF, Base.TP_BUFFER})
_EMPTY = StackSlot(EMPTY_TYPES)
_IGNORED = frozenset("?m")
#: Types of slots that hold nothing to rely on.
_UNREADABLE = frozenset(map("".join, product("?m", repeat=8)))


class Ids:
    """A bijection between the ids of two states, built as it is asked for."""

    __slots__ = ("_pairs", "_temporary")

    def __init__(self) -> None:
        self._pairs: dict[int, int] = {}
        self._temporary = ADD_CONST << 1

    def match(self, old: int, cur: int) -> bool:
        """Say whether *old* and *cur* may be each other's (kernel: check_ids)."""
        if not old or not cur:
            return not old and not cur
        known = self._pairs.get(old)
        if known is not None:
            return known == cur
        if cur in self._pairs.values():
            return False
        self._pairs[old] = cur
        return True

    def match_scalar(self, old: int, cur: int) -> bool:
        """No id means a relation to nothing else, as a fresh id does."""
        self._temporary += 2
        return self.match(old or self._temporary, cur or self._temporary + 1)


def covers(env: Env, old: VerifierState, cur: VerifierState, mode: Mode) -> bool:
    """Say whether everything that can happen from *cur* was (or is being) checked from *old*."""
    if len(old.frames) != len(cur.frames) or old.sleepable != cur.sleepable:
        return False
    if old.speculative and not cur.speculative:
        return False
    privs = env.privs
    if not (privs.bypass_spec_v1 and privs.bpf_capable):
        mode = _narrowed_mode(env, mode)
    slot_safe = _slot_safe if privs.allow_uninit_stack else _slot_safe_unpriv
    ids = Ids()
    if not _same_duties(old, cur, ids):
        return False
    lenient_ids = env.rules.pointer_off_in_range
    same_types = mode is _EXACT or (mode is _RANGES and not env.rules.loops_ignore_misc)
    top = len(cur.frames) - 1
    for frameno, a in enumerate(old.frames):
        b = cur.frames[frameno]
        if a.callsite != b.callsite or a.callback_depth > b.callback_depth:
            return False
        if env.uses_stack_args and (a.has_passed < b.has_passed or a.has_called < b.has_called):
            return False
        if same_types and a.slots > b.slots:
            return False
        at = cur.insn_idx if frameno == top else cur.frames[frameno + 1].callsite
        if not _regs_safe(a.regs, b.regs, env.live_regs[at], ids, mode, lenient_ids):
            return False
        if (a.stack_args or b.stack_args) and not all(
            _reg_safe(x, y, ids, mode, lenient_ids)
            for x, y in zip_longest(a.stack_args, b.stack_args, fillvalue=NOT_INIT_REG)
        ):
            return False
        if a.stack and not _stack_safe(a, b, ids, mode, lenient_ids, same_types, slot_safe):
            return False
    return True


def _regs_safe(
    old: list[RegState],
    cur: list[RegState],
    live: tuple[int, ...],
    ids: Ids,
    mode: Mode,
    lenient_ids: bool,
) -> bool:
    if mode is not _NOT_EXACT:
        return all(_reg_safe(old[i], cur[i], ids, mode, lenient_ids) for i in live)
    for regno in live:
        a = old[regno]
        kind = a.type
        if kind is _NOT_INIT:
            continue
        b = cur[regno]
        if kind is not b.type:
            return False
        if kind is _SCALAR:
            if a.precise and not _scalar_safe(a, b, ids, lenient_ids):
                return False
        elif not _reg_safe(a, b, ids, mode, lenient_ids):
            return False
    return True


def _same_duties(old: VerifierState, cur: VerifierState, ids: Ids) -> bool:
    """Say whether both have to give back the same things (kernel: refsafe)."""
    if old.rcu_depth != cur.rcu_depth or old.preempt_depth != cur.preempt_depth:
        return False
    if not old.refs and not cur.refs:
        return True
    return len(old.refs) == len(cur.refs) and all(
        a.kind is b.kind and ids.match(a.id, b.id) and a.owner == b.owner
        for a, b in zip(old.refs, cur.refs, strict=True)
    )


def looks_same(old: VerifierState, cur: VerifierState) -> bool:
    """Say quickly whether the current frames' registers are the same, marks aside."""
    if len(old.frames) != len(cur.frames):
        return False
    for x, y in zip(old.frames[-1].regs, cur.frames[-1].regs, strict=True):
        if x is not y and (
            x.type is not y.type
            or x.scalar != y.scalar
            or x.off != y.off
            or x.id != y.id
            or x.arg != y.arg
        ):
            return False
    return True


def _exactly(old: RegState, cur: RegState, ids: Ids) -> bool:
    return (
        old.type is cur.type
        and old.scalar == cur.scalar
        and old.off == cur.off
        and old.arg == cur.arg
        and old.info == cur.info
        and ids.match(old.id, cur.id)
        and ids.match(old.ref, cur.ref)
    )


def _reg_safe(old: RegState, cur: RegState, ids: Ids, mode: Mode, lenient_ids: bool) -> bool:
    if mode is _EXACT:
        return _exactly(old, cur, ids)
    kind = old.type
    if kind is _NOT_INIT and (mode is not _RANGES or cur.type is _NOT_INIT):
        return True
    if kind is not cur.type:
        return False
    if kind is _SCALAR:
        if not old.precise and mode is _NOT_EXACT:
            return True
        if mode is _SAME_SCALARS and (old.scalar != cur.scalar or old.off != cur.off):
            return False
        return _scalar_safe(old, cur, ids, lenient_ids)
    if kind.base in _REGIONS:
        return (
            old.off == cur.off
            and old.arg == cur.arg
            and old.info == cur.info
            and range_within(old.scalar, cur.scalar)
            and ids.match(old.id, cur.id)
            and ids.match(old.ref, cur.ref)
        )
    if kind in (RegType.PACKET, RegType.PACKET_META):
        if old.arg != cur.arg and (old.arg < 0 or cur.arg < 0 or old.arg > cur.arg):
            return False
        return (
            old.off == cur.off
            and ids.match(old.id, cur.id)
            and range_within(old.scalar, cur.scalar)
        )
    if kind is RegType.ARENA:
        return True
    return _exactly(old, cur, ids)


def _scalar_safe(old: RegState, cur: RegState, ids: Ids, lenient_ids: bool) -> bool:
    if not range_within(old.scalar, cur.scalar):
        return False
    if not old.id and lenient_ids:
        return True
    if (old.id ^ cur.id) & ADD_CONST or (old.id & ADD_CONST and old.off != cur.off):
        return False
    if old.id & ADD_CONST and not ids.match(old.id & ~ADD_CONST, cur.id & ~ADD_CONST):
        return False
    return ids.match_scalar(old.id, cur.id)


def _stack_safe(
    old: FuncState,
    cur: FuncState,
    ids: Ids,
    mode: Mode,
    lenient_ids: bool,
    same_types: bool,
    slot_safe: _SlotSafe,
) -> bool:
    for spi, a in old.stack.items():
        b = cur.stack.get(spi, _EMPTY)
        if a is b and not _has_ids(a):
            continue
        if same_types and a.types != b.types:
            return False
        if not slot_safe(a, b, ids, mode, lenient_ids):
            return False
    return True


def _has_ids(slot: StackSlot) -> bool:
    """Say whether *slot* takes part in relations, so that being the same is not enough."""
    spilled = slot.spilled
    return slot.object is not None or (spilled is not None and bool(spilled.id or spilled.ref))


def _slot_safe(a: StackSlot, b: StackSlot, ids: Ids, mode: Mode, lenient_ids: bool) -> bool:
    types = a.types
    if types in _UNREADABLE:
        return True
    x, y = a.spilled, b.spilled
    if types == b.types and a.object is None:  # the most frequent case, and quickly told
        if x is None:
            return True
        if y is not None:
            if mode is _NOT_EXACT and not x.precise and x.type is _SCALAR and y.type is _SCALAR:
                return True
            return _reg_safe(x, y, ids, mode, lenient_ids)
    x, y = _as_scalar(a), _as_scalar(b)
    if x is not None and y is not None:
        return _reg_safe(x, y, ids, mode, lenient_ids)
    if not _bytes_fit(types, b.types):
        return False
    if a.object is not None:
        return b.object is not None and _object_safe(a.object, b.object, ids)
    if a.spilled is None:
        return True
    return b.spilled is not None and _reg_safe(a.spilled, b.spilled, ids, mode, lenient_ids)


@cache
def _bytes_fit(old: str, cur: str) -> bool:
    return all(p == q or p in _IGNORED for p, q in zip(old, cur, strict=True))


def _slot_safe_unpriv(a: StackSlot, b: StackSlot, ids: Ids, mode: Mode, lenient_ids: bool) -> bool:
    """As `_slot_safe`, where bytes that were never written may not be read."""
    if a.types == EMPTY_TYPES:
        return True
    x, y = _written_scalar(a), _written_scalar(b)
    if x is not None and y is not None:
        return _reg_safe(x, y, ids, mode, lenient_ids)
    for p, q in zip(a.types, b.types, strict=True):
        if p != q and p != "?" and not (p == "m" and q == "0"):
            return False
    if a.object is not None:
        return b.object is not None and _object_safe(a.object, b.object, ids)
    if a.spilled is None:
        return True
    return b.spilled is not None and _reg_safe(a.spilled, b.spilled, ids, mode, lenient_ids)


def _written_scalar(slot: StackSlot) -> RegState | None:
    return None if "?" in slot.types else _as_scalar(slot)


def _narrowed_mode(env: Env, mode: Mode) -> Mode:
    """Return how strict *mode* is for a user without all capabilities."""
    if env.exact_scalars:
        return _SAME_SCALARS if mode is _NOT_EXACT else _EXACT
    return Mode.PRECISE if mode is _NOT_EXACT and not env.privs.bpf_capable else mode


def _object_safe(a: SlotObject, b: SlotObject, ids: Ids) -> bool:
    """Compare objects; how many items an iterator has given does not matter."""
    return (
        a.type == b.type
        and a.is_first == b.is_first
        and a.active == b.active
        and ids.match(a.id, b.id)
        and ids.match(a.ref, b.ref)
    )


def _as_scalar(slot: StackSlot) -> RegState | None:
    """Return what eight bytes loaded from *slot* are, where that is one scalar."""
    if slot.spilled is not None:
        is_whole = slot.types == SPILL_TYPES and slot.spilled.type is _SCALAR
        return slot.spilled if is_whole else None
    return UNKNOWN_REG if slot.types in _UNREADABLE else None
