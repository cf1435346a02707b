"""Helpers that run other code: a subprog of the program, or another program."""

from __future__ import annotations

from errno import E2BIG, EINVAL

from bpfvm.bits import u32
from bpfvm.errors import RunFault
from bpfvm.maps.prog_array import ProgArrayMap
from bpfvm.memory import RegionKind, RegionSpec
from bpfvm.proto import ArgType, Callback, RetType, helper
from bpfvm.runtime import RunContext

__all__ = ["bpf_for_each_map_elem", "bpf_loop", "bpf_tail_call"]

#: kernel: BPF_MAX_LOOPS
MAX_LOOPS = 8 * 1024 * 1024
#: kernel: MAX_TAIL_CALL_CNT
MAX_TAIL_CALLS = 33


@helper(
    181,
    RetType.INTEGER,
    (ArgType.SCALAR, ArgType.FUNC, ArgType.CALLBACK_CTX, ArgType.ANYTHING),
    callback=Callback.LOOP,
)
def bpf_loop(run: RunContext, count: int, function: int, context: int, flags: int) -> int:
    """Call *function* with 0, 1, ... until it returns 1, at most *count* (u32) times; return how
    often it was called."""
    turns = u32(count)
    if flags:
        return -EINVAL
    if turns > MAX_LOOPS:
        return -E2BIG
    for i in range(turns):
        if run.call_back(function, i, context):
            return i + 1
    return turns


@helper(
    164,
    RetType.INTEGER,
    (ArgType.CONST_MAP_PTR, ArgType.FUNC, ArgType.CALLBACK_CTX, ArgType.ANYTHING),
    callback=Callback.MAP_ELEM,
)
def bpf_for_each_map_elem(
    run: RunContext, handle: int, function: int, context: int, flags: int
) -> int:
    """Call *function* with each key and value until it returns 1; return how often it was called.
    An element that goes before its turn is left out."""
    found = run.map_arg(handle)
    if "bpf_for_each_map_elem" not in found.traits.helpers:
        raise RunFault(run.pc, f"no callbacks for map_type {found.defn.map_type}")
    if flags:
        return -EINVAL
    space = run.machine.space
    spec = RegionSpec(found.defn.key_size, RegionKind.MEM, writable=False)
    region = space.borrow(spec)
    called = 0
    try:
        for key in found.keys_in_order():
            value = found.lookup_elem(key)
            if not value:
                continue
            region.view[:] = key
            called += 1
            if run.call_back(function, handle, region.base, value, context):
                break
    finally:
        space.give_back(spec, region)
    return called


@helper(
    12,
    RetType.VOID,
    (ArgType.CTX, ArgType.CONST_MAP_PTR, ArgType.ANYTHING),
    changes_packet=True,  # the other program may
    tail_call=True,
)
def bpf_tail_call(run: RunContext, ctx: int, handle: int, index: int) -> int:
    """Run the program in slot *index* (u32) in place of the frame that calls; go on behind the
    call where the slot is empty, or after `MAX_TAIL_CALLS`."""
    found = run.map_arg(handle)
    if not isinstance(found, ProgArrayMap):
        raise RunFault(run.pc, f"no tail calls through map_type {found.defn.map_type}")
    name = found.programs.get(u32(index))
    if name is None or run.jump is None or run.jumps[0] >= MAX_TAIL_CALLS:
        return 0
    run.jumps[0] += 1
    run.left = run.jump(run, name, ctx)
    return 0
