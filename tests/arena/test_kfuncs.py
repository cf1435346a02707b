"""The page kfuncs, called as engines call them; after the kernel's arena selftests."""

from __future__ import annotations

import inspect
import threading
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arena import kfuncs
from arena.arena import ArenaMap
from bpfvm.bits import hi32, u32, u64
from bpfvm.errors import RunFault
from bpfvm.maps.array import ArrayMap
from bpfvm.maps.base import MapFlags, MapType
from bpfvm.memory import AddressSpace
from bpfvm.program import MapDef, Program
from bpfvm.proto import Registry, RetType, Variant
from bpfvm.runtime import Machine, RunContext

P = 4096
BUSY, INVALID = u32(-16), u32(-22)
REGISTRY = Registry([kfuncs])


@dataclass
class Caller:
    """Calls the kfuncs on one arena, in one of the two variants."""

    arena: ArenaMap
    run: RunContext
    variant: Variant

    def call(self, name: str, *args: int) -> int:
        proto = REGISTRY.kfuncs[name]
        return u64(proto.impl(self.variant)(self.run, self.handle, *map(u64, args)))

    @property
    def handle(self) -> int:
        return self.run.machine.map_handle(0)

    def alloc(self, addr: int, page_cnt: int, node: int = -1, flags: int = 0) -> int:
        return self.call("bpf_arena_alloc_pages", addr, page_cnt, node, flags)

    def free(self, addr: int, page_cnt: int) -> None:
        self.call("bpf_arena_free_pages", addr, page_cnt)

    def reserve(self, addr: int, page_cnt: int) -> int:
        return self.call("bpf_arena_reserve_pages", addr, page_cnt)

    def load(self, addr: int) -> int:
        """Read a byte as a program does."""
        return self.arena.band[u32(addr)] if self.arena.is_present(u32(addr), 1) else 0

    def store(self, addr: int, value: int) -> None:
        if self.arena.is_present(u32(addr), 1):
            self.arena.band[u32(addr)] = value


def caller(pages: int, variant: Variant = Variant.SLEEPABLE, map_extra: int = 0) -> Caller:
    space = AddressSpace()
    arena = ArenaMap(
        MapDef("arena", MapType.ARENA, 0, 0, pages, MapFlags.MMAPABLE, map_extra), space
    )
    other = ArrayMap(MapDef("array", MapType.ARRAY, 4, 4, 1), space)
    machine = Machine(space, [arena, other], REGISTRY, arena)
    return Caller(arena, RunContext(machine, Program("p", (), "syscall"), 0), variant)


@pytest.fixture(params=list(Variant), ids=lambda v: v.value)
def edge(request: pytest.FixtureRequest) -> Caller:
    """Two pages that end at a 4 GiB line, as in verifier_arena.c."""
    return caller(2, request.param, (1 << 44) | ((1 << 32) - 2 * P))


@pytest.fixture(params=list(Variant), ids=lambda v: v.value)
def large(request: pytest.FixtureRequest) -> Caller:
    """4 GiB, as in verifier_arena_large.c."""
    return caller(1 << 20, request.param)


def test_prototypes() -> None:
    alloc, free, reserve = (
        REGISTRY.kfuncs[f"bpf_arena_{name}_pages"] for name in ("alloc", "free", "reserve")
    )
    assert alloc.is_polymorphic
    assert free.is_polymorphic
    assert not reserve.is_polymorphic
    assert alloc.impl(Variant.SLEEPABLE) is not alloc.impl(Variant.NON_SLEEPABLE)
    assert (alloc.ret, free.ret, reserve.ret) == (
        RetType.POINTER_AS_SCALAR,
        RetType.VOID,
        RetType.INT32,
    )
    assert not any(p.might_sleep for p in (alloc, free, reserve))
    assert len(inspect.signature(alloc.impl(Variant.SLEEPABLE)).parameters) == 6


# -- 7.1 verifier_arena.c --------------------------------------------------------------------


def test_basic_alloc1(edge: Caller) -> None:
    page1 = edge.alloc(0, 1)
    assert page1 == edge.arena.user_vm_start
    edge.store(page1, 1)
    page2 = edge.alloc(0, 1)
    assert page2 == page1 + P
    edge.store(page2, 2)
    assert edge.alloc(0, 1) == 0
    assert (edge.load(page1), edge.load(page2)) == (1, 2)
    edge.free(page2, 1)
    assert (edge.load(page1), edge.load(page2)) == (1, 0)
    assert edge.alloc(0, 1) == page2
    assert edge.load(page2) == 0


