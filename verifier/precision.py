"""Which scalars matter: marks spread backwards from where a value decided something.

A state that was saved for pruning may be taken as equal to another whose imprecise scalars
differ. So whenever a scalar's value was relied on (a predicted branch, a size, a pointer's
offset), the scalars it came from in the saved states above must be marked precise
(kernel: __mark_chain_precision). Where the trail can't be followed, all scalars are marked: that
is always sound, it only makes pruning rarer.
"""

from __future__ import annotations

from bpfvm.insn import Insn
from bpfvm.isa import AtomicOp, CallKind, InsnDef, Kind
from verifier.env import Env
from verifier.state import (
    FP_REG,
    Executed,
    LinkedReg,
    RegType,
    StackAccess,
    StackSlot,
    VerifierState,
    with_precise,
)

__all__ = ["Wanted", "mark_all_precise", "mark_reg", "mark_slot", "mark_wanted"]

_SCALAR = RegType.SCALAR
_ARGS = 0b111110


#: See `_trail`.
Trail = tuple[int, int, int, int]


class _GiveUpError(Exception):
    """The trail can't be followed."""


class Wanted:
    """Registers and slots (bit masks) of each frame whose values are still to be traced."""

    __slots__ = ("regs", "slots")

    def __init__(self, frames: int) -> None:
        self.regs = [0] * frames
        self.slots = [0] * frames

    def __bool__(self) -> bool:
        return any(self.regs) or any(self.slots)

    def below(self) -> bool:
        """Say whether anything but registers of the innermost frame is wanted."""
        return any(self.regs[:-1]) or any(self.slots)

    def names(self, frameno: int) -> str:
        """Return `r2,r3,fp-8` of one frame, for the log."""
        names = [f"r{r}" for r in range(10) if self.regs[frameno] >> r & 1]
        names += [f"fp{-8 * (spi + 1)}" for spi in _bits(self.slots[frameno])]
        return ",".join(names)

    def text(self, frameno: int) -> str:
        """Return `regs=r2,r3 stack=-8` of one frame, for the log."""
        regs = ",".join(f"r{r}" for r in range(10) if self.regs[frameno] >> r & 1)
        slots = ",".join(str(-8 * (spi + 1)) for spi in _bits(self.slots[frameno]))
        return f"regs={regs} stack={slots}"


def mark_reg(env: Env, regno: int) -> None:
    """Mark the scalar in *regno* of the current frame as relied on by the current insn."""
    cur = env.cur
    if cur.parent is None and not env.log.verbose:
        return  # no saved state above: nothing could be pruned against
    wanted = Wanted(len(cur.frames))
    wanted.regs[-1] = 1 << regno
    mark_wanted(env, cur, wanted, skip_first=True)


def mark_slot(env: Env, frameno: int, spi: int) -> None:
    """Mark the scalar spilled in a stack slot as relied on by the current insn."""
    cur = env.cur
    if cur.parent is None and not env.log.verbose:
        return
    wanted = Wanted(len(cur.frames))
    wanted.slots[frameno] |= 1 << spi
    mark_wanted(env, cur, wanted, skip_first=True)


def mark_wanted(env: Env, start: VerifierState, wanted: Wanted, *, skip_first: bool) -> bool:
    """Spread *wanted*, needed at *start*, to the saved states above; say whether a mark is new.

    *skip_first*: the newest history entry is the insn that needs them, not yet executed.
    """
    if not env.privs.bpf_capable:
        return False  # all scalars count as precise
    changed = False
    state: VerifierState = start
    history = start.history[:-1] if skip_first else start.history
    verbose = env.log.verbose
    last, later = start.insn_idx, -1
    while True:
        if verbose:
            env.log.line(
                f"mark_precise: frame{len(wanted.regs) - 1}: last_idx {last} "
                f"first_idx {state.first_insn} subseq_idx {later} "
            )
        try:
            if _trace(env, history, wanted, start.insn_idx if later < 0 else later):
                return changed
        except _GiveUpError:
            return mark_all_precise(start) or changed
        parent = state.parent
        if parent is None:
            break
        changed |= _mark_state(parent, wanted)
        if verbose:
            for frame in reversed(parent.frames[: len(wanted.regs)]):
                env.log.full_state(
                    f"mark_precise: frame{frame.frameno}: "
                    f"parent state {wanted.text(frame.frameno)}: ",
                    frame,
                    parent,
                )
        if not wanted:
            return changed
        later, last = state.first_insn, parent.last_insn
        state, history = parent, parent.history
    if not wanted or _is_promised(state, wanted):
        return changed
    return mark_all_precise(start) or changed


