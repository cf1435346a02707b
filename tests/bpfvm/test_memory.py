from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from bpfvm.errors import BpfError, InternalError
from bpfvm.memory import AddressSpace, Region, RegionKind, RegionSpec, Window, view_of


def test_a_view_outlives_its_window() -> None:
    window = Window(1 << 20)
    addr, view = window.alloc(100)
    view[:3] = b"abc"
    del window
    gc.collect()
    assert bytes(view[:4]) == b"abc\0"
    assert bytes(view_of(addr, 3, owner=view)) == b"abc"


def test_a_full_window_says_so() -> None:
    window = Window(4096)
    window.alloc(4000)
    with pytest.raises(BpfError, match="out of program memory"):
        window.alloc(200)


def test_a_window_that_cannot_be_had() -> None:
    with pytest.raises(BpfError, match="cannot reserve"):
        Window(1 << 60)


def test_low_memory_has_32_bit_addresses() -> None:
    space = AddressSpace()
    region = space.add(4096, RegionKind.PACKET, low=True)
    assert region.base + region.size < 1 << 32


def test_accesses_are_checked_to_the_byte() -> None:
    space = AddressSpace()
    a = space.add(10, RegionKind.MEM)
    b = space.add(10, RegionKind.CTX, writable=False)
    assert space.read(a.base, 10) == bytes(10)
    assert space.read(a.base + 1, 10) is None
    assert space.read(a.base - 1, 1) is None
    assert space.write(a.base + 8, b"xy")
    assert not space.write(a.base + 9, b"xy")
    assert space.read(b.base, 10) == bytes(10)
    assert not space.write(b.base, b"x")
    assert space.find(b.base, 1, write=False) is b
    assert space.read(0, 0) == b""
    assert space.write(0, b"")


def test_no_access_from_one_element_into_the_next() -> None:
    region = Region(1000, 48, RegionKind.MAP_VALUE, True, memoryview(b""), 16, 12)
    assert region.allows(1016, 12, write=True)
    assert region.allows(1020, 8, write=True)
    assert not region.allows(1024, 8, write=True)
    assert not region.allows(1012, 4, write=False)
    assert not region.allows(1044, 8, write=False)


def test_regions_come_and_go() -> None:
    space = AddressSpace()
    before = space.generation
    region = space.add(64, RegionKind.STACK)
    assert space.generation > before
    assert region in space.regions
    with pytest.raises(InternalError, match="overlaps"):
        space.insert(Region(region.base + 8, 4, RegionKind.MEM, True, region.view))
    space.remove(region)
    assert space.read(region.base, 1) is None
    with pytest.raises(InternalError):
        space.remove(region)


def test_nothing_is_unmapped_at_exit_while_views_live() -> None:
    code = (
        "import atexit, weakref\n"
        "from bpfvm.memory import Window\n"
        "class Late:\n"
        "    def __del__(self): self.view[0] = 1\n"
        "late = Late(); late.view = Window(4096).alloc(10)[1]\n"
        "keep = Window(4096).view\n"
        "atexit.register(lambda: keep.__setitem__(0, 1))\n"
        "weakref.finalize(Late, lambda: keep.__setitem__(0, 1))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_borrowed_regions_are_kept_for_the_next_of_their_kind() -> None:
    space = AddressSpace()
    spec = RegionSpec(100, RegionKind.CTX)
    first = space.borrow(spec)
    second = space.borrow(spec)
    assert first.base != second.base
    generation = space.generation
    space.give_back(spec, first)
    assert space.borrow(spec) is first
    assert space.generation == generation
    assert (first.size, first.kind) == (100, RegionKind.CTX)


def test_borrowed_memory_is_used_again_however_sizes_vary() -> None:
    space = AddressSpace()
    for low in (False, True):
        for size in range(1, 2000):
            spec = RegionSpec(size, RegionKind.PACKET, low=low)
            region = space.borrow(spec)
            assert len(region.view) == size
            assert region.base + size < 1 << 32 or not low
            space.give_back(spec, region)
    assert len(space.regions) <= space.IDLE
    assert space.low_window is not None
    assert space.low_window.alloc(8 << 20)
    empty = RegionSpec(0, RegionKind.MEM)
    region = space.borrow(empty)
    assert space.find(region.base, 1, write=False) is None