def test_basic_alloc2(edge: Caller) -> None:
    page = edge.alloc(0, 2)
    assert u32(page) == (1 << 32) - 2 * P
    for at in (page - P, page + 2 * P):
        edge.store(u32(at), 9)
        assert edge.load(u32(at)) == 0
    edge.store(page, 1)
    edge.store(page + P, 2)
    edge.free(page, 2)
    assert edge.load(page) == edge.load(page + P) == 0


def test_basic_reserve(edge: Caller) -> None:
    page = edge.alloc(0, 1)
    assert edge.reserve(page + P, 1) == 0
    assert edge.alloc(page + P, 1) == 0
    assert edge.alloc(0, 1) == 0
    assert edge.load(page + P) == 0
    edge.free(page + P, 1)
    assert edge.alloc(page + P, 1) == page + P


def test_reserve_twice(edge: Caller) -> None:
    base = edge.arena.user_vm_start
    assert edge.reserve(base, 1) == 0
    assert edge.reserve(base, 1) == BUSY
    assert edge.alloc(base, 1) == 0


def test_reserve_invalid_region(edge: Caller) -> None:
    base = edge.arena.user_vm_start
    for addr, page_cnt in ((0, 3), (base, 3), (base + P, 2), (base, (1 << 32) - 1)):
        assert edge.reserve(addr, page_cnt) == INVALID
    assert edge.reserve(base, 0) == 0
    assert edge.reserve(base + 8, 1) == 0  # unaligned: nothing is reserved, and it says 0
    assert edge.arena.free_ranges() == [(0, 1)]
    assert edge.reserve(base + P, 1) == 0


def test_free_below_the_arena_frees_nothing(edge: Caller) -> None:
    base = edge.arena.user_vm_start
    edge.alloc(0, 2)
    edge.free(base - P, 1)
    edge.free(base - P, 2)  # also where the count would reach into it
    assert edge.arena.free_ranges() == []
    assert edge.alloc(0, 1) == 0


# -- 7.2 verifier_arena_large.c ----------------------------------------------------------------


def test_big_alloc1(large: Caller) -> None:
    base, end = large.arena.user_vm_start, large.arena.user_vm_end
    page1 = large.alloc(0, 1)
    assert page1 == base
    large.store(page1, 1)
    page2 = large.alloc(end - 3 * P, 2)
    assert page2 == end - 3 * P
    large.store(page2, 2)
    assert large.alloc(page2, 1) == 0
    assert large.alloc(u64(hi32(base) + (1 << 32)) | u32(base), 1) == 0  # low bits: page 0, taken
    assert large.alloc(end - P, 2) == 0
    large.free(page2, 2)
    assert large.load(page2) == 0
    assert large.alloc(page2, 1) == page2
    assert large.load(page2 + P) == 0
    assert large.load(page1) == 1


def test_upper_address_bits_are_ignored(large: Caller) -> None:
    base = large.arena.user_vm_start
    want = base + 5 * P
    assert large.alloc(u32(want) or 1 << 32, 1) == want
    assert large.alloc((0xABC << 32) | u32(want + P), 1) == want + P
    large.free((0xABC << 32) | u32(want + P), 1)
    large.free(u32(want) or 1 << 32, 1)
    assert large.arena.free_ranges() == [(0, (1 << 20) - 1)]


def test_access_reserved(large: Caller) -> None:
    base = large.arena.user_vm_start
    assert large.reserve(base, 3) == 0
    large.store(base + P, 9)
    assert large.load(base + P) == 0
    assert large.alloc(base + 2 * P, 2) == 0
    assert large.alloc(0, 1) == base + 3 * P


def test_free_reserved(large: Caller) -> None:
    first = large.alloc(0, 1)
    assert large.reserve(first + P, 1) == 0
    large.free(first, 2)
    assert large.alloc(first, 1) == first
    assert large.alloc(first + P, 1) == first + P


def test_big_alloc2(large: Caller) -> None:
    pages = [large.alloc(0, 1) for _ in range(32)]
    assert pages == [pages[0] + i * P for i in range(32)]
    for page in pages[::2]:
        large.free(page, 1)
    again = [large.alloc(0, 1) for _ in range(16)]
    assert again == pages[::2][::-1]  # the newest hole first
    for page in pages[::4]:
        large.free(page, 2)
    assert {large.alloc(0, 2) for _ in range(8)} == set(pages[::4])
    assert large.alloc(0, 2) == pages[-1] + P


def test_big_alloc3(large: Caller) -> None:
    page = large.alloc(0, 2051)
    assert page == large.arena.user_vm_start
    for i in range(2051):
        large.store(page + i * P, i % 251 + 1)
    assert all(large.load(page + i * P) == i % 251 + 1 for i in range(2051))