def _is_promised(first: VerifierState, wanted: Wanted) -> bool:
    """Say whether only arguments of a global subprog are left at its start: any will do."""
    frame = first.frames[0]
    return bool(
        frame.subprog
        and len(wanted.regs) == 1
        and not wanted.slots[0]
        and not wanted.regs[0] & ~_ARGS
    )


def _bits(mask: int) -> list[int]:
    """Return the numbers of the bits that are set, ascending."""
    return [bit for bit in range(mask.bit_length()) if mask >> bit & 1]


def _mark_state(state: VerifierState, wanted: Wanted) -> bool:
    """Mark *wanted* in saved *state*; what needs no further search leaves *wanted*."""
    changed = False
    for frameno, mask in enumerate(wanted.regs):
        regs = state.frames[frameno].regs
        for regno in _bits(mask) if mask else ():
            reg = regs[regno]
            if reg.type is not _SCALAR or reg.precise:
                wanted.regs[frameno] &= ~(1 << regno)
            else:
                regs[regno] = with_precise(reg, True)
                changed = True
    for frameno, mask in enumerate(wanted.slots):
        stack = state.frames[frameno].stack
        for spi in _bits(mask) if mask else ():
            slot = stack.get(spi)
            spilled = slot.spilled if slot is not None else None
            if slot is None or spilled is None or spilled.type is not _SCALAR or spilled.precise:
                wanted.slots[frameno] &= ~(1 << spi)
            else:
                stack[spi] = StackSlot(slot.types, with_precise(spilled, True))
                changed = True
    return changed


def mark_all_precise(start: VerifierState) -> bool:
    """Mark every scalar in the saved states above *start*; say whether a mark is new."""
    changed = False
    state = start.parent
    while state is not None:
        for frame in state.frames:
            for regno, reg in enumerate(frame.regs):
                if reg.type is _SCALAR and not reg.precise:
                    frame.regs[regno] = with_precise(reg, True)
                    changed = True
            if any(reg.type is _SCALAR and not reg.precise for reg in frame.stack_args):
                frame.stack_args = tuple(
                    with_precise(reg, True) if reg.type is _SCALAR else reg
                    for reg in frame.stack_args
                )
                changed = True
            for spi, slot in frame.stack.items():
                spilled = slot.spilled
                if spilled is not None and spilled.type is _SCALAR and not spilled.precise:
                    frame.stack[spi] = StackSlot(slot.types, with_precise(spilled, True))
                    changed = True
        state = state.parent
    return changed


