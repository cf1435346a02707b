"""The kernel's wording of every insn, and listings that assemble back to the same program."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bpfvm import loader
from bpfvm.asm import assemble
from bpfvm.disasm import Names, disassemble, insn_text
from bpfvm.flow import find_subprogs
from bpfvm.insn import Insn, decode, encode
from bpfvm.isa import TABLE, AtomicOp, InsnDef, Kind, LdKind
from bpfvm.program import LineInfo, Linkage, MapDef, Program, Subprog

HELPERS = {"bpf_map_lookup_elem": 1, "bpf_ktime_get_ns": 5, "bpf_loop": 181}
NAMES = {number: name for name, number in HELPERS.items()}
USER_ROWS = [row for row in TABLE if not row.arena]
EXIT = Insn(0x95)
MAPS = (
    MapDef("arena", 33, 0, 0, 10, 1 << 10, 1 << 44),
    MapDef("odd name", 1, 4, 8, 16, 0x40000001),
    MapDef(".rodata", 2, 4, 3, 1, image=b"\1\2\3", frozen=True),
    MapDef("empty", 77, 0, 0, 0, image=b""),
)

#: verifier.md 7.1, row by row.
KERNEL_TEXTS = [
    (Insn(0x0F, 1, 2), "(0f) r1 += r2"),
    (Insn(0x07, 1, imm=5), "(07) r1 += 5"),
    (Insn(0x07, 1, imm=-5), "(07) r1 += -5"),
    (Insn(0x0C, 1, 2), "(0c) w1 += w2"),
    (Insn(0x04, 1, imm=5), "(04) w1 += 5"),
    (Insn(0xC4, 1, imm=5), "(c4) w1 s>>= 5"),
    (Insn(0x37, 1, 0, 1, 5), "(37) r1 s/= 5"),
    (Insn(0x9C, 1, 2, 1), "(9c) w1 s%= w2"),
    (Insn(0x87, 1), "(87) r1 = -r1"),
    (Insn(0x84, 1), "(84) w1 = -w1"),
    (Insn(0xBF, 1, 2, 8), "(bf) r1 = (s8)r2"),
    (Insn(0xBC, 1, 2, 8), "(bc) w1 = (s8)w2"),
    (Insn(0xDC, 1, imm=16), "(dc) r1 = be16 r1"),
    (Insn(0xD4, 1, imm=32), "(d4) r1 = le32 r1"),
    (Insn(0xD7, 1, imm=64), "(d7) r1 = bswap64 r1"),
    (Insn(0xBF, 2, 1, 1, 1), "(bf) r2 = addr_space_cast(r1, 0, 1)"),
    (Insn(0xBF, 2, 1, 1, 1 << 16), "(bf) r2 = addr_space_cast(r1, 1, 0)"),
    (Insn(0x18, 1, imm=-1), "(18) r1 = 0xffffffff"),
    (Insn(0x61, 0, 1, 4), "(61) r0 = *(u32 *)(r1 +4)"),
    (Insn(0x91, 4, 10, -8), "(91) r4 = *(s8 *)(r10 -8)"),
    (Insn(0x7A, 10, 0, -16, 5), "(7a) *(u64 *)(r10 -16) = 5"),
    (Insn(0x7B, 10, 1, -8), "(7b) *(u64 *)(r10 -8) = r1"),
    (Insn(0x30, imm=12), "(30) r0 = *(u8 *)skb[12]"),
    (Insn(0x50, 0, 3, 0, 4), "(50) r0 = *(u8 *)skb[r3 + 4]"),
    (Insn(0xDB, 10, 2, -8), "(db) lock *(u64 *)(r10 -8) += r2"),
    (Insn(0xDB, 10, 2, -8, 1), "(db) r2 = atomic64_fetch_add((u64 *)(r10 -8), r2)"),
    (Insn(0xC3, 10, 2, -8, 0xA1), "(c3) r2 = atomic_fetch_xor((u32 *)(r10 -8), r2)"),
    (Insn(0xDB, 10, 2, -8, 0xE1), "(db) r2 = atomic64_xchg((u64 *)(r10 -8), r2)"),
    (Insn(0xC3, 10, 2, -8, 0xF1), "(c3) r0 = atomic_cmpxchg((u32 *)(r10 -8), r0, r2)"),
    (Insn(0xDB, 3, 10, -8, 0x100), "(db) r3 = load_acquire((u64 *)(r10 -8))"),
    (Insn(0xDB, 10, 2, -8, 0x110), "(db) store_release((u64 *)(r10 -8), r2)"),
    (Insn(0x05, off=3), "(05) goto pc+3"),
    (Insn(0x06, imm=3), "(06) gotol pc+3"),
    (Insn(0x1D, 2, 3), "(1d) if r2 == r3 goto pc+0"),
    (Insn(0x16, 4, 0, 1, -5), "(16) if w4 == 0xfffffffb goto pc+1"),
    (Insn(0x65, 4, 0, -1, 5), "(65) if r4 s> 0x5 goto pc-1"),
    (Insn(0xE5), "(e5) may_goto pc+0"),
    (Insn(0x85, imm=1), "(85) call bpf_map_lookup_elem#1"),
    (Insn(0x85, 0, 1, 0, 2), "(85) call pc+2"),
    (Insn(0x85, 0, 2, 0, 64242), "(85) call bpf_iter_num_new#64242"),
    (Insn(0x85, imm=999), "(85) call unknown#999"),
    (Insn(0x8D, 3), "(8d) callx r3"),
    (Insn(0x95), "(95) exit"),
    # Fields that are checked only after the log line.
    (Insn(0x07, 1, 3, 7, 5), "(07) r1 += 5"),
    (Insn(0x37, 1, 0, 2, 5), "(37) r1 /= 5"),
    (Insn(0xBF, 1, 2, 5), "(bf) r1 = r2"),
    (Insn(0xBF, 1, 2, 1, 2), "(bf) r1 = addr_space_cast(r2, 0, 2)"),
    (Insn(0xDB, 1, 2, 0, 7), "(db) BUG_db"),
    (Insn(0xFF), "(ff) BUG_ff"),
    # Internal arena accesses.
    (Insn(0xE3, 1, 2, 0, 0xF1), "(e3) probe r0 = atomic_cmpxchg((u32 *)(r1 +0), r0, r2)"),
    (Insn(0xB9, 1, 2, 8), "(b9) probe r1 = *(u64 *)(r2 +8)"),
]


@pytest.mark.parametrize(("insn", "text"), KERNEL_TEXTS, ids=[t for _, t in KERNEL_TEXTS])
def test_the_kernels_wording(insn: Insn, text: str) -> None:
    names = Names(helper=NAMES.get, kfunc=lambda _imm, _off: "bpf_iter_num_new")
    assert insn_text(insn, 0, names) == text


def test_both_halves_of_a_constant() -> None:
    assert insn_text(Insn(0x18, 1, imm=-2), 0x11223344) == "(18) r1 = 0x11223344fffffffe"


def test_every_row_has_a_wording_of_its_own() -> None:
    names = Names(kfunc=lambda _imm, _off: "bpf_iter_num_new")
    texts = {row.mnemonic: insn_text(_filled(row, 1, 2, 4, 8), 0, names) for row in TABLE}
    assert not [text for text in texts.values() if "BUG" in text]
    # Without names the kinds of an ldimm64 look the same; a listing tells them apart.
    wide = {row.mnemonic for row in TABLE if row.kind is Kind.LDIMM64}
    distinct = {text for name, text in texts.items() if name not in wide}
    assert len(distinct) == len(TABLE) - len(wide)


def _filled(row: InsnDef, dst: int, src: int, off: int, imm: int) -> Insn:
    values = {"dst": dst, "src": src, "off": off, "imm": imm}
    used = {name: values[name] for name in row.form.fields}
    return Insn(row.opcode)._replace(**used)._replace(**dict(row.fixed))


def _program(insns: list[Insn]) -> Program:
    code = tuple(insns)
    return Program(
        "prog",
        code,
        "xdp",
        find_subprogs(code, {0: "prog"}),
        maps=MAPS,
        kfuncs=("bpf_one", "bpf_loop", "odd name", "subprog_3"),
    )


def _round_trip(program: Program) -> Program:
    return assemble(disassemble(program, HELPERS), helpers=HELPERS).programs[program.name]


IMMS = [0, 1, -1, 2, 3, 5, 181, 0x7FFFFFFF, -0x80000000]


@pytest.mark.parametrize("row", USER_ROWS, ids=lambda row: row.mnemonic)
def test_each_row_survives_the_round_trip(row: InsnDef) -> None:
    offs = (0, 7, -1, 0x7FFF, -0x8000)
    insns = {_filled(row, 3, 10, off, imm) for off, imm in product(offs, IMMS)}
    for insn in insns:
        if row.op is LdKind.FUNC and insn.imm == 0:
            continue  # the second slot of an ldimm64 is no place for a function
        second = [Insn(0, imm=insn.imm)] if row.kind is Kind.LDIMM64 else []
        program = _program([insn, *second, EXIT, EXIT, EXIT])
        assert _round_trip(program) == program


@st.composite
def programs(draw: st.DrawFn) -> Program:
    registers, imms = st.integers(0, 10), st.integers(-(2**31), 2**31 - 1)
    insns: list[Insn] = []
    starts = [0]
    for row in draw(st.lists(st.sampled_from(USER_ROWS), max_size=12)):
        imm = draw(st.one_of(st.integers(-1, 4), imms))
        if (row.op, row.kind) == (LdKind.FUNC, Kind.LDIMM64) or row.mnemonic == "call_local":
            imm = draw(st.integers(20, 30))  # outside: the subprogs are drawn below
        off = draw(st.integers(-(2**15), 2**15 - 1))
        insns.append(_filled(row, draw(registers), draw(registers), off, imm))
        if row.kind is Kind.LDIMM64:
            insns.append(Insn(0, imm=draw(st.one_of(st.just(0), imms))))
        if draw(st.integers(0, 4)) == 0:
            starts.append(len(insns))
    insns += [EXIT] * 2
    cuts = sorted({*starts, len(insns) - 1})
    subprogs = tuple(
        Subprog(start, end, f"f{start}" if start else "prog", draw(st.sampled_from(Linkage)))
        for start, end in zip(cuts, [*cuts[1:], len(insns)], strict=True)
    )
    program = _program(insns)
    return replace(
        program,
        subprogs=subprogs,
        prog_type=draw(st.sampled_from(["socket_filter", "xdp", "syscall"])),
        sleepable=draw(st.booleans()),
        license=draw(st.sampled_from(["GPL", "Dual BSD/GPL", "", "none; // #1"])),
        weak_kfuncs=frozenset(draw(st.sets(st.sampled_from(program.kfuncs)))),
        expected_attach_type=draw(st.integers(0, 50)),
        flags=draw(st.integers(0, 2**32 - 1)),
    )


@pytest.mark.property
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(programs())
def test_whole_programs_survive_the_round_trip(program: Program) -> None:
    assert _round_trip(program) == program


@pytest.mark.property
@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(min_size=8, max_size=8).map(decode),
            st.tuples(
                st.builds(
                    Insn,
                    st.sampled_from([row.opcode for row in TABLE]),
                    st.integers(0, 15),
                    st.integers(0, 15),
                    st.sampled_from([0, 0, 1, -1, 8]),
                    st.sampled_from([0, 0, 1, 2, 16, 0xE1]),
                )
            ),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_whatever_the_bytes_are_the_listing_keeps_them(slots: list[tuple[Insn, ...]]) -> None:
    program = _program([insn for slot in slots for insn in slot])
    assert _round_trip(program) == program


def test_an_object_of_several_programs_survives_the_round_trip() -> None:
    text = """\
        .map m type=hash key=4 value=8 entries=16
        .map a type=arena entries=4
        .func shared
            r0 = 1
            exit
        .prog one type=xdp
            r1 = map(m)
            call shared
            exit
        .prog two type=syscall license="Dual MIT/GPL"
        .kfunc bpf_other weak
            r1 = func(shared)
            r1 = map_value(a) + 8
            call bpf_other
            exit
    """
    obj = assemble(text)
    again = assemble(disassemble(obj, {}))
    assert again.programs == obj.programs
    assert again.maps == obj.maps


def _without_btf(program: Program) -> Program:
    subprogs = tuple(replace(s, params=None, ret=None) for s in program.subprogs)
    return replace(program, subprogs=subprogs, line_info=(), func_info=None)


def test_the_examples_survive_the_round_trip(examples_dir: Path) -> None:
    objects = sorted(examples_dir.glob("*.bpf.o"))
    assert len(objects) >= 4
    for path in objects:
        obj = loader.load_path(str(path), helpers=HELPERS)
        again = assemble(disassemble(obj, HELPERS), helpers=HELPERS)
        assert again.maps == obj.maps
        again_without, without = (
            {n: _without_btf(p) for n, p in found.programs.items()} for found in (again, obj)
        )
        assert again_without == without


def test_source_lines_stand_before_their_insns() -> None:
    info = (
        LineInfo(0, "/src/a.c", 3, 1, "\treturn  1;"),
        LineInfo(1, "/src/a.c", 3, 9, "\treturn  1;"),
        LineInfo(2, "/src/a.c", 4, 1, "}"),
    )
    program = replace(assemble("r0 = 1\nr0 += 1\nexit").programs["main"], line_info=info)
    text = disassemble(program, {})
    assert text.splitlines()[1:] == [
        "; return 1; @ a.c:3",
        "0: (b7) r0 = 1",
        "1: (07) r0 += 1",
        "; } @ a.c:4",
        "2: (95) exit",
    ]
    assert assemble(text).programs["main"].insns == program.insns


def test_a_listing_reads_well() -> None:
    program = assemble(
        ".map m type=array value=8 entries=1\n.prog p type=xdp\nr1 = map(m)\n"
        "call bpf_map_lookup_elem\ncall f\ncall kf\nexit\n.func f\nr0 = 1 ll\nexit",
        helpers=HELPERS,
    ).programs["p"]
    assert (
        disassemble(program, HELPERS)
        == """\
