"""A search tree in a heap of 4 GiB, of which only a few pages exist.

The arena has BPF_F_NO_USER_CONV: pointers are stored as 32-bit offsets, and casts cost one move.
Run it with `python examples/arena_heap.py`.
"""

from __future__ import annotations

import struct
from pathlib import Path

import bpfvm

OBJECT = Path(__file__).with_suffix(".bpf.o")
NODE = struct.Struct("<QQQ")  # struct node { left, right, key }
ARGS = struct.Struct("<QQQ")  # struct insert_args
FIRST, STEP, COUNT, PRIME = 40000, 12345, 2000, 65537


def main() -> None:
    """Insert keys, then walk the tree in order."""
    obj = bpfvm.open(OBJECT)
    prog = obj.programs["heap_insert"]
    for part, engine in enumerate(("interp", "jit")):
        count = COUNT // 2
        key = (FIRST + part * count * STEP) % PRIME
        assert prog.run(engine=engine, ctx=ARGS.pack(key, STEP, count)).r0 == 0
    pages = obj.globals["page_cnt"].cast("Q")[0]
    print(f"the program inserted {COUNT} keys; the heap of 4 GiB has {pages} pages for them")

    def node(offset: int) -> tuple[int, int, int]:
        # view() takes a 32-bit offset as well as a pointer: it adds the base.
        left, right, key = NODE.unpack(obj.arena.view(offset, NODE.size))
        return left, right, key

    keys: list[int] = []
    offsets: set[int] = set()
    stack: list[int] = []
    at = obj.globals["root"].cast("Q")[0]
    while at or stack:
        while at:
            stack.append(at)
            at = node(at)[0]
        at = stack.pop()
        offsets.add(at)
        _left, at, key = node(at)
        keys.append(key)

    assert keys == sorted((FIRST + i * STEP) % PRIME for i in range(COUNT))
    assert max(offsets) < 1 << 32
    assert obj.arena.mem_usage == (pages + 1) * 4096  # and one for the variables
    spread = (max(offsets) - min(offsets)) / (1 << 30)
    print(f"Python walked it in order: {keys[:3]} ... {keys[-3:]}")
    print(f"its nodes lie at {min(offsets):#x} to {max(offsets):#x}: {spread:.1f} GiB apart")


if __name__ == "__main__":
    main()
