"""The control flow graph's edges within subprogs, and the order that data flows in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bpfvm import isa
from bpfvm.insn import Insn

__all__ = ["is_cond_jump", "postorders", "successors"]

_EXIT, _JA, _JA32 = 0x95, 0x05, 0x06
_LDIMM64 = 0x18
_JUMP_CLASSES = (isa.InsnClass.JMP, isa.InsnClass.JMP32)


def successors(idx: int, insn: Insn) -> Iterator[int]:
    """Yield the slots that may run after slot *idx* in the same frame (jump target last)."""
    op = insn.opcode
    if op == _EXIT:
        return
    if op in (_JA, _JA32):
        yield idx + 1 + (insn.imm if op == _JA32 else insn.off)
    elif op == _LDIMM64:
        yield idx + 2
    else:
        yield idx + 1
        if is_cond_jump(op):
            yield idx + 1 + insn.off


def is_cond_jump(opcode: int) -> bool:
    """Say whether *opcode* is a conditional jump or may_goto."""
    return opcode & 7 in _JUMP_CLASSES and opcode & 0xF0 not in (0x00, 0x80, 0x90)


def postorders(insns: Sequence[Insn], starts: Sequence[int]) -> list[list[int]]:
    """Return the slots that each subprog's first slot leads to, each after those that it leads to
    (kernel: bpf_compute_postorder). What no edge leads to is in none of the lists."""
    known, done = bytearray(len(insns)), bytearray(len(insns))
    found = []
    for start in starts:
        order: list[int] = []
        stack = [start]
        while stack:
            top = stack[-1]
            known[top] = 1
            if done[top]:
                order.append(top)
                stack.pop()
                continue
            for nxt in successors(top, insns[top]):
                if not known[nxt]:
                    known[nxt] = 1
                    stack.append(nxt)
            done[top] = 1
        found.append(order)
    return found
