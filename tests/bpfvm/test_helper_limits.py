"""Programs that verify never end in an error of ours, whatever their helpers are given."""

from __future__ import annotations

from errno import ERANGE

import pytest

from bpfvm.bits import u64
from bpfvm.vm import assemble

ENGINES = pytest.mark.parametrize("engine", ["interp", "jit"])


def test_another_cpus_value_may_be_missing() -> None:
    """A known key elides the test for 0 of a lookup, not of one that asks for a CPU too."""
    obj = assemble(
        """
        .map m type=percpu_array key=4 value=8 entries=4
        .prog main type=sched_cls
        *(u32 *)(r10 - 4) = 0
        r1 = map(m)
        r2 = r10
        r2 += -4
        r3 = 1
        call bpf_map_lookup_percpu_elem
        r0 = *(u64 *)(r0 + 0)
        exit
        """
    )
    verdict = obj.programs["main"].verify()
    assert not verdict.ok
    assert verdict.last == "R0 invalid mem access 'map_value_or_null'"


@ENGINES
def test_a_number_of_thousands_of_digits(engine: str) -> None:
    obj = assemble(
        """
        .map m type=array key=4 value=5000 entries=1
        .prog main type=sched_cls
        *(u32 *)(r10 - 4) = 0
        r1 = map(m)
        r2 = r10
        r2 += -4
        call bpf_map_lookup_elem
        r1 = r0
        r2 = 4995
        r3 = 10
        r4 = r10
        r4 += -16
        call bpf_strtoul
        exit
        """
    )
    (m,) = obj.maps.values()
    m[0] = b"1" * 4990 + bytes(10)
    assert obj.programs["main"].run(engine=engine).r0 == u64(-ERANGE)
    m[0] = b"0" * 4990 + b"7" + bytes(9)
    assert obj.programs["main"].run(engine=engine).r0 == 4991


@ENGINES
def test_a_field_of_enormous_width(engine: str) -> None:
    fmt = b"%9999999999999d\0"
    low, high = (int.from_bytes(fmt[i : i + 8], "little") for i in (0, 8))
    obj = assemble(
        f"""
        .prog main type=sched_cls license=GPL
        r1 = {low:#x} ll
        *(u64 *)(r10 - 16) = r1
        r1 = {high:#x} ll
        *(u64 *)(r10 - 8) = r1
        r1 = r10
        r1 += -16
        r2 = 16
        r3 = 1
        call bpf_trace_printk
        exit
        """
    )
    assert obj.programs["main"].run(engine=engine).r0 == (1 << 23) - 1
