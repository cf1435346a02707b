"""Stack use over the call graph, callbacks included (kernel: check_max_stack_depth)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from bpfvm.insn import Insn
from bpfvm.isa import CallKind
from verifier.abnormal import has_packet_load, has_tail_call
from verifier.callgraph import refs_of
from verifier.env import Env
from verifier.reasons import Reason, Reject
from verifier.stackargs import count_stack_args

__all__ = ["check_stack_depth"]

#: kernel: MAX_BPF_STACK; frames are rounded up for the JIT; MIN_PRIVATE: BPF_PRIV_STACK_MIN_SIZE
MAX_STACK = 512
MIN_PRIVATE = 64
#: What a subprog that makes tail calls may find used already.
MAX_BEFORE_TAIL_CALL = 256
_ROUND = 16
_CALL = 0x85
#: Types of programs whose larger frames lie on a stack of their own (kernel:
#: bpf_enable_priv_stack).
_PRIVATE = frozenset({"kprobe", "tracepoint", "perf_event", "raw_tp"})


def check_stack_depth(env: Env) -> None:
    """Refuse call chains whose frames together need too much stack, or are too many; and throws
    in callbacks, which only here is known of all paths.

    Raises:
        Reject: naming the chain's length, or the insn.
    """
    depth = _Depth(env)
    for number in sorted(depth.run_apart, reverse=True):
        depth.check(number)
    depth.check(0)
    if env.uses_stack_args:
        depth.check_stack_args()


class _Entry(NamedTuple):
    """A subprog as frame number *frames*, with *before* bytes used by its callers, one of which
    is called back where *called_back*."""

    number: int
    frames: int
    before: int
    called_back: bool


class _Depth:
    """The subprogs of one program, and how deep each was entered."""

    def __init__(self, env: Env) -> None:
        self._env = env
        self._starts = env.cfg.starts
        self._ends = [*self._starts[1:], len(env.insns)]
        self._sizes = [
            -(-depth // _ROUND) * _ROUND for depth in env.fastcalls.depths(env.stack_depth)
        ]
        self._tail_calls = [
            has_tail_call(env.registry, env.insns[start:end])
            for start, end in zip(self._starts, self._ends, strict=True)
        ]
        may_load = env.rules.early_returns_in_callbacks
        #: Which subprogs hold packet loads, where callbacks may not.
        self._loads = [
            not may_load and has_packet_load(env.insns[start:end])
            for start, end in zip(self._starts, self._ends, strict=True)
        ]
        handler = env.cfg.exception_callback
        self._handler = None if handler is None else env.cfg.subprog_at(handler)
        #: What doesn't run under the main program.
        self.run_apart = set(env.run_apart)
        if self._handler is not None:
            self.run_apart.add(self._handler)
        self._private = False
        self._deepest: dict[tuple[int, int, bool], int] = {}

    def check(self, root: int) -> None:
        """Check all chains that begin with subprog *root*, in the order of insns."""
        # What runs apart from the main program uses the kernel's stack.
        kind = self._env.program.prog_type
        self._private = not root and kind in _PRIVATE and not any(self._tail_calls)
        self._deepest.clear()
        todo: list[Iterator[_Entry]] = [iter([_Entry(root, 1, 0, False)])]
        while todo:
            entry = next(todo[-1], None)
            if entry is None:
                todo.pop()
                continue
            if entry.frames > self._env.rules.call_frames:
                raise Reject(Reason.FRAMES_STATIC, frames=entry.frames - 1)
            total = self._total(entry)
            is_apart = entry.number == self._handler
            called_back = entry.called_back or is_apart or entry.number in self._env.called_back
            key = (entry.number, entry.frames, called_back)
            if called_back and self._loads[entry.number]:
                raise Reject(Reason.LD_ABS_IN_CALLBACK)
            if self._deepest.get(key, -1) < total:
                self._deepest[key] = total
                todo.append(self._enter(entry, total, called_back))

    def check_stack_args(self) -> None:
        """Refuse tail calls under what has arguments on the stack, or passes some."""
        insns = self._env.insns
        callees = [
            {self._starts.index(target) for _, target in refs_of(insns, start, end)}
            for start, end in zip(self._starts, self._ends, strict=True)
        ]
        jumps = {number for number, found in enumerate(self._tail_calls) if found}
        while more := {n for n, called in enumerate(callees) if called & jumps} - jumps:
            jumps |= more
        taking = {n for n in range(len(callees)) if count_stack_args(self._env, n)}
        if jumps & (taking | {n for n, called in enumerate(callees) if called & taking}):
            raise Reject(Reason.STACK_ARG_TAIL_CALL)

    def _enter(self, entry: _Entry, total: int, called_back: bool) -> Iterator[_Entry]:
        """Yield what subprog *entry* calls, or takes the address of."""
        insns, number = self._env.insns, entry.number
        start, end = self._starts[number], self._ends[number]
        targets = dict(refs_of(insns, start, end))
        for idx in range(start, end):
            if called_back and self._throws(insns[idx]):
                raise Reject(Reason.THROW_IN_CALLBACK, insn=idx, number=number)
            if idx not in targets:
                continue
            callee = self._starts.index(targets[idx])
            if callee in self.run_apart:
                if insns[idx].opcode != _CALL:
                    continue
                if callee == self._handler:
                    raise Reject(Reason.EXCEPTION_CALLED, insn=idx)
            yield _Entry(callee, entry.frames + 1, total, called_back)

    def _throws(self, insn: Insn) -> bool:
        if insn.opcode != _CALL or insn.src != CallKind.KFUNC.value:
            return False
        names = self._env.program.kfuncs
        proto = self._env.registry.kfuncs.get(names[insn.imm]) if insn.imm < len(names) else None
        return proto is not None and proto.throws

    def _total(self, entry: _Entry) -> int:
        """Return the bytes that the chain uses with *entry* at its end."""
        number, before = entry.number, entry.before
        if number and self._tail_calls[number] and before >= MAX_BEFORE_TAIL_CALL:
            raise Reject(Reason.TAIL_CALL_STACK, size=before)
        size = self._sizes[number]
        if self._private and size >= MIN_PRIVATE:
            if size > MAX_STACK:
                raise Reject(Reason.STACK_SUBPROG, number=number, size=size)
            return before
        if before + size > MAX_STACK:
            raise Reject(Reason.STACK_DEPTH, calls=entry.frames, size=before + size)
        return before + size
