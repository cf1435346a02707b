"""The program of `rejected.py` with its repair: it verifies, and counts packets by length.

Run it with `python examples/repaired.py`.
"""

from __future__ import annotations

from pathlib import Path

import bpfvm

OBJECT = Path(__file__).with_suffix(".bpf.o")
XDP_PASS = 2
LENGTHS = (64, 64, 100, 64, 1500, 100)


def main() -> None:
    """Count packets and read the map."""
    obj = bpfvm.open(OBJECT)
    prog = obj.programs["count_lengths"]
    assert prog.verify().ok
    print("the repaired program verifies")

    for i, length in enumerate(LENGTHS):
        engine = ("interp", "jit")[i % 2]
        assert prog.run(engine=engine, data=bytes(length)).r0 == XDP_PASS
    live = obj.maps["counts"]
    counts = {length: live.read_int(length) for length in LENGTHS}
    assert counts == {64: 3, 100: 2, 1500: 1}
    assert len(live) == 3
    for length, count in sorted(counts.items()):
        print(f"{count} x {length} bytes")


if __name__ == "__main__":
    main()
