"""Stack use over the call graph, callbacks included (kernel: check_max_stack_depth)."""

from __future__ import annotations

from collections.abc import Iterator

from verifier.abnormal import has_tail_call
from verifier.cfg import refs_of
from verifier.env import Env
from verifier.reasons import Reason, Reject

__all__ = ["check_stack_depth"]

#: kernel: MAX_BPF_STACK; frames are rounded up for the JIT; MIN_PRIVATE: BPF_PRIV_STACK_MIN_SIZE
MAX_STACK = 512
MIN_PRIVATE = 64
#: What a subprog that makes tail calls may find used already.
MAX_BEFORE_TAIL_CALL = 256
_ROUND = 16
#: Types of programs whose larger frames lie on a stack of their own (kernel:
#: bpf_enable_priv_stack).
_PRIVATE = frozenset({"kprobe", "tracepoint", "perf_event", "raw_tp"})


def check_stack_depth(env: Env) -> None:
    """Refuse call chains whose frames together need too much stack, or are too many.

    Raises:
        Reject: naming the chain's length.
    """
    _Depth(env).enter(0, 1, 0)


class _Depth:
    """The subprogs of one program, and how deep each was entered."""

    def __init__(self, env: Env) -> None:
        starts = env.cfg.starts
        ends = [*starts[1:], len(env.insns)]
        self._sizes = [-(-depth // _ROUND) * _ROUND for depth in env.stack_depth]
        self._callees: list[list[int]] = []
        self._tail_calls: list[bool] = []
        for start, end in zip(starts, ends, strict=True):
            targets = dict.fromkeys(target for _, target in refs_of(env.insns, start, end))
            self._callees.append([starts.index(target) for target in targets])
            self._tail_calls.append(has_tail_call(env.registry, env.insns[start:end]))
        self._private = env.program.prog_type in _PRIVATE and not any(self._tail_calls)
        self._limit = env.rules.call_frames
        self._deepest: dict[tuple[int, int], int] = {}

    def enter(self, subprog: int, frames: int, before: int) -> None:
        """Check *subprog* as frame number *frames*, with *before* bytes used by its callers."""
        todo: list[Iterator[tuple[int, int, int]]] = [iter([(subprog, frames, before)])]
        while todo:
            call = next(todo[-1], None)
            if call is None:
                todo.pop()
                continue
            number, frames, before = call
            if frames > self._limit:
                raise Reject(Reason.FRAMES_STATIC, frames=frames - 1)
            total = self._total(number, frames, before)
            if self._deepest.get((number, frames), -1) < total:
                self._deepest[number, frames] = total
                callees = self._callees[number]
                todo.append(iter([(callee, frames + 1, total) for callee in callees]))

    def _total(self, number: int, frames: int, before: int) -> int:
        """Return the bytes that the chain uses with subprog *number* at its end."""
        if number and self._tail_calls[number] and before >= MAX_BEFORE_TAIL_CALL:
            raise Reject(Reason.TAIL_CALL_STACK, size=before)
        size = self._sizes[number]
        if self._private and size >= MIN_PRIVATE:
            if size > MAX_STACK:
                raise Reject(Reason.STACK_SUBPROG, number=number, size=size)
            return before
        if before + size > MAX_STACK:
            raise Reject(Reason.STACK_DEPTH, calls=frames, size=before + size)
        return before + size
