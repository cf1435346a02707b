"""The kfuncs that manage an arena's pages (arena.md section 3)."""

from __future__ import annotations

from errno import EINVAL

from arena.arena import ArenaMap
from bpfvm.bits import s32, u32
from bpfvm.proto import ArgType, KfuncFlags, RetType, kfunc
from bpfvm.runtime import RunContext

__all__ = ["bpf_arena_alloc_pages", "bpf_arena_free_pages", "bpf_arena_reserve_pages"]

#: Memory nodes of the machine that programs see: just node 0.
_NR_NODE_IDS = 1
_NUMA_NO_NODE = -1


def _alloc(run: RunContext, handle: int, addr: int, page_cnt: int, node: int, flags: int) -> int:
    arena = run.map_arg(handle)
    if not isinstance(arena, ArenaMap) or flags:
        return 0
    if s32(node) != _NUMA_NO_NODE and u32(node) >= _NR_NODE_IDS:
        return 0
    return arena.alloc_pages(addr, u32(page_cnt), run.fail_alloc)


def _free(run: RunContext, handle: int, addr: int, page_cnt: int) -> int:
    arena = run.map_arg(handle)
    if isinstance(arena, ArenaMap) and u32(page_cnt) and addr:
        arena.free_pages(addr, u32(page_cnt))
    return 0


# The variants for contexts that can't sleep are functions of their own, so that it shows which one
# a call site runs. Nothing sleeps here, so they may do the work at once, too.


def _alloc_non_sleepable(
    run: RunContext, handle: int, addr: int, page_cnt: int, node: int, flags: int
) -> int:
    return _alloc(run, handle, addr, page_cnt, node, flags)


def _free_non_sleepable(run: RunContext, handle: int, addr: int, page_cnt: int) -> int:
    return _free(run, handle, addr, page_cnt)


@kfunc(
    RetType.POINTER_AS_SCALAR,
    (ArgType.KF_MAP, ArgType.KF_IGNORE, ArgType.SCALAR, ArgType.SCALAR, ArgType.SCALAR),
    flags=KfuncFlags.ARENA_RET | KfuncFlags.ARENA_ARG2 | KfuncFlags.SPINLOCK_SAFE,
    non_sleepable=_alloc_non_sleepable,
)
def bpf_arena_alloc_pages(
    run: RunContext, handle: int, addr: int, page_cnt: int, node: int, flags: int
) -> int:
    """Allocate zeroed pages, at *addr* if nonzero; return their user address, or 0."""
    return _alloc(run, handle, addr, page_cnt, node, flags)


@kfunc(
    RetType.VOID,
    (ArgType.KF_MAP, ArgType.KF_IGNORE, ArgType.SCALAR),
    flags=KfuncFlags.ARENA_ARG2 | KfuncFlags.SPINLOCK_SAFE,
    non_sleepable=_free_non_sleepable,
)
def bpf_arena_free_pages(run: RunContext, handle: int, addr: int, page_cnt: int) -> int:
    """Free pages; what lies outside the arena is ignored."""
    return _free(run, handle, addr, page_cnt)


@kfunc(
    RetType.INT32,
    (ArgType.KF_MAP, ArgType.KF_IGNORE, ArgType.SCALAR),
    flags=KfuncFlags.ARENA_ARG2 | KfuncFlags.SPINLOCK_SAFE,
)
def bpf_arena_reserve_pages(run: RunContext, handle: int, addr: int, page_cnt: int) -> int:
    """Take free pages out of use; return 0 or a negative errno as a 32-bit int."""
    arena = run.map_arg(handle)
    if not isinstance(arena, ArenaMap):
        return u32(-EINVAL)
    return u32(arena.reserve_pages(addr, u32(page_cnt)))