.map m type=array key=4 value=8 entries=1 flags=0x0

.prog p type=xdp sleepable=0
.kfunc kf
0: (18) r1 = map(m)
2: (85) call bpf_map_lookup_elem#1
3: (85) call pc+2
4: (85) call kf
5: (95) exit
.func f
6: (18) r0 = 0x1
8: (95) exit
"""
    )


def test_the_running_kernel_prints_the_same(
    oracle: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    """A straight program with one insn of each kind that the kernel lets through."""
    insns = [Insn(0xBF, 6, 1), Insn(0x7A, 10, 0, -8, 5), Insn(0x7A, 10, 0, -16, -5)]
    for row in USER_ROWS:
        insns += _ordinary(row)
    insns += [Insn(0xB7, 0), EXIT]
    answer = oracle({"prog_type": "socket_filter", "insns": encode(insns).hex(), "log_level": 2})
    log = answer["load"]["log"]
    assert answer["load"]["ok"], log
    printed = dict(re.findall(r"^(\d+): (\([0-9a-f]{2}\) .*?)\s*(?:;.*)?$", log, re.MULTILINE))
    names = Names(helper=NAMES.get)
    seen = 0
    for slot, insn in enumerate(insns):
        if str(slot) in printed:
            nxt = insns[slot + 1].imm if slot + 1 < len(insns) else 0
            assert insn_text(insn, nxt, names) == printed[str(slot)]
            seen += 1
    assert seen > 150


def _ordinary(row: InsnDef) -> list[Insn]:
    """An insn of *row* that verifies after r3 = 9, r4 = 3, r0 = 1 and the stack's two words."""
    setup = [Insn(0xB7, 3, imm=9), Insn(0xB7, 4, imm=3), Insn(0xB7, 0, imm=1)]
    match row.kind:
        case Kind.LDIMM64 if row.op is LdKind.IMM64:
            return [_filled(row, 3, 0, 0, -2), Insn(0, imm=0x1234)]
        case Kind.LDX | Kind.LOAD_ACQ:
            return [_filled(row, 3, 10, -8, 0)]
        case Kind.ST | Kind.STX | Kind.STORE_REL:
            return [*setup, _filled(row, 10, 3, -16, -3)]
        case Kind.ATOMIC:
            compare = row.op is AtomicOp.CMPXCHG
            return [*setup, Insn(0x7A, 10, 0, -8, 5), _filled(row, 10, 4 if compare else 3, -8, 0)]
        case Kind.LD_ABS | Kind.LD_IND:
            return [Insn(0xB7, 3, imm=9), _filled(row, 0, 3, 0, 12)]
        case Kind.JA | Kind.JCOND | Kind.MAY_GOTO:
            imm = 0 if row.kind is Kind.JA else -5
            return [*setup, _filled(row, 3, 4, 0, imm)]
        case Kind.CALL if row.mnemonic == "call_helper":
            return [_filled(row, 0, 0, 0, 5)]
        case Kind.ALU | Kind.NEG | Kind.END | Kind.MOV | Kind.MOVSX:
            return [*setup, _filled(row, 3, 4, 0, 7)]
        case _:
            return []