def _trace(env: Env, history: list[Executed], wanted: Wanted, later: int) -> bool:
    """Follow *wanted* back through *history*, after which *later* ran; return True when nothing is
    left to trace."""
    if not env.trails:
        env.trails = [
            _trail(
                insn,
                row,
                walked=not env.is_global_call(idx),
                apart=idx in env.cfg.callbacks or env.may_tail_call(idx),
            )
            for idx, (insn, row) in enumerate(zip(env.insns, env.cfg.rows, strict=True))
        ]
    trails, rows, verbose = env.trails, env.cfg.rows, env.log.verbose
    top, rest = wanted.regs[-1], wanted.below()
    access: StackAccess | None
    linked: tuple[LinkedReg, ...]
    for executed in reversed(history):
        if isinstance(executed, int):
            idx, access, linked = executed, None, ()
        else:
            idx, access, linked = executed
        if verbose:
            wanted.regs[-1] = top
            frameno = len(wanted.regs) - 1
            env.log.line(
                f"mark_precise: frame{frameno}: {wanted.text(frameno)} before {idx}: "
                f"{env.insn_text(idx)}"
            )
        test, clear, gain, how = trails[idx]
        if access is not None or linked or how == _ALWAYS or (how == _CAREFUL and top & test):
            wanted.regs[-1] = top
            row = rows[idx]
            if row is None:
                raise _GiveUpError
            _join_linked(wanted, linked)
            _back(env, idx, row, access, wanted, later)
            _join_linked(wanted, linked)
            top, rest = wanted.regs[-1], wanted.below()
        elif top & test:
            top = top & ~clear | gain
        if not top and not rest:
            wanted.regs[-1] = 0
            return True
        later = idx
    wanted.regs[-1] = top
    return False


#: How an insn is traced when it is neither a fill or spill nor linked: by its masks alone; with
#: care where it touches what is wanted; always with care.
_PLAIN, _CAREFUL, _ALWAYS = 0, 1, 2


def _trail(insn: Insn, row: InsnDef | None, *, walked: bool, apart: bool) -> Trail:
    """Return (test, clear, gain, how) of an insn: a wanted register in *test* goes back to what
    is left without *clear*, and *gain*. The same as `_back`, made once for each insn. *walked*: a
    local call's callee is part of the path; *apart*: what ran next tells what the call did."""
    dst, src = 1 << insn.dst, 1 << insn.src
    if row is None:
        return -1, 0, 0, _ALWAYS
    other = src if row.is_reg and insn.src != FP_REG else 0
    match row.kind:
        case Kind.ALU:
            return (dst, 0, other, _PLAIN) if other else (0, 0, 0, _PLAIN)
        case Kind.MOV | Kind.MOVSX | Kind.CAST_KERN | Kind.CAST_USER:
            return dst, dst, other, _PLAIN
        case Kind.NEG | Kind.END | Kind.JA | Kind.MAY_GOTO:
            return 0, 0, 0, _PLAIN
        case Kind.LDX if insn.src > FP_REG:
            return dst, 0, 0, _CAREFUL
        case Kind.LDIMM64 | Kind.LDX | Kind.LOAD_ACQ:
            return dst, dst, 0, _PLAIN
        case Kind.JCOND:
            both = dst | (src if row.is_reg else 0)
            return both, 0, both, _PLAIN
        case Kind.ST | Kind.STX | Kind.STORE_REL:
            return dst, 0, 0, _CAREFUL
        case Kind.CALL if apart or (row.op is CallKind.LOCAL and walked):
            return -1, 0, 0, _ALWAYS
        case Kind.CALL | Kind.CALLX:
            return 0b111111, 0, 0, _CAREFUL
        case Kind.ATOMIC:
            return dst | src | 1, 0, 0, _CAREFUL
        case Kind.EXIT | Kind.LD_ABS | Kind.LD_IND:
            return -1, 0, 0, _ALWAYS


def _join_linked(wanted: Wanted, linked: tuple[LinkedReg, ...]) -> None:
    """Where one of *linked* is wanted, all are: a branch refined them together."""
    if not linked:
        return
    for frameno, is_reg, at in linked:
        if frameno < len(wanted.regs) and (
            (wanted.regs if is_reg else wanted.slots)[frameno] >> at & 1
        ):
            break
    else:
        return
    for frameno, is_reg, at in linked:
        if frameno >= len(wanted.regs):
            raise _GiveUpError
        if is_reg:
            wanted.regs[frameno] |= 1 << at
        else:
            wanted.slots[frameno] |= 1 << at


