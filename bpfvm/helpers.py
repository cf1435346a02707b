"""Helpers: the kernel's functions that programs call by number.

Each is one function under its prototype; the verifier reads the prototype, engines call the
function. Errors are negative errno values. A memory argument that the program may not use ends a
sandbox run (`RunContext.read`); the verifier proves that this can't happen.
"""

from __future__ import annotations

from errno import EINVAL

from bpfvm.errors import RunFault
from bpfvm.maps.base import Map, MapFlags
from bpfvm.notation import offered
from bpfvm.printk import clip, format_text
from bpfvm.proto import ArgType, RetType, helper
from bpfvm.runtime import RunContext

__all__ = [
    "bpf_get_prandom_u32",
    "bpf_get_smp_processor_id",
    "bpf_ktime_get_ns",
    "bpf_map_delete_elem",
    "bpf_map_lookup_elem",
    "bpf_map_update_elem",
    "bpf_trace_printk",
]


def _elem_map(run: RunContext, handle: int, name: str, *, write: bool) -> Map:
    """Return the map of an element helper.

    Raises:
        RunFault: it is none, its type is not for this helper, or it is read-only for programs:
            what the verifier refuses.
    """
    found = run.map_arg(handle)
    if name not in found.traits.helpers:
        raise RunFault(run.pc, f"cannot pass map_type {found.defn.map_type} into func {name}")
    if write and found.defn.flags & MapFlags.RDONLY_PROG:
        raise RunFault(run.pc, "write into map forbidden")
    return found


@helper(
    1,
    RetType.MAP_VALUE_OR_NULL,
    (ArgType.CONST_MAP_PTR, ArgType.MAP_KEY),
    pkt_access=True,
)
def bpf_map_lookup_elem(run: RunContext, handle: int, key: int) -> int:
    """Return the address of the value for the key at *key*, or 0."""
    found = _elem_map(run, handle, "bpf_map_lookup_elem", write=False)
    return found.lookup_elem(run.read(key, found.defn.key_size))


@helper(
    2,
    RetType.INTEGER,
    (ArgType.CONST_MAP_PTR, ArgType.MAP_KEY, ArgType.MAP_VALUE, ArgType.ANYTHING),
    pkt_access=True,
    changes_map=True,
)
def bpf_map_update_elem(run: RunContext, handle: int, key: int, value: int, flags: int) -> int:
    """Set the key at *key* to the value at *value*."""
    found = _elem_map(run, handle, "bpf_map_update_elem", write=True)
    defn = found.defn
    return found.update_elem(run.read(key, defn.key_size), run.read(value, defn.value_size), flags)


@helper(
    3,
    RetType.INTEGER,
    (ArgType.CONST_MAP_PTR, ArgType.MAP_KEY),
    pkt_access=True,
    changes_map=True,
)
def bpf_map_delete_elem(run: RunContext, handle: int, key: int) -> int:
    """Remove the key at *key*."""
    found = _elem_map(run, handle, "bpf_map_delete_elem", write=True)
    return found.delete_elem(run.read(key, found.defn.key_size))


@helper(5, RetType.INTEGER)
def bpf_ktime_get_ns(run: RunContext) -> int:
    """Return the time since boot in nanoseconds (never 0 in practice)."""
    return run.clock()


@helper(
    6,
    RetType.INTEGER,
    (ArgType.MEM_RDONLY, ArgType.CONST_SIZE),
    gpl_only=True,
    extra_args=3,
)
def bpf_trace_printk(run: RunContext, fmt: int, size: int, a: int, b: int, c: int) -> int:
    """Append a formatted line to the run's trace; return its length before clipping.

    -EINVAL: the *size* bytes hold no NUL, or the format is not valid.
    """
    text, nul, _ = run.read(fmt, size).partition(b"\0")
    line = format_text(text, (a, b, c), run.machine.space) if nul else None
    if line is None:
        return -EINVAL
    run.trace += clip(line)
    if not line.endswith(b"\n"):
        run.trace += b"\n"  # the trace is read by lines, as the kernel's trace_pipe is
    return len(line)


@helper(7, RetType.INTEGER)
def bpf_get_prandom_u32(run: RunContext) -> int:
    """Return 32 random bits."""
    return run.rng.getrandbits(32)


@helper(8, RetType.CPU, fastcall=offered("lwt tc trace xdp") or frozenset())
def bpf_get_smp_processor_id(run: RunContext) -> int:
    """Return the number of the CPU that the run counts as being on."""
    return run.cpu