# -- section 3, step by step ---------------------------------------------------------------------


def test_alloc_refuses() -> None:
    c = caller(4)
    base = c.arena.user_vm_start
    assert c.alloc(0, 0) == 0
    assert c.alloc(0, 5) == 0
    assert c.alloc(0, 1, flags=1) == 0
    assert c.alloc(0, 1, node=1) == 0
    assert c.alloc(0, 1, node=-2) == 0
    assert c.alloc(base + 8, 1) == 0
    assert c.alloc(base + 4 * P, 1) == 0
    assert c.alloc(base - P, 1) == 0
    assert c.alloc(base + 3 * P, 2) == 0
    assert c.arena.free_ranges() == [(0, 3)]
    assert c.alloc(0, 1, node=0) == base


def test_only_32_bits_of_count_and_node_count() -> None:
    c = caller(4)
    assert c.alloc(0, (7 << 32) | 2, node=(1 << 32) - 1) == c.arena.user_vm_start
    c.free(c.arena.user_vm_start, 9 << 32)
    assert c.arena.free_ranges() == [(2, 3)]


def test_a_map_that_is_no_arena() -> None:
    c = caller(4)
    handle = c.run.machine.map_handle(1)
    assert kfuncs.bpf_arena_alloc_pages(c.run, handle, 0, 1, u64(-1), 0) == 0
    assert kfuncs.bpf_arena_free_pages(c.run, handle, c.arena.user_vm_start, 1) == 0
    assert kfuncs.bpf_arena_reserve_pages(c.run, handle, 0, 1) == INVALID
    with pytest.raises(RunFault, match="is not a map"):
        kfuncs.bpf_arena_alloc_pages(c.run, 1234, 0, 1, u64(-1), 0)


def test_free_rounds_down_clips_and_ignores() -> None:
    c = caller(8)
    page = c.alloc(0, 8)
    c.free(0, 8)
    c.free(page, 0)
    c.free(page + 8 * P, 1)
    assert c.arena.free_ranges() == []
    c.free(page + P + 17, 1)
    assert c.arena.free_ranges() == [(1, 1)]
    c.free(page + 6 * P, 1000)
    c.free(page + 6 * P, (1 << 32) - 1)
    assert c.arena.free_ranges() == [(1, 1), (6, 7)]
    c.free(page + P, 1)  # a double free is harmless
    assert c.arena.free_ranges() == [(1, 1), (6, 7)]


def test_pages_are_zero_when_they_come_back() -> None:
    c = caller(4)
    page = c.alloc(0, 2)
    c.arena.view(page, 2 * P)[:] = b"\xff" * (2 * P)
    c.free(page, 2)
    assert c.alloc(0, 2) == page
    assert bytes(c.arena.view(page, 2 * P)) == bytes(2 * P)


def test_what_user_space_touched_is_not_allocated() -> None:
    c = caller(6)
    base = c.arena.user_vm_start
    c.arena.view(base, 1)[0] = 1
    c.arena.view(base + 3 * P, 1)[0] = 3
    assert c.reserve(base, 1) == BUSY
    assert c.alloc(base + 3 * P, 1) == 0
    assert c.alloc(0, 3) == 0
    assert {c.alloc(0, 2), c.alloc(0, 2)} == {base + P, base + 4 * P}
    assert c.alloc(0, 1) == 0
    assert c.load(base + 3 * P) == 3
    c.free(base + 3 * P, 1)
    assert c.alloc(0, 1) == base + 3 * P
    assert c.load(base + 3 * P) == 0


def test_what_user_space_touched_is_not_allocated_beside_a_huge_allocation() -> None:
    c = caller(20_000)
    base = c.arena.user_vm_start
    big = c.alloc(0, 10_000)
    assert big == base
    c.store(big + 5000 * P, 5)
    c.arena.view(base + 10_000 * P, 1)[0] = 1
    assert c.alloc(0, 1) == base + 10_001 * P
    c.arena.view(base + 10_003 * P, 1)[0] = 1
    assert c.alloc(base + 10_002 * P, 2) == 0
    c.free(big, 10_000)
    assert c.load(big + 5000 * P) == 0
    assert c.alloc(0, 20_000) == 0
    assert c.alloc(0, 9_990) == base + 10_004 * P  # fits best in the tail
    assert c.alloc(0, 9_990) == base
    assert c.arena.mem_usage == (2 * 9_990 + 3) * P


