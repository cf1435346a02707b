"""The arena as a map and as memory: creation, views, lifetime."""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import subprocess
import sys
from dataclasses import replace
from errno import E2BIG, EEXIST, EFAULT, EINVAL, EOPNOTSUPP, ERANGE

import pytest

import arena.arena
from arena.arena import ArenaMap
from bpfvm.bits import hi32, u32
from bpfvm.errors import MapError
from bpfvm.maps.base import MapFlags, MapType, MapTypes
from bpfvm.memory import AddressSpace, ArenaMemory
from bpfvm.program import MapDef

P = 4096
DEF = MapDef("arena", MapType.ARENA, 0, 0, 10, MapFlags.MMAPABLE)
SPACE = AddressSpace()


def make(**changes: object) -> ArenaMap:
    return ArenaMap(replace(DEF, **changes), SPACE)  # type: ignore[arg-type]


def presence(a: ArenaMap, addr: int) -> int:
    return ctypes.c_uint8.from_address(a.presence_addr + (u32(addr) >> 12)).value


def test_it_is_what_engines_need() -> None:
    a: ArenaMemory = make()
    assert a.kern_vm_start % (1 << 32) == 0
    assert a.user_vm_end - a.user_vm_start == 10 * P
    assert hi32(a.user_vm_start) == hi32(a.user_vm_end - 1)
    assert len(a.band) == 1 << 32


@pytest.mark.parametrize(
    ("changes", "errno"),
    [
        ({"key_size": 4}, EINVAL),
        ({"value_size": 4}, EINVAL),
        ({"max_entries": 0}, EINVAL),
        ({"flags": 0}, EINVAL),
        ({"flags": MapFlags.MMAPABLE | MapFlags.RDONLY}, EINVAL),
        ({"flags": MapFlags.MMAPABLE | MapFlags.NUMA_NODE}, EINVAL),
        ({"flags": MapFlags.MMAPABLE | 1 << 31}, EINVAL),
        ({"map_extra": 0x1000_0000_0800}, EINVAL),
        ({"max_entries": (1 << 20) + 1}, E2BIG),
        ({"max_entries": (1 << 20) + 1, "map_extra": 0x1800}, EINVAL),
        ({"map_extra": 0x1000_FFFF_F000}, ERANGE),
        ({"max_entries": 1 << 20, "map_extra": 0x1000_0000_1000}, ERANGE),
        ({"image": bytes(10 * P + 1)}, E2BIG),
    ],
)
def test_creation_is_refused_with_the_kernels_errno(changes: dict[str, object], errno: int) -> None:
    with pytest.raises(MapError) as e:
        make(**changes)
    assert e.value.errno == errno
    assert str(e.value).startswith("map arena: ")


def test_the_map_type_is_created_by_number() -> None:
    a = MapTypes({MapType.ARENA: ArenaMap}).create(DEF, SPACE)
    facts = a.facts()
    assert (facts.user_vm_start, facts.user_vm_end) == (a.value_addr(0), a.value_addr(10 * P))


def test_map_extra_places_the_user_view() -> None:
    at = 0x1234_0000_3000
    a = make(map_extra=at)
    assert (a.user_vm_start, a.user_vm_end) == (at, at + 10 * P)
    with pytest.raises(MapError, match="an arena of this process that is still in use") as e:
        make(map_extra=at + 9 * P)
    assert e.value.errno == EEXIST
    del a
    assert make(map_extra=at).user_vm_start == at


def test_other_memory_is_in_the_way() -> None:
    with mmap.mmap(-1, P) as memory:
        at = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        with pytest.raises(MapError, match="memory of this process lies there"):
            make(map_extra=at, max_entries=1)


def test_an_arena_in_a_dead_cycle_does_not_hold_its_place() -> None:
    at = 0x1234_0000_3000
    gc.disable()
    try:
        cycle: list[object] = [make(map_extra=at)]
        cycle.append(cycle)
        del cycle
        assert make(map_extra=at).user_vm_start == at
    finally:
        gc.enable()


def test_a_place_that_no_process_has() -> None:
    with pytest.raises(MapError, match="cannot map an arena at 0xffff"):
        make(map_extra=0xFFFF_8000_0000_0000)


def test_both_views_show_the_same_bytes() -> None:
    a = make()
    ptr = a.alloc_pages(0, 1)
    assert ptr == a.user_vm_start
    a.band[u32(ptr) + 5] = 42
    assert a.view(ptr, 8)[5] == 42
    assert ctypes.c_uint8.from_address(ptr + 5).value == 42
    assert ctypes.c_uint8.from_address(a.kern_vm_start + u32(ptr) + 5).value == 42
    a.view(ptr + 6, 2)[:] = b"xy"
    assert bytes(a.band[u32(ptr) + 5 : u32(ptr) + 8]) == b"*xy"


