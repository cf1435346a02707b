"""Which stack slots may still be read: one that isn't cannot make two states differ.

What the walk reads and writes is noted per chain of calls and insn: `may_read` only grows,
`must_write` (what every visit overwrote whole) only shrinks. At the end of a path the notes are
spread backwards over the CFG; a callee's are then handed to its call. So when all paths below a
saved state are walked, the slots it may be compared by are known
(kernel: kernel/bpf/liveness.c of 6.18, in its order, since level 2 logs each change).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bpfvm.insn import Insn
from bpfvm.isa import CallKind
from verifier.cfg import Cfg
from verifier.graph import successors
from verifier.log import Log
from verifier.state import VerifierState

__all__ = ["StackLiveness"]

_ALL = (1 << 64) - 1
#: Call insns of the outer frames, outermost first, then the innermost subprog's first slot.
_Chain = tuple[int, ...]


class _Order(NamedTuple):
    """The insns of a subprog, counted from its first slot: `insns` in postorder, `position[i]` of
    insn i in it (-1: none), its successors and predecessors."""

    insns: list[int]
    position: list[int]
    succ: list[tuple[int, ...]]
    pred: list[list[int]]


class _Masks:
    """Of one frame's slots, as seen from one chain: bits per insn of the innermost subprog."""

    __slots__ = ("acc", "dirty", "live", "may_read", "must_write")

    def __init__(self, size: int) -> None:
        self.may_read = [0] * size
        self.must_write = [0] * size
        #: Written by this insn or on every way from it out of the subprog.
        self.acc = [0] * size
        #: May be read by this insn or after it, before being overwritten.
        self.live = [0] * size
        #: Insns whose notes changed.
        self.dirty: set[int] = set()


class _Instance:
    """A subprog as it runs at the end of one chain of calls."""

    __slots__ = ("chain", "dropped", "frames", "size", "start", "updated", "visited")

    def __init__(self, chain: _Chain, size: int) -> None:
        self.chain, self.start, self.size = chain, chain[-1], size
        self.frames: list[_Masks | None] = [None] * len(chain)
        self.visited = bytearray(size)
        self.updated = self.dropped = False

    def masks(self, frameno: int) -> _Masks:
        """Return the masks of frame *frameno*, made when first needed."""
        found = self.frames[frameno]
        if found is None:
            found = self.frames[frameno] = _Masks(self.size)
        return found

    def live_before(self, idx: int, frameno: int) -> int:
        """Return the slots of frame *frameno* that are live before slot *idx*."""
        masks = self.frames[frameno]
        return 0 if masks is None else masks.live[idx - self.start]


