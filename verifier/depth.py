"""Stack use over the call graph (kernel: check_max_stack_depth)."""

from __future__ import annotations

from verifier.cfg import refs_of
from verifier.env import Env
from verifier.reasons import Reason, Reject

__all__ = ["check_stack_depth"]

#: kernel: MAX_BPF_STACK; frames are rounded up for the JIT
MAX_STACK = 512
_ROUND = 16


def check_stack_depth(env: Env) -> None:
    """Refuse call chains whose frames together need too much stack, or are too many.

    Raises:
        Reject: naming the chain's length.
    """
    starts = env.cfg.starts
    ends = [*starts[1:], len(env.insns)]
    sizes = [-(-depth // _ROUND) * _ROUND for depth in env.stack_depth]
    callees = [
        sorted({starts.index(target) for _, target in refs_of(env.insns, start, end)})
        for start, end in zip(starts, ends, strict=True)
    ]
    limit = env.rules.call_frames
    deepest: dict[tuple[int, int], int] = {}
    todo = [(0, 1, sizes[0])]
    while todo:
        subprog, frames, total = todo.pop()
        if total > MAX_STACK:
            raise Reject(Reason.STACK_DEPTH, calls=frames, size=total)
        if deepest.get((subprog, frames), -1) >= total:
            continue
        deepest[subprog, frames] = total
        for callee in callees[subprog]:
            if frames >= limit:
                raise Reject(Reason.FRAMES_STATIC, frames=frames)
            todo.append((callee, frames + 1, total + sizes[callee]))