def test_user_space_may_touch_reserved_pages() -> None:
    c = caller(4)
    base = c.arena.user_vm_start
    assert c.reserve(base, 2) == 0
    c.arena.view(base, 1)[0] = 8
    assert c.load(base) == 8
    assert c.load(base + P) == 0
    assert c.alloc(0, 3) == 0
    assert c.alloc(0, 2) == base + 2 * P


def test_a_failing_allocation_gives_everything_back() -> None:
    c = caller(16)
    answers = iter([False, False, True])
    c.run.fail_alloc = lambda: next(answers)
    assert c.alloc(0, 8) == 0
    c.run.fail_alloc = None
    assert c.arena.free_ranges() == [(0, 15)]
    assert c.arena.mem_usage == 0
    assert c.alloc(0, 16) == c.arena.user_vm_start


def test_a_failure_in_a_later_batch_frees_the_earlier_ones() -> None:
    c = caller(4000)
    asked = []

    def fail() -> bool:
        asked.append(1)
        return len(asked) == 2000

    c.run.fail_alloc = fail
    assert c.alloc(0, 3000) == 0
    assert len(asked) == 2000
    assert c.arena.free_ranges() == [(0, 3999)]
    assert c.arena.mem_usage == 0
    assert c.load(c.arena.user_vm_start) == 0
    assert c.alloc(0, 3000) == c.arena.user_vm_start


def test_mem_usage() -> None:
    c = caller(100)
    page = c.alloc(0, 17)
    assert c.arena.mem_usage == 17 * P
    c.free(page, 1)
    c.free(page + 4 * P, 10)
    assert c.arena.mem_usage == 6 * P
    c.free(page, 100)
    assert c.arena.mem_usage == 0
    for i in range(8):
        c.arena.view(page + i * P, 1)[0] = 1
    assert c.arena.mem_usage == 8 * P
    c.free(page, 8)
    assert c.arena.mem_usage == 0


PAGES = 12
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["alloc", "alloc_at", "free", "reserve", "touch", "store"]),
        st.integers(0, PAGES - 1),
        st.integers(1, 4),
    ),
    max_size=40,
)


@pytest.mark.property
@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_pages_are_as_a_plain_model_has_them(steps: list[tuple[str, int, int]]) -> None:
    c = caller(PAGES)
    base = c.arena.user_vm_start
    free = set(range(PAGES))
    content: dict[int, int] = {}  # page -> its first byte, where present
    for mark, (op, page, page_cnt) in enumerate(steps, 1):
        addr = base + page * P
        pages = set(range(page, min(page + page_cnt, PAGES)))
        fits = page + page_cnt <= PAGES
        if op in ("alloc", "alloc_at"):
            got = c.alloc(addr if op == "alloc_at" else 0, page_cnt)
            if op == "alloc_at":
                assert got == (addr if fits and pages <= free else 0)
            elif not got:
                assert not any(set(range(p, p + page_cnt)) <= free for p in range(PAGES))
            if got:
                pages = set(range((got - base) // P, (got - base) // P + page_cnt))
                assert pages <= free
                free -= pages
                content |= dict.fromkeys(pages, 0)
        elif op == "reserve":
            want = INVALID if not fits else 0 if pages <= free else BUSY
            assert c.reserve(addr, page_cnt) == want
            free -= set() if want else pages
        elif op == "free":
            c.free(addr, page_cnt)
            free |= pages
            for p in pages:
                content.pop(p, None)
        elif op == "touch":
            c.arena.view(addr, 1)[0] = mark
            free.discard(page)
            content[page] = mark
        else:
            c.store(addr, mark)
            if page in content:
                content[page] = mark
        if mark % 3 == 0:
            for p in range(PAGES):
                assert c.arena.is_present(u32(base + p * P), P) == (p in content)
                assert c.load(base + p * P) == content.get(p, 0)
    assert c.arena.mem_usage == len(content) * P
    ranges = c.arena.free_ranges()
    assert {p for first, last in ranges for p in range(first, last + 1)} == free


def test_threads_never_share_a_page() -> None:
    c = caller(64)
    clashes = []

    def work(mark: int) -> None:
        for _ in range(300):
            page = c.alloc(0, 1 + mark % 3)
            if not page:
                continue
            clashes.extend([page] * (c.load(page) != 0))
            c.store(page, mark)
            clashes.extend([page] * (c.load(page) != mark))
            c.free(page, 1 + mark % 3)

    threads = [threading.Thread(target=work, args=(mark,)) for mark in (1, 2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clashes == []
    assert c.arena.free_ranges() == [(0, 63)]
    assert c.arena.mem_usage == 0