class StackLiveness:
    """The notes of one walk."""

    def __init__(self, insns: Sequence[Insn], cfg: Cfg, log: Log) -> None:
        self._insns, self._cfg, self._log = insns, cfg, log
        self._ends = dict(zip(cfg.starts, [*cfg.starts[1:], len(insns)], strict=True))
        self._instances: dict[_Chain, _Instance] = {}
        self._orders: dict[int, _Order] = {}
        self._current: _Instance | None = None
        self._written: dict[int, int] = {}

    # -- while walking -------------------------------------------------------------------------

    def read(self, state: VerifierState, frameno: int, bits: int) -> None:
        """Note that the current insn may read slots of frame *frameno*."""
        instance = self._current
        if instance is None:
            instance = self._current = self._lookup(state, len(state.frames) - 1)
        masks = instance.frames[frameno]
        if masks is None or bits & ~masks.may_read[state.insn_idx - instance.start]:
            _note_read(instance, frameno, state.insn_idx, bits)

    def write(self, frameno: int, bits: int) -> None:
        """Note that the current insn overwrites all eight bytes of slots of frame *frameno*."""
        self._written[frameno] = self._written.get(frameno, 0) | bits

    def commit(self, state: VerifierState, idx: int) -> None:
        """Take what was written since the last time as written by slot *idx*."""
        instance = self._current
        if instance is None:
            instance = self._current = self._lookup(state, len(state.frames) - 1)
        _note_written(instance, idx, self._written)
        self._written.clear()

    def forget_frame(self) -> None:
        """The innermost frame is another one now."""
        self._current = None
        self._written.clear()

    def update(self, state: VerifierState) -> None:
        """Spread the notes of all open frames, as a path or the innermost frame ends (kernel:
        bpf_update_live_stack)."""
        self.forget_frame()
        for depth in range(len(state.frames) - 1, -1, -1):
            instance = self._lookup(state, depth)
            if instance.updated:
                self._spread(instance)
                instance.updated = instance.dropped = False

    def live(self, state: VerifierState) -> list[int]:
        """Return, per frame of saved *state*, the bits of slots that may still be read."""
        top = len(state.frames) - 1
        instances = [self._lookup(state, depth) for depth in range(top + 1)]
        found = []
        for frameno in range(top + 1):
            live = instances[top].live_before(state.insn_idx, frameno)
            for depth in range(frameno, top):
                callsite = state.frames[depth + 1].callsite
                row = self._cfg.rows[callsite]
                # A callback may be called again, a subprog has been.
                after = row is not None and row.op is CallKind.LOCAL
                live |= instances[depth].live_before(callsite + after, frameno)
            found.append(live)
        return found

    def _lookup(self, state: VerifierState, depth: int) -> _Instance:
        frames = state.frames
        start = self._cfg.starts[frames[depth].subprog]
        return self._instance((*(f.callsite for f in frames[1 : depth + 1]), start))

    def _instance(self, chain: _Chain) -> _Instance:
        found = self._instances.get(chain)
        if found is None:
            start = chain[-1]
            found = self._instances[chain] = _Instance(chain, self._ends[start] - start)
        return found

    # -- spreading -----------------------------------------------------------------------------

    def _spread(self, instance: _Instance) -> None:
        """Bring `live` and `acc` to a fixpoint. Each round goes over the insns in postorder; those
        that nothing changed for would come out as they are, and are left out."""
        start = instance.start
        order = self._orders.get(start)
        if order is None:
            order = self._orders[start] = _postorder(self._insns, start, self._ends[start])
        frames = [(n, masks) for n, masks in enumerate(instance.frames) if masks is not None]
        if instance.dropped:
            for _, masks in frames:
                masks.acc = [0] * instance.size
                masks.dirty.update(range(instance.size))
        rounds, changed = 0, True
        while changed:
            changed = False
            rounds += 1
            for frameno, masks in frames:
                if masks.dirty and self._sweep(instance, frameno, masks, order):
                    changed = True
        if self._log.verbose:
            self._log.line(f"{_chain_text(instance)} live stack update done in {rounds} iterations")
        if len(instance.chain) > 1:
            self._hand_up(instance)

    def _sweep(self, instance: _Instance, frameno: int, masks: _Masks, order: _Order) -> bool:
        """Go over the dirty insns once, in order; say whether anything changed."""
        live, acc, succ, pred = masks.live, masks.acc, order.succ, order.pred
        position = order.position
        todo = sorted((position[i] for i in masks.dirty if position[i] >= 0), reverse=True)
        waiting = set(todo)
        masks.dirty = later = set()
        changed = False
        while todo:
            at = todo.pop()
            waiting.discard(at)
            i = order.insns[at]
            if not succ[i]:
                continue
            after, always = 0, _ALL
            for nxt in succ[i]:
                after |= live[nxt]
                always &= acc[nxt]
            always |= masks.must_write[i]
            before = after & ~masks.must_write[i] | masks.may_read[i]
            if before == live[i] and always == acc[i]:
                continue
            changed = True
            if self._log.verbose:
                self._log_change(instance, frameno, masks, i, before, always)
            live[i], acc[i] = before, always
            for p in pred[i]:
                where = position[p]
                if where <= at:
                    later.add(p)
                elif where not in waiting:
                    waiting.add(where)
                    _insert(todo, where)
        return changed

    def _hand_up(self, instance: _Instance) -> None:
        """A call reads what its callee reads first, and writes what it writes on every way."""
        callsite = instance.chain[-2]
        start = next(start for start, end in self._ends.items() if start <= callsite < end)
        outer = self._instance((*instance.chain[:-2], start))
        written = {}
        for frameno, masks in enumerate(instance.frames[:-1]):
            if masks is not None:
                written[frameno] = masks.acc[0]
                _note_read(outer, frameno, callsite, masks.live[0])
        _note_written(outer, callsite, written)

    def _log_change(
        self, instance: _Instance, frameno: int, masks: _Masks, i: int, live: int, acc: int
    ) -> None:
        idx = instance.start + i
        if not (masks.may_read[i] or masks.must_write[i] or not i or idx in self._cfg.prune):
            return
        lead = f"{_chain_text(instance)} frame {frameno} insn {idx} "
        for name, old, new in (("live", masks.live[i], live), ("written", masks.acc[i], acc)):
            text = ""
            if new & ~old:
                text = f"+{name} {slots_text(new & ~old)} "
            if old & ~new:
                text += f"-{name} {slots_text(old & ~new)}"
            if text:
                self._log.line(lead + text)