def test_presence_follows_allocation() -> None:
    a = make()
    ptr = a.alloc_pages(0, 2)
    off = u32(ptr)
    assert presence(a, ptr) == presence(a, ptr + P) == 1
    assert presence(a, ptr + 2 * P) == 0
    assert a.is_present(off, 2 * P)
    assert a.is_present(off + P - 4, 8)
    assert not a.is_present(off + 2 * P - 4, 8)
    assert not a.is_present(off - 4, 8)
    assert not a.is_present(off + 10 * P, 1)
    assert not a.is_present(-8, 8)
    assert not a.is_present((1 << 32) - 4, 8)
    assert not a.is_present((1 << 32) + 100, 8)
    a.free_pages(ptr, 1)
    assert presence(a, ptr) == 0
    assert not a.is_present(off, 1)
    assert a.is_present(off + P, 1)


def test_guards_of_the_presence_map_are_zero() -> None:
    a = make(max_entries=1 << 20)
    a.alloc_pages(a.user_vm_start, 1)
    a.alloc_pages(a.user_vm_end - P, 1)
    page = ctypes.c_uint8.from_address
    assert presence(a, a.user_vm_start) == presence(a, a.user_vm_end - 1) == 1
    assert not any(page(a.presence_addr - i).value for i in range(1, 17))
    assert not any(page(a.presence_addr + (1 << 20) + i).value for i in range(16))


def test_a_page_that_user_space_touches_is_there() -> None:
    a = make()
    ptr = a.user_vm_start + 3 * P
    assert not a.is_present(u32(ptr), 1)
    a.view(ptr, 8)[0] = 7
    assert presence(a, ptr) == 0
    assert a.is_present(u32(ptr), 8)
    assert presence(a, ptr) == 1
    assert a.band[u32(ptr)] == 7
    assert a.mem_usage == P


def test_a_page_that_user_space_reads_is_there_too() -> None:
    a = make()
    assert a.view(a.user_vm_start, 1)[0] == 0
    assert a.is_present(u32(a.user_vm_start), P)


def test_page_tells_and_never_makes() -> None:
    a = make()
    assert a.page(0) is None
    ptr = a.alloc_pages(0, 1)
    a.view(ptr, 3)[:] = b"abc"
    assert a.page(0) == b"abc" + bytes(P - 3)
    assert a.page(1) is None
    assert a.page(10) is None
    assert a.mem_usage == P


def test_views_by_32_bit_pointer() -> None:
    a = make(map_extra=0x5678_0001_0000)
    ptr = a.alloc_pages(0, 1)
    a.view(ptr, 1)[0] = 9
    assert a.view(u32(ptr), 1)[0] == 9


@pytest.mark.parametrize("delta", [(-1, 1), (10 * P, 1), (10 * P - 4, 8), (0, 10 * P + 1), (0, -1)])
def test_views_are_range_checked(delta: tuple[int, int]) -> None:
    a = make()
    with pytest.raises(MapError, match="not inside the arena") as e:
        a.view(a.user_vm_start + delta[0], delta[1])
    assert e.value.errno == EFAULT


def test_null_and_whole_and_empty_views() -> None:
    a = make(max_entries=1 << 20)
    with pytest.raises(MapError, match="at 0x0 are not inside"):
        a.view(0, 1)
    assert len(a.view(a.user_vm_start, 1 << 32)) == 1 << 32
    assert len(a.view(a.user_vm_end, 0)) == 0


def test_a_view_outlives_its_arena() -> None:
    a = make()
    ptr = a.alloc_pages(0, 1)
    view, band = a.view(ptr, 10), a.band[u32(ptr) : u32(ptr) + 10]
    slot = (ctypes.c_uint64).from_buffer(view)
    del a
    gc.collect()
    view[0] = 1
    assert band[0] == 1
    del view, band
    gc.collect()
    assert slot.value == 1


def test_memory_goes_with_the_last_reference() -> None:
    def mappings() -> int:
        with open("/proc/self/maps") as f:
            return sum("bpf_arena" in line for line in f)

    before, fds = mappings(), len(os.listdir("/proc/self/fd"))
    a = make()
    assert mappings() == before + 2
    view = a.view(a.user_vm_start, 1)
    del a
    assert mappings() == before + 1
    assert len(os.listdir("/proc/self/fd")) == fds
    del view
    assert mappings() == before


