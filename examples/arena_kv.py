"""Python fills a hash table in an arena; an XDP program answers packets from it.

Run it with `python examples/arena_kv.py`.
"""

from __future__ import annotations

import struct
from pathlib import Path

import bpfvm

OBJECT = Path(__file__).with_suffix(".bpf.o")
ENTRY = struct.Struct("<QII")  # struct entry { next, key, value }
QUERY = struct.Struct("<6s6sHHII")  # struct query
CLIENT, SERVER = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
XDP_DROP, XDP_PASS, XDP_TX = 1, 2, 3
COUNT = 1000


def bucket_of(key: int) -> int:
    """Return the chain that *key* belongs to, as the program finds it."""
    return (key * 2654435769 & 0xFFFFFFFF) >> 24


def main() -> None:
    """Fill the table and ask for keys that are there, and for one that is not."""
    obj = bpfvm.open(OBJECT)
    prog = obj.programs["arena_kv"]
    buckets = obj.globals["buckets"].cast("Q")

    # Entries lie one after the other from the start of the arena: pages come as they are touched.
    for i in range(COUNT):
        key, value = i * 7, i * i
        ptr = obj.arena.user_vm_start + (i + 1) * ENTRY.size
        chain = bucket_of(key)
        obj.arena.view(ptr, ENTRY.size)[:] = ENTRY.pack(buckets[chain], key, value)
        buckets[chain] = ptr
    longest = max(COUNT // 256 + 1, 1)
    print(f"Python filled in {COUNT} entries, about {longest} in each chain")

    def ask(key: int, engine: str) -> tuple[int, bytes]:
        packet = QUERY.pack(SERVER, CLIENT, 0x88B5, 0, key, 0)
        result = prog.run(engine=engine, data=packet)
        return result.r0, result.data

    for engine in ("interp", "jit"):
        for key in (0, 7, 6993):
            action, answer = ask(key, engine)
            assert action == XDP_TX
            dst, src, _proto, _pad, _key, value = QUERY.unpack(answer)
            assert (dst, src) == (CLIENT, SERVER)
            assert value == (key // 7) ** 2
            print(f"{engine}: key {key} -> {value}, sent back to {dst.hex(':')}")
        assert ask(8, engine)[0] == XDP_PASS
        print(f"{engine}: key 8 is not there: the packet goes on to the host")
    assert prog.run(data=bytes(14)).r0 == XDP_DROP
    hits, misses = (obj.globals[name].cast("Q")[0] for name in ("hits", "misses"))
    assert (hits, misses) == (6, 2)
    print(f"the program counted {hits} hits and {misses} misses")


if __name__ == "__main__":
    main()
