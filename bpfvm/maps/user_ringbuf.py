"""BPF_MAP_TYPE_USER_RINGBUF: samples that user space produces and programs drain in order."""

from __future__ import annotations

from errno import E2BIG, ENOSPC

from bpfvm.errors import MapError
from bpfvm.maps.base import MapTraits
from bpfvm.maps.ringbuf import RingbufMap

__all__ = ["UserRingbufMap"]


class UserRingbufMap(RingbufMap):
    """A ring buffer the other way round: `produce` fills it. As a mapping it is empty."""

    traits = MapTraits("bpf_ringbuf_map", helpers=frozenset({"bpf_user_ringbuf_drain"}))

    def produce(self, data: bytes) -> None:
        """Add a sample.

        Raises:
            MapError: E2BIG, it never fits; ENOSPC, there is no room now.
        """
        if self.output(data):
            errno = E2BIG if len(data) + 8 > self.defn.max_entries else ENOSPC
            raise MapError(f"map {self.defn.name}: no room for {len(data)} bytes", errno)
