"""A program builds a linked list in an arena; Python walks it by the program's own pointers.

Run it with `python examples/arena_list.py`.
"""

from __future__ import annotations

import struct
from pathlib import Path

import bpfvm

OBJECT = Path(__file__).with_suffix(".bpf.o")
NODE = struct.Struct("<QQ")  # struct node { next, value }
COUNT = 1000


def main() -> None:
    """Add nodes, walk them, delete them."""
    obj = bpfvm.open(OBJECT)
    head, cnt = (obj.globals[name].cast(code) for name, code in (("head", "Q"), ("cnt", "I")))

    cnt[0] = COUNT
    result = obj.programs["arena_list_add"].run(engine="jit")
    assert result.r0 == 0
    print(f"the program added {COUNT} nodes; the newest is at {head[0]:#x}")

    values, ptr = [], head[0]
    while ptr:
        # The pointer is as the program stored it, and the bytes are the program's own.
        ptr, value = NODE.unpack(obj.arena.view(ptr, NODE.size))
        values.append(value)
    assert values == list(reversed(range(COUNT)))
    print(f"Python walked the list: {values[:3]} ... {values[-3:]}, sum {sum(values)}")

    used = obj.arena.mem_usage
    result = obj.programs["arena_list_del"].run(engine="interp")
    assert result.r0 == 0
    assert head[0] == 0
    assert obj.globals["list_sum"].cast("Q")[0] == sum(values)
    freed = (used - obj.arena.mem_usage) // 4096
    assert freed == -(-COUNT // 255)
    print(f"the other program took it down again and gave {freed} pages back")


if __name__ == "__main__":
    main()