def _postorder(insns: Sequence[Insn], start: int, end: int) -> _Order:
    """Return the order of the subprog in slots [start, end) (kernel: compute_postorder)."""
    size = end - start
    succ: list[tuple[int, ...]] = [()] * size
    pred: list[list[int]] = [[] for _ in range(size)]
    found: list[int] = []
    position = [-1] * size
    known, done = bytearray(size), bytearray(size)
    known[0] = 1
    stack = [0]
    while stack:
        top = stack[-1]
        if done[top]:
            position[top] = len(found)
            found.append(top)
            stack.pop()
            continue
        done[top] = 1
        succ[top] = tuple(
            dict.fromkeys(nxt - start for nxt in successors(start + top, insns[start + top]))
        )
        for nxt in succ[top]:
            pred[nxt].append(top)
            if not known[nxt]:
                known[nxt] = 1
                stack.append(nxt)
    return _Order(found, position, succ, pred)


def slots_text(bits: int) -> str:
    """Return `-8,-16` for the slots whose bits are set (kernel: bpf_fmt_stack_mask)."""
    return ",".join(str(-8 * (i + 1)) for i in range(bits.bit_length()) if bits >> i & 1)


def _chain_text(instance: _Instance) -> str:
    return f"({','.join(map(str, instance.chain))})"


def _insert(descending: list[int], at: int) -> None:
    """Insert *at* into a sorted list; mostly it belongs near its end."""
    i = len(descending)
    while i and descending[i - 1] < at:
        i -= 1
    descending.insert(i, at)


def _note_read(instance: _Instance, frameno: int, idx: int, bits: int) -> None:
    masks = instance.masks(frameno)
    i = idx - instance.start
    if bits & ~masks.may_read[i]:
        masks.may_read[i] |= bits
        if masks.may_read[i] & ~masks.live[i]:
            masks.dirty.add(i)
            instance.updated = True


def _note_written(instance: _Instance, idx: int, written: dict[int, int]) -> None:
    i = idx - instance.start
    visited = instance.visited[i]
    for frameno in range(len(instance.frames)):
        bits = written.get(frameno, 0)
        if not bits and not visited:
            continue
        masks = instance.masks(frameno)
        old = masks.must_write[i]
        if visited:
            bits &= old
        if bits != old:
            masks.must_write[i] = bits
            masks.dirty.add(i)
            instance.updated = True
            if old & ~bits:
                instance.dropped = True
    instance.visited[i] = 1