def test_globals_lie_at_the_end_and_are_allocated() -> None:
    a = make(image=b"x" * P + b"yz")
    assert bytes(a.view(a.user_vm_end - 2 * P, P)) == b"x" * P
    assert bytes(a.view(a.user_vm_end - P, 3)) == b"yz\0"
    assert a.is_present(u32(a.user_vm_end - 1), 1)
    assert a.alloc_pages(a.user_vm_end - P, 1) == 0
    assert a.free_ranges() == [(0, 7)]
    assert a.mem_usage == 2 * P


def test_segv_on_fault_views_refuse_absent_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arena.arena, "_warned", False)
    with pytest.warns(RuntimeWarning, match="SEGV_ON_FAULT"):
        a = make(flags=MapFlags.MMAPABLE | MapFlags.SEGV_ON_FAULT)
    make(flags=MapFlags.MMAPABLE | MapFlags.SEGV_ON_FAULT)  # told once
    with pytest.raises(MapError, match="not all allocated") as e:
        a.view(a.user_vm_start, 1)
    assert e.value.errno == EFAULT
    ptr = a.alloc_pages(0, 1)
    assert a.view(ptr, P)[0] == 0
    with pytest.raises(MapError):
        a.view(ptr, P + 1)
    assert a.mem_usage == P


def test_an_arena_has_no_elements() -> None:
    a = make()
    assert bool(a)
    with pytest.raises(MapError, match="no elements") as e:
        a[0]
    assert e.value.errno == EINVAL
    for op in (lambda: a.__setitem__(0, 0), lambda: a.__delitem__(0), lambda: list(a)):
        with pytest.raises(MapError, match="no elements") as e:
            op()
        assert e.value.errno == EOPNOTSUPP
    assert a.lookup_elem(b"") == -EINVAL
    assert a.update_elem(b"", b"", 0) == a.delete_elem(b"") == -EOPNOTSUPP


def test_a_4_gib_arena_is_cheap() -> None:
    a = make(max_entries=1 << 20)
    assert a.alloc_pages(0, 1 << 20) == a.user_vm_start
    assert a.alloc_pages(0, 1) == 0
    assert a.is_present(u32(a.user_vm_start), 1 << 32)
    last = a.user_vm_end - 8
    a.view(last, 8)[0] = 3
    assert a.band[u32(last)] == 3
    a.free_pages(a.user_vm_start, 1 << 20)
    assert a.mem_usage == 0
    assert a.free_ranges() == [(0, (1 << 20) - 1)]


def test_a_forked_child_does_not_inherit_it() -> None:
    code = (
        "import ctypes, os, sys\n"
        "from arena.arena import ArenaMap\n"
        "from bpfvm.memory import AddressSpace\n"
        "from bpfvm.program import MapDef\n"
        "a = ArenaMap(MapDef('a', 33, 0, 0, 4, 1024), AddressSpace())\n"
        "ptr = a.alloc_pages(0, 1)\n"
        "pid = os.fork()\n"
        "if not pid:\n"
        "    ctypes.c_uint8.from_address(ptr).value\n"
        "    os._exit(0)\n"
        "died = os.WTERMSIG(os.waitpid(pid, 0)[1])\n"
        "pid = os.fork()\n"
        "if not pid:\n"
        "    del a\n"
        "    os._exit(0)\n"
        "print(died, os.waitpid(pid, 0)[1], a.view(ptr, 1)[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["11", "0", "0"]


def test_a_process_without_room_is_told_so() -> None:
    code = (
        "import resource\n"
        "from arena.arena import ArenaMap\n"
        "from bpfvm.errors import MapError\n"
        "from bpfvm.memory import AddressSpace\n"
        "from bpfvm.program import MapDef\n"
        "space = AddressSpace()\n"
        "for gib in (0, 6, 14):\n"
        "    with open('/proc/self/statm') as f: used = int(f.read().split()[0]) * 4096\n"
        "    limit = used + (gib << 30) + (1 << 20) - (1 << 16)\n"
        "    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))\n"
        "    try: ArenaMap(MapDef('a', 33, 0, 0, 1 << 20, 1024), space)\n"
        "    except MapError as e: print(e.errno)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {"12"}


def test_leaving_with_live_views_is_no_crash() -> None:
    code = (
        "import atexit\n"
        "from arena.arena import ArenaMap\n"
        "from bpfvm.memory import AddressSpace\n"
        "from bpfvm.program import MapDef\n"
        "view = ArenaMap(MapDef('a', 33, 0, 0, 4, 1024), AddressSpace()).view\n"
        "class Late:\n"
        "    def __del__(self): self.view[0] = 1\n"
        "late = Late(); late.view = view(view.__self__.user_vm_start, 1)\n"
        "atexit.register(lambda: late.view.__setitem__(0, 1))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
