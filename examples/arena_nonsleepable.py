"""A socket filter, which may not sleep, allocates and frees arena pages.

Run it with `python examples/arena_nonsleepable.py`.
"""

from __future__ import annotations

import struct
from pathlib import Path

import bpfvm

OBJECT = Path(__file__).with_suffix(".bpf.o")
RECORD = struct.Struct("<QI")  # struct record { seq, len }
KEEP, ETH_HLEN = 4, 14
LENGTHS = (60, 1400, 90, 200, 64, 512, 77, 1000, 128)


def main() -> None:
    """Send packets, look at what the filter remembers, and how much memory that takes."""
    obj = bpfvm.open(OBJECT)
    prog = obj.programs["remember"]
    for i, length in enumerate(LENGTHS):
        engine = ("interp", "jit")[i % 2]
        # A socket filter sees the packet behind its Ethernet header.
        assert prog.run(engine=engine, data=bytes(length + ETH_HLEN)).r0 == length
    print(f"the filter saw packets of {', '.join(map(str, LENGTHS))} bytes")

    newest = obj.globals["newest"].cast("Q")
    records = sorted(RECORD.unpack(obj.arena.view(ptr, RECORD.size)) for ptr in newest)
    assert records == list(enumerate(LENGTHS))[-KEEP:]
    print(f"and remembers the last {KEEP}: {', '.join(f'#{n}: {size}' for n, size in records)}")

    pages = obj.arena.mem_usage // 4096
    assert pages == KEEP + 1
    print(f"in {pages} pages, one of them for its variables: it frees what it forgets")

    verdict = prog.verify(kernel="6.18")
    assert not verdict.ok
    print(f"Linux 6.18 would have said: {verdict.last}")


if __name__ == "__main__":
    main()
