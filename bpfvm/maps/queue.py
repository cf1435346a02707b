"""Queues and stacks of values without keys (kernel/bpf/queue_stack_maps.c)."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from errno import E2BIG, EINVAL, ENOENT

from bpfvm.errors import MapError
from bpfvm.maps.base import BPF_EXIST, BPF_NOEXIST, Map, MapFlags, MapTraits
from bpfvm.memory import AddressSpace
from bpfvm.program import MapDef

__all__ = ["QueueMap", "StackMap"]

_FLAGS = (
    MapFlags.NUMA_NODE
    | MapFlags.RDONLY
    | MapFlags.WRONLY
    | MapFlags.RDONLY_PROG
    | MapFlags.WRONLY_PROG
)
#: kernel: KMALLOC_MAX_SIZE
_MAX_VALUE = 4 << 20


class QueueMap(Map):
    """A queue map. As a mapping it is empty; `push_elem` and `pop_elem` serve user space too."""

    traits = MapTraits(
        "bpf_queue_stack",
        helpers=frozenset({"bpf_map_push_elem", "bpf_map_pop_elem", "bpf_map_peek_elem"}),
    )

    def __init__(self, defn: MapDef, space: AddressSpace) -> None:
        super().__init__(defn, space)
        self._lock = threading.Lock()
        self._values: deque[bytes] = deque()

    @classmethod
    def check(cls, defn: MapDef) -> None:
        """Kernel: queue_stack_map_alloc_check."""
        cls.check_attrs(
            defn,
            _FLAGS,
            holds=not defn.key_size and defn.value_size > 0 and defn.max_entries > 0,
        )
        if defn.value_size > _MAX_VALUE:
            raise MapError(f"map {defn.name}: value_size {defn.value_size} is too large", E2BIG)

    def push_elem(self, value: bytes, flags: int) -> int:
        """Kernel: queue_stack_map_push_elem; BPF_EXIST: the oldest makes room."""
        if flags & BPF_NOEXIST or flags > BPF_EXIST:
            return -EINVAL
        with self._lock:
            if len(self._values) >= self.defn.max_entries:
                if not flags & BPF_EXIST:
                    return -E2BIG
                self._values.popleft()
            self._values.append(value)
        return 0

    def take(self, *, remove: bool) -> bytes | None:
        """Return the value that is next, None where there is none."""
        with self._lock:
            if not self._values:
                return None
            return self._values.popleft() if remove else self._values[0]

    def pop_elem(self) -> bytes | int:
        """Kernel: queue_map_pop_elem."""
        value = self.take(remove=True)
        return -ENOENT if value is None else value

    def peek_elem(self) -> bytes | int:
        """Kernel: queue_map_peek_elem."""
        value = self.take(remove=False)
        return -ENOENT if value is None else value

    def lookup_elem(self, key: bytes) -> int:
        """Return 0: there are no keys."""
        return 0

    def update_elem(self, key: bytes, value: bytes, flags: int) -> int:
        """Refuse: there are no keys."""
        return -EINVAL

    def delete_elem(self, key: bytes) -> int:
        """Refuse, as `update_elem` does."""
        return -EINVAL

    def keys_in_order(self) -> Iterator[bytes]:
        """Yield nothing."""
        return iter(())


class StackMap(QueueMap):
    """A stack map: the newest value is next."""

    def take(self, *, remove: bool) -> bytes | None:
        """Return the newest value, None where there is none."""
        with self._lock:
            if not self._values:
                return None
            return self._values.pop() if remove else self._values[-1]
