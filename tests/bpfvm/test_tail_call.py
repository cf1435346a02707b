"""Tail calls: programs of one object in the slots of a prog_array, in both engines."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bpfvm import vm
from bpfvm.asm import assemble
from bpfvm.errors import BpfError, MapError
from bpfvm.vm import ENGINES, HELPER_IDS

HEAD = ".map jmp type=prog_array key=4 value=4 entries=3\n"
CALL = "r2 = map(jmp)\ncall bpf_tail_call\n"


def build(text: str, **slots: int) -> vm.Object:
    """Return the object of *text*, its programs in the slots that are given by their names."""
    file = assemble(HEAD + text, helpers=HELPER_IDS)
    pairs = tuple((index, name) for name, index in slots.items())
    maps = tuple(replace(m, slots=pairs) for m in file.maps)
    programs = {n: replace(p, maps=maps) for n, p in file.programs.items()}
    return vm.Object(replace(file, maps=maps, programs=programs))


def results(obj: vm.Object, *, data: bytes | None = None, ctx: bytes | None = None) -> list[int]:
    return [obj.programs["main"].run(engine=engine, data=data, ctx=ctx).r0 for engine in ENGINES]


@pytest.mark.parametrize(("index", "r0"), [(1, 42), (0, 7), (2, 7), (3, 7), (-1, 7)])
def test_a_slot_that_is_empty_or_is_none_is_passed(index: int, r0: int) -> None:
    text = f".prog main\nr3 = {index}\n{CALL}r0 = 7\nexit\n.prog target\nr0 = 42\nexit\n"
    assert results(build(text, target=1)) == [r0, r0]


def test_the_index_has_32_bits() -> None:
    text = f".prog main\nr3 = 0x100000001 ll\n{CALL}r0 = 7\nexit\n.prog target\nr0 = 42\nexit\n"
    assert results(build(text, target=1)) == [42, 42]


def test_the_target_has_the_context_and_a_stack_of_its_own() -> None:
    text = f"""
.prog main type=xdp
*(u64 *)(r10 - 8) = 5
r3 = 0
{CALL}
r0 = 7
exit
.prog target type=xdp
*(u64 *)(r10 - 8) = 9
r0 = *(u32 *)(r1 + 4)
r2 = *(u32 *)(r1 + 0)
r0 -= r2
r1 = *(u64 *)(r10 - 8)
r0 += r1
exit
"""
    assert results(build(text, target=0), data=bytes(80)) == [89, 89]


def test_a_subprogs_frame_alone_is_left() -> None:
    text = f"""
.prog main
r6 = 1
call sub
r0 += r6
exit
.func sub ret=int
r3 = 0
{CALL}
r0 = 100
exit
.prog target
r0 = 10
exit
"""
    assert results(build(text, target=0)) == [11, 11]


def test_after_33_tail_calls_there_are_no_more() -> None:
    text = f"""
.map count type=array key=4 value=8 entries=1
.prog main
r6 = r1
*(u32 *)(r10 - 4) = 0
r2 = r10
r2 += -4
r1 = map(count)
call bpf_map_lookup_elem
if r0 == 0 goto none
r1 = *(u64 *)(r0 + 0)
r1 += 1
*(u64 *)(r0 + 0) = r1
r7 = r1
r1 = r6
r3 = 0
{CALL}
r0 = r7
exit
none:
r0 = 0
exit
"""
    for engine in ENGINES:
        obj = build(text, main=0)
        assert obj.programs["main"].run(engine=engine).r0 == 34
        assert obj.maps["count"].read_int(0) == 34
        # Each run has its own count.
        assert obj.programs["main"].run(engine=engine).r0 == 68


def test_programs_of_one_array_are_of_one_type() -> None:
    text = f".prog main\nr3 = 0\n{CALL}r0 = 7\nexit\n.prog a\nr0 = 0\nexit\n"
    other = text + ".prog b type=xdp\nr0 = 0\nexit\n"
    with pytest.raises(MapError, match="map jmp: programs of different types"):
        _ = build(other, a=0, b=1).machine
    with pytest.raises(BpfError, match="b: a tail call from a program of another type"):
        results(build(other, b=0))


def test_a_target_reads_no_more_context_than_there_is() -> None:
    text = f"""
.prog main type=raw_tp
r3 = 0
{CALL}
r0 = 7
exit
.prog target type=raw_tp
r0 = *(u64 *)(r1 + 8)
exit
"""
    ctx = (1).to_bytes(8, "little") + (2).to_bytes(8, "little")
    assert results(build(text, target=0), ctx=ctx) == [2, 2]
    with pytest.raises(BpfError, match="target: it reads 16 bytes of a context of 0"):
        results(build(text, target=0))


def test_no_slot_is_beyond_the_end() -> None:
    text = ".prog main\nr0 = 0\nexit\n"
    with pytest.raises(MapError, match="map jmp: no slot 3"):
        _ = build(text, main=3).machine


def test_in_the_sandbox_slots_are_empty() -> None:
    text = f".prog main\nr3 = 0\n{CALL}r0 = 7\nexit\n.prog target\nr0 = 42\nexit\n"
    prog = build(text, target=0).programs["main"]
    assert [prog.run(engine=engine, verify=False).r0 for engine in ENGINES] == [7, 7]