def _back(
    env: Env,
    idx: int,
    row: InsnDef,
    access: tuple[int, int] | None,
    wanted: Wanted,
    later: int,
) -> None:
    """Replace in *wanted* what insn *idx*, after which *later* ran, made by what it made it from
    (kernel: backtrack_insn)."""
    insn = env.insns[idx]
    regs = wanted.regs
    dst, src = 1 << insn.dst, 1 << insn.src
    match row.kind:
        case Kind.ALU:
            if regs[-1] & dst and row.is_reg and insn.src != FP_REG:
                regs[-1] |= src
        case Kind.MOV | Kind.MOVSX | Kind.CAST_KERN | Kind.CAST_USER:
            if regs[-1] & dst:
                regs[-1] &= ~dst
                if row.is_reg and insn.src != FP_REG:
                    regs[-1] |= src
        case Kind.NEG | Kind.END | Kind.JA | Kind.MAY_GOTO:
            pass
        case Kind.LDIMM64:
            regs[-1] &= ~dst
        case Kind.LDX if insn.src > FP_REG:
            if regs[-1] & dst:
                raise _GiveUpError  # an argument on the stack
        case Kind.LDX | Kind.LOAD_ACQ:
            if regs[-1] & dst:
                regs[-1] &= ~dst
                if access is not None:
                    wanted.slots[access[0]] |= 1 << access[1]
        case Kind.ST | Kind.STX | Kind.STORE_REL | Kind.ATOMIC:
            if regs[-1] & dst:
                raise _GiveUpError  # a scalar can't address memory: a pointer was subtracted
            result = 0
            if row.kind is Kind.ATOMIC and row.fetch:
                result = regs[-1] & (1 if row.op is AtomicOp.CMPXCHG else src)
                regs[-1] &= ~result
            if access is not None and wanted.slots[access[0]] >> access[1] & 1:
                wanted.slots[access[0]] &= ~(1 << access[1])
                if row.kind is not Kind.ST:
                    regs[-1] |= src
            if result and access is not None:
                wanted.slots[access[0]] |= 1 << access[1]
        case Kind.JCOND:
            both = dst | (src if row.is_reg else 0)
            if regs[-1] & both:
                regs[-1] |= both
        case Kind.CALL if row.op is CallKind.LOCAL and not env.is_global_call(idx):
            _leave_callee(wanted)
        case Kind.CALL if later != idx + 1 and env.may_tail_call(idx):
            _enter_callee(wanted)  # another program has left the frame with some r0
            wanted.regs[-1] = 0
        case Kind.CALL if idx in env.cfg.callbacks and later != idx + 1:
            _leave_callback(wanted)
        case Kind.CALL | Kind.CALLX:
            regs[-1] &= ~1
            if regs[-1] & _ARGS:
                raise _GiveUpError
        case Kind.EXIT if later in env.cfg.callbacks:
            wanted.regs.append(0)
            wanted.slots.append(0)
        case Kind.EXIT:
            _enter_callee(wanted)
        case Kind.LD_ABS | Kind.LD_IND if later != idx + 1:
            _enter_callee(wanted)  # it failed and left the frame with r0 = 0
            wanted.regs[-1] = 0
        case Kind.LD_ABS | Kind.LD_IND:
            if regs[-1] & 1:
                raise _GiveUpError


def _leave_callee(wanted: Wanted) -> None:
    """Go back over a call: the callee's arguments are the caller's."""
    regs, slots = wanted.regs.pop(), wanted.slots.pop()
    if slots or regs & ~_ARGS or not wanted.regs:
        raise _GiveUpError
    wanted.regs[-1] |= regs


def _leave_callback(wanted: Wanted) -> None:
    """Go back over the start of a callback: its arguments come from no register of the caller."""
    regs, slots = wanted.regs.pop(), wanted.slots.pop()
    if slots or regs & ~_ARGS or not wanted.regs:
        raise _GiveUpError


def _enter_callee(wanted: Wanted) -> None:
    """Go back over a callee's exit: the caller's r0 is the callee's."""
    if wanted.regs[-1] & _ARGS:
        raise _GiveUpError
    r0 = wanted.regs[-1] & 1
    wanted.regs[-1] &= ~1
    wanted.regs.append(r0)
    wanted.slots.append(0)
