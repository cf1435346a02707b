"""BPF_MAP_TYPE_RINGBUF: records that programs fill in place and user space takes in order.

The ring's memory is as long again behind its end, so that every record is in one piece where it
is reserved. How much fits, and in which order it is taken, is the kernel's (kernel/bpf/ringbuf.c).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, unique
from errno import EAGAIN, EINVAL

from bpfvm.errors import BpfError, MapError
from bpfvm.maps.base import Map, MapFlags, MapTraits
from bpfvm.memory import AddressSpace, RegionKind
from bpfvm.program import MapDef

__all__ = ["RingbufMap"]

_PAGE_SIZE = 4096
#: kernel: BPF_RINGBUF_HDR_SZ, RINGBUF_MAX_RECORD_SZ
_HEADER = 8
_MAX_RECORD = 0xFFFFFFFF // 4
_ENOTSUPP = 524

RINGBUF_HELPERS = frozenset(
    {
        "bpf_ringbuf_output",
        "bpf_ringbuf_reserve",
        "bpf_ringbuf_query",
        "bpf_ringbuf_reserve_dynptr",
        "bpf_ringbuf_submit_dynptr",
        "bpf_ringbuf_discard_dynptr",
    }
)


@unique
class _State(Enum):
    BUSY = "busy"
    SUBMITTED = "submitted"
    DISCARDED = "discarded"


@dataclass(slots=True)
class _Record:
    addr: int
    size: int
    length: int  # with header and padding
    state: _State = _State.BUSY


class RingbufMap(Map):
    """A ring buffer. As a mapping it is empty: `consume` takes what programs have submitted."""

    traits = MapTraits("bpf_ringbuf_map", helpers=RINGBUF_HELPERS)

    def __init__(self, defn: MapDef, space: AddressSpace) -> None:
        super().__init__(defn, space)
        self._size = defn.max_entries
        try:
            self._region = space.add(2 * self._size, RegionKind.MEM)
        except BpfError as e:
            raise MapError(f"map {defn.name}: {e}", EINVAL) from None
        self._lock = threading.Lock()
        self._records: deque[_Record] = deque()
        self._busy: dict[int, _Record] = {}
        self._produced = self._consumed = 0

    @classmethod
    def check(cls, defn: MapDef) -> None:
        """Kernel: ringbuf_map_alloc."""
        size = defn.max_entries
        cls.check_attrs(
            defn,
            MapFlags.NUMA_NODE,
            holds=not defn.key_size
            and not defn.value_size
            and size > 0
            and size % _PAGE_SIZE == 0
            and not size & (size - 1),
        )

    # -- for programs --------------------------------------------------------------------------

    def reserve(self, size: int) -> int:
        """Return the address of a new record of *size* bytes, or 0 where there is no room (kernel:
        __bpf_ringbuf_reserve)."""
        length = -(-(size + _HEADER) // 8) * 8
        if size > _MAX_RECORD or length > self._size:
            return 0
        with self._lock:
            if self._produced + length - self._consumed > self._size - 1:
                return 0
            start = self._produced & (self._size - 1)
            record = _Record(self._region.base + start + _HEADER, size, length)
            self._produced += length
            self._records.append(record)
            self._busy[record.addr] = record
            return record.addr

    def commit(self, addr: int, *, discard: bool) -> bool:
        """End the record at *addr*; False where none is being filled there."""
        with self._lock:
            record = self._busy.pop(addr, None)
            if record is None:
                return False
            record.state = _State.DISCARDED if discard else _State.SUBMITTED
            return True

    def output(self, data: bytes) -> int:
        """Reserve, fill and submit a record; return 0 or -EAGAIN."""
        addr = self.reserve(len(data))
        if not addr:
            return -EAGAIN
        self._view(addr, len(data))[:] = data
        self.commit(addr, discard=False)
        return 0

    def query(self, what: int) -> int:
        """Kernel: bpf_ringbuf_query."""
        with self._lock:
            answers = (
                self._produced - self._consumed,
                self._size,
                self._consumed,
                self._produced,
            )
        return answers[what] if what < len(answers) else 0

    def _view(self, addr: int, size: int) -> memoryview:
        at = addr - self._region.base
        return self._region.view[at : at + size]

    # -- for user space ------------------------------------------------------------------------

    def consume(self) -> list[bytes]:
        """Take the records that are submitted, oldest first, up to the first one that a program
        still fills."""
        taken = []
        with self._lock:
            while self._records and self._records[0].state is not _State.BUSY:
                record = self._records.popleft()
                self._consumed += record.length
                if record.state is _State.SUBMITTED:
                    taken.append(bytes(self._view(record.addr, record.size)))
        return taken

    # -- for programs that take ----------------------------------------------------------------

    def peek(self) -> tuple[int, int] | None:
        """Return address and size of the oldest record, None where there is none that is
        complete."""
        with self._lock:
            while self._records and self._records[0].state is _State.DISCARDED:
                self._consumed += self._records.popleft().length
            if not self._records or self._records[0].state is _State.BUSY:
                return None
            return self._records[0].addr, self._records[0].size

    def advance(self) -> None:
        """Drop the record that `peek` told of."""
        with self._lock:
            self._consumed += self._records.popleft().length

    # -- as a map ------------------------------------------------------------------------------

    def lookup_elem(self, key: bytes) -> int:
        """Kernel: ringbuf_map_lookup_elem; there are no elements."""
        return 0

    def update_elem(self, key: bytes, value: bytes, flags: int) -> int:
        """Kernel: ringbuf_map_update_elem."""
        return -_ENOTSUPP

    def delete_elem(self, key: bytes) -> int:
        """Kernel: ringbuf_map_delete_elem."""
        return -_ENOTSUPP

    def keys_in_order(self) -> Iterator[bytes]:
        """Kernel: ringbuf_map_get_next_key."""
        return iter(())
