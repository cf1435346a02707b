"""Assembly text in both syntaxes: what each spelling means, directives, linking, complaints."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from bpfvm.asm import assemble
from bpfvm.errors import AsmError
from bpfvm.insn import Insn, decode
from bpfvm.maps.base import MapFlags, MapType
from bpfvm.program import Linkage, MapDef, Program
from bpfvm.record import FieldKind, MapField

HELPERS = {"bpf_map_lookup_elem": 1, "bpf_ktime_get_ns": 5}


def only(text: str) -> Program:
    """The single program of *text*."""
    (program,) = assemble(text, helpers=HELPERS).programs.values()
    return program


def insns(text: str) -> tuple[Insn, ...]:
    return only(text).insns


def hexed(text: str) -> str:
    return " ".join(insn.encode().hex() for insn in insns(text))


# Spelling on the left, bytes on the right; each group of spellings means the same insn.
SPELLINGS = {
    "0f21000000000000": ["r1 += r2", "add %r1, %r2", "0: (0f) r1 += r2", "add %r1 %r2"],
    "04010000fbffffff": ["w1 += -5", "w1 += 0xfffffffb", "add32 %r1, -5", "w1 += -0x5", "w1+=-5"],
    "b701000005000000": ["r1 = 5", "r1 = 0x5", "mov %r1, 5", "mov %r1,   0x5"],
    "bf21000000000000": ["r1 = r2", "mov %r1, %r2"],
    "c402000003000000": ["w2 s>>= 3", "arsh32 %r2, 3"],
    "3701010003000000": ["r1 s/= 3", "sdiv %r1, 3"],
    "9c21010000000000": ["w1 s%= w2", "smod32 %r1, %r2"],
    "8701000000000000": ["r1 = -r1", "neg %r1", "r1 = - r1"],
    "8403000000000000": ["w3 = -w3", "neg32 %r3"],
    "bf21080000000000": ["r1 = (s8)r2", "r1 = (s8) r2", "movsx864 %r1, %r2"],
    "bc21100000000000": ["w1 = (s16)w2", "movsx1632 %r1, %r2"],
    "bf21200000000000": ["r1 = (s32)r2", "movsx3264 %r1, %r2"],
    "dc01000010000000": ["r1 = be16 r1", "be16 %r1"],
    "d401000040000000": ["r1 = le64 r1", "le64 %r1"],
    "d701000020000000": ["r1 = bswap32 r1", "swap32 %r1", "bswap32 %r1"],
    "bf11010001000000": [
        "r1 = addr_space_cast(r1, 0x0, 0x1)",
        "r1 = addr_space_cast(r1, 0, 1)",
        "cast_kern %r1, %r1",
    ],
    "bf12010000000100": ["r2 = addr_space_cast(r1, 1, 0)", "cast_user %r2, %r1"],
    "6110040000000000": [
        "r0 = *(u32 *)(r1 + 4)",
        "r0 = *(u32 *)(r1 +4)",
        "r0 = *(u32*)(r1+0x4)",
        "w0 = *(u32 *)(r1 + 4)",
        "0: 61 10 04 00 00 00 00 00\tr0 = *(u32 *)(r1 + 0x4)",
        "ldxw %r0, [%r1+4]",
        "ldxw %r0, [%r1+0x4]",
    ],
    "71a0f8ff00000000": ["r0 = *(u8 *)(r10 - 8)", "r0 = *(u8 *)(r10 + -8)", "ldxb %r0, [%r10-8]"],
    "7910000000000000": ["r0 = *(u64 *)(r1)", "ldxdw %r0, [%r1]"],
    "9140ffff00000000": ["r0 = *(s8 *)(r4 -1)", "ldxsb %r0, [%r4-1]", "ldxsb %r0, [%r4+0xffff]"],
    "6a0af8ff05000000": ["*(u16 *)(r10 -8) = 5", "sth [%r10-8], 5"],
    "7b1af8ff00000000": ["*(u64 *)(r10 - 0x8) = r1", "stxdw [%r10-8], %r1"],
    "631af8ff00000000": ["*(u32 *)(r10 - 8) = r1", "*(u32 *)(r10 - 8) = w1", "stxw [%r10-8], %r1"],
    "db21000000000000": ["lock *(u64 *)(r1 + 0) += r2", "lock add [%r1], %r2"],
    "c321040050000000": [
        "lock *(u32 *)(r1 +4) &= r2",
        "lock *(u32 *)(r1 + 4) &= w2",
        "lock and32 [%r1+4], %r2",
    ],
    "db21080001000000": [
        "r2 = atomic64_fetch_add((u64 *)(r1 +8), r2)",
        "r2 = atomic_fetch_add((u64 *)(r1 + 8), r2)",
        "lock fetch add [%r1+8], %r2",
    ],
    "c3210800a1000000": [
        "r2 = atomic_fetch_xor((u32 *)(r1 +8), r2)",
        "w2 = atomic_fetch_xor((u32 *)(r1 + 8), w2)",
        "lock fetch xor32 [%r1+8], %r2",
    ],
    "db210800e1000000": [
        "r2 = atomic64_xchg((u64 *)(r1 +8), r2)",
        "r2 = xchg_64(r1 + 8, r2)",
        "lock xchg [%r1+8], %r2",
    ],
    "c3210800e1000000": [
        "r2 = atomic_xchg((u32 *)(r1 +8), r2)",
        "w2 = xchg32_32(r1 + 8, w2)",
        "lock xchg32 [%r1+8], %r2",
    ],
    "db210800f1000000": [
        "r0 = atomic64_cmpxchg((u64 *)(r1 +8), r0, r2)",
        "r0 = cmpxchg_64(r1 + 8, r0, r2)",
        "lock cmpxchg [%r1+8], %r2",
    ],
    "c3210800f1000000": [
        "r0 = atomic_cmpxchg((u32 *)(r1 +8), r0, r2)",
        "w0 = cmpxchg32_32(r1 + 8, w0, w2)",
        "lock cmpxchg32 [%r1+8], %r2",
    ],
    "cb32f8ff00010000": ["r2 = load_acquire((u16 *)(r3 -8))", "w2 = load_acquire((u16 *)(r3 - 8))"],
    "db23f8ff10010000": ["store_release((u64 *)(r3 -8), r2)", "store_release64 [%r3-8], %r2"],
    "0500030000000000": ["goto +3", "goto pc+3", "goto +0x3 <main+0x20>", "ja +3"],
    "0600000070110100": ["gotol +70000", "gotol pc+70000", "ja32 +70000"],
    "6501ffff07000000": ["if r1 s> 7 goto -1", "if r1 s> 0x7 goto pc-1", "jsgt %r1, 7, -1"],
    "1e21020000000000": ["if w1 == w2 goto +2", "jeq32 %r1, %r2, +2"],
    "16010200ffffffff": ["if w1 == -1 goto +2", "if w1 == 0xffffffff goto pc+2"],
    "4501010080000000": ["if r1 & 0x80 goto +1", "jset %r1, 0x80, +1", "jset %r1 0x80 +1"],
    "e500050000000000": ["may_goto +5", "may_goto pc+5"],
    "8500000005000000": [
        "call 5",
        "call 0x5",
        "call helper 5",
        "call bpf_ktime_get_ns",
        "call bpf_ktime_get_ns#5",
        "call unknown#5",
    ],
    "85100000fbffffff": [
        "call pc-5",
        "call local -5",
        "call -0x5",
        "7: 85 10 00 00 fb ff ff ff\tcall 0xfffffffb",
    ],
    "8520000007000000": ["call runtime 7", "call kfunc(7)"],
    "8d03000000000000": ["callx r3", "call %r3", "call helper %r3"],
    "2000000004000000": ["r0 = *(u32 *)skb[4]"],
    "50300000fcffffff": ["r0 = *(u8 *)skb[r3 + -4]"],
    "18010000050000000000000000000000": ["r1 = 5 ll", "lddw %r1, 5"],
    "18010000ffffffff00000000ffffffff": [
        "r1 = -1 ll",
        "r1 = 0xffffffffffffffff ll",
        "0: (18) r1 = 0xffffffffffffffff",
        "lddw %r1, 18446744073709551615",
    ],
    "18650000030000000000000008000000": ["r5 = map_idx_value(3) + 8"],
    "1815000003000000" + "00" * 8: ["r5 = map_fd(3)"],
    "9500000000000000": ["exit", "(95) exit", "  17:  (95) exit"],
}
CASES = [(text, code) for code, texts in SPELLINGS.items() for text in texts]


@pytest.mark.parametrize(("text", "code"), CASES)
def test_a_spelling_and_its_bytes(text: str, code: str) -> None:
    assert hexed(text).replace(" ", "") == code


@pytest.mark.parametrize("comment", ["; c", "// c", "# c", "; r1 = 2", "/* a */", '# "quoted"'])
def test_comments(comment: str) -> None:
    assert hexed(f"r0 = 1 {comment}\n{comment}\n\n exit{comment}") == hexed("r0 = 1\nexit")


def test_a_comment_over_several_lines_keeps_line_numbers() -> None:
    with pytest.raises(AsmError, match=r"^f:3:2: unknown mnemonic foo"):
        assemble("/* one\n two */ r0 = 1\n foo", "f")


def test_what_begins_first_is_a_comment() -> None:
    text = '; int x = 1; /* that @ a.c:1\nr0 = 1 // */ /*\n; */ @ a.c:2\n/* ; \n # " */ exit'
    assert hexed(text) == hexed("r0 = 1\nexit")
    assert only('.prog p license="// GPL; # /* */"\nexit').license == "// GPL; # /* */"


def test_a_verifier_log_is_text() -> None:
    log = """\
; int x = 1; @ file.c:3
0: (b7) r0 = 0                        ; R0=0
1: (15) if r0 == 0x0 goto pc+1        ; R0=0
2: (85) call bpf_ktime_get_ns#5       ; R0=scalar()
3: (95) exit"""
    assert hexed(log) == hexed("r0 = 0\nif r0 == 0 goto l\ncall 5\nl: exit")


def test_labels_both_ways_over_an_ldimm64() -> None:
    text = "back: r1 = 1 ll\nif r1 > 5 goto out\ngoto back\nout:\nexit"
    assert [i.off for i in insns(text)] == [0, 0, 1, -4, 0]


def test_the_first_exit_is_a_label_of_its_own() -> None:
    assert insns("jne %r0, 1, exit\nmov %r0, 2\nexit\nexit")[0].off == 1
    assert insns("exit: r0 = 1\ngoto exit\nexit")[1].off == -2


def test_subprogs_come_from_calls_and_take_their_labels_names() -> None:
    program = only("r1 = 1\ncall twice\ncall pc+3\nexit\ntwice: r0 = r1\nexit\nr0 = 0\nexit")
    assert [(s.start, s.end, s.name) for s in program.subprogs] == [
        (0, 4, "main"),
        (4, 6, "twice"),
        (6, 8, "subprog_6"),
    ]
    assert program.insns[1] == Insn(0x85, src=1, imm=2)


def test_a_called_name_is_a_label_then_a_helper_then_a_kfunc() -> None:
    program = only(
        "call here\ncall bpf_map_lookup_elem\ncall other\ncall third#77\ncall other\n"
        "exit\nhere: exit"
    )
    assert [(i.src, i.imm) for i in program.insns[:5]] == [(1, 5), (0, 1), (2, 0), (2, 1), (2, 0)]
    assert program.kfuncs == ("other", "third")
    assert only("call kfunc bpf_map_lookup_elem\nexit").kfuncs == ("bpf_map_lookup_elem",)


def test_directives() -> None:
    obj = assemble("""\
        .map arena type=arena entries=10 extra=0x100000000000
        .map "odd name" type=hash key=4 value=16 entries=3 flags=no_prealloc,rdonly_prog
        .map .rodata type=2 value=2 entries=1 image=0102 frozen
        .map locked type=array value=32 entries=1 fields=bpf_timer@16,bpf_spin_lock@4
        .map plain type=array value=8 entries=1 fields=""
        .kfunc maybe weak
        .prog first type=xdp license="Dual BSD/GPL" attach=3 flags=0x2
            r1 = map(arena)
            r1 = map_value(.rodata) + 1
            r2 = map("odd name")
            call maybe
            exit
        .prog second type=syscall
        .kfunc zero
            call one
            call zero
            exit
        .prog third type=raw_tp sleepable
            exit
    """)
    arena, odd, rodata, locked, plain = obj.maps
    timer, lock = MapField(FieldKind.TIMER, 16), MapField(FieldKind.SPIN_LOCK, 4)
    assert (locked.record, plain.record, rodata.record) == ((lock, timer), (), None)
    assert arena == MapDef("arena", MapType.ARENA, 0, 0, 10, MapFlags.MMAPABLE, 0x100000000000)
    assert odd == MapDef("odd name", 1, 4, 16, 3, MapFlags.NO_PREALLOC | MapFlags.RDONLY_PROG)
    assert rodata == MapDef(".rodata", 2, 4, 2, 1, image=b"\1\2", frozen=True)
    first, second, third = obj.programs.values()
    assert (first.name, first.prog_type, first.sleepable) == ("first", "xdp", False)
    assert (first.license, first.expected_attach_type, first.flags) == ("Dual BSD/GPL", 3, 2)
    assert first.maps == second.maps == obj.maps
    assert [i[:3] + i[4:] for i in first.insns[:6:2]] == [
        (0x18, 1, 5, 0),
        (0x18, 1, 6, 2),
        (0x18, 2, 5, 1),
    ]
    assert first.insns[3].imm == 1
    assert (first.kfuncs, first.weak_kfuncs) == (("maybe",), frozenset({"maybe"}))
    assert (second.kfuncs, second.weak_kfuncs, second.sleepable) == (
        ("zero", "one"),
        frozenset(),
        True,
    )
    assert third.sleepable


def test_a_shared_function_is_linked_behind_each_program_that_calls_it() -> None:
    obj = assemble("""\
        .func unused
            exit
        .func outer global
            call inner
        out: exit
        .func inner
            if r1 == 0 goto out
            r0 = func(outer)
        out: exit
        .prog a
            call outer
            exit
        .prog b
            call inner
            exit
        .prog c
            exit
    """)
    a, b, c = obj.programs.values()
    assert [(s.start, s.name, s.linkage) for s in a.subprogs] == [
        (0, "a", Linkage.STATIC),
        (2, "outer", Linkage.GLOBAL),
        (4, "inner", Linkage.STATIC),
    ]
    assert a.insns[5] == Insn(0x18, src=4, imm=-4)
    assert [s.name for s in b.subprogs] == ["b", "inner", "outer"]
    assert c.insns == (Insn(0x95),)


def test_a_function_of_a_program_is_its_own() -> None:
    program = only(".prog a\n.func entry\ncall f\nexit\n.func f\nr0 = 1\nexit")
    assert [(s.start, s.name) for s in program.subprogs] == [(0, "entry"), (2, "f")]


def test_a_symbol_with_ll_is_a_map_or_a_function() -> None:
    program = only(".map m type=array value=8 entries=1\nr1 = m ll\nr2 = f ll\nexit\nf: exit")
    assert program.insns[0] == Insn(0x18, 1, 5, 0, 0)
    assert program.insns[2] == Insn(0x18, 2, 4, 0, 2)
    assert [s.start for s in program.subprogs] == [0, 5]


def test_sections_of_compiler_text_make_programs() -> None:
    obj = assemble("""\
        .text
        .type twice,@function
twice:                                  # @twice
.Lfunc_begin0:
        .cfi_startproc
        r0 = r1
        r0 += r1
        exit
.Lfunc_end0:
        .section xdp,"ax",@progbits
        .globl first                    # -- Begin function first
        .type first,@function
first:
        #DEBUG_VALUE: first:ctx <- $r1
        r1 = 1
        call twice
        exit
        .section "syscall","ax",@progbits
        .type second,@function
second:
        r0 = 0
        exit
        .section license,"aw",@progbits
        .type LICENSE,@object
LICENSE:
        .asciz "Dual BSD/GPL"
        .section .BTF,"",@progbits
        .long 5
    """)
    first, second = obj.programs.values()
    assert (first.name, first.prog_type, first.license) == ("first", "xdp", "Dual BSD/GPL")
    assert [(s.start, s.name) for s in first.subprogs] == [(0, "first"), (3, "twice")]
    assert (second.name, second.prog_type, second.sleepable) == ("second", "syscall", True)
    assert len(second.insns) == 2


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ("r0 = 1\n foo %r1, 2", "2:2", "unknown mnemonic foo"),
        ("lock nand [%r1], %r2", "1:1", "unknown mnemonic lock nand"),
        ("r1 = 0x100000000", "1:6", "immediate 0x100000000 is out of the 32-bit range"),
        ("r1 = 4294967295", "1:6", "out of the 32-bit range: expected -2147483648 to"),
        ("mov %r1, -2147483649", "1:10", "out of the 32-bit range"),
        ("r1 = 0x10000000000000000 ll", "1:6", "out of the 64-bit range"),
        ("r1 = *(u8 *)(r2 + 32768)", "1:17", "offset 32768 is out of the 16-bit range"),
        ("ldxb %r0, [%r1+0x10000]", "1:11", "offset +0x10000 is out of the 16-bit range"),
        ("goto +32768", "1:6", "jump 32768 is out of the 16-bit range"),
        ("goto nowhere", "1:6", "unknown label nowhere"),
        ("call local nowhere", "1:12", "unknown label nowhere"),
        ("a: exit\ngoto b", "2:6", "unknown label b: expected one of a"),
        ("a: exit\n a: exit", "2:2", "duplicate label a"),
        ("r11 = r16", "1:7", "r16 is no register: expected r0 to r10"),
        ("mov %r16, 0", "1:5", "%r16 is no register"),
        ("mov %x, 0", "1:5", "%x is no register"),
        ("mov r1, 0", "1:5", "mov: expected a register such as %r1, not r1"),
        ("mov %r1,0", "1:9", "expected a space after ','"),
        ("ldxb %r0, [%r1 + 1]", "1:11", "no space is allowed in a memory operand"),
        ("ldxb %r0, [r1+1]", "1:11", "expected [%rN+OFF]"),
        ("ldxb %r0, %r1", "1:11", "ldxb: expected a memory operand such as [%r1+8], not %r1"),
        ("lddw %r0", "1:9", "lddw: missing operand: expected a 64-bit immediate"),
        ("lock", "1:5", "lock: missing operand: expected an atomic operation"),
        ("neg %r0, %r1", "1:10", "neg: unexpected operand %r1"),
        ("r1 += w2", "1:7", "w2 and r1 differ in width"),
        ("r1 = -r2", "1:7", "expected r1 again"),
        ("w1 = be16 w1", "1:1", "w1 where 64 bits are used: expected r1"),
        ("*(u64 *)(r1 + 0) = w2", "1:20", "w2 where 64 bits are used"),
        ("r1 s+= 2", "1:4", "unknown operator s+=: expected"),
        ("r1 <=> 2", "1:4", "unexpected '<': expected an assignment such as = or +="),
        ("if r1 ! 2 goto +1", "1:7", "unexpected '!': expected a comparison such as == or s>"),
        ("if r1 > 2 got +1", "1:11", "unexpected 'got': expected goto"),
        ("r1 = be17 r1", "1:6", "unknown operation be17: expected le16"),
        ("r1 = *(u24 *)(r2 + 0)", "1:8", "no such access as u24"),
        ("r1 = (s64)r2", "1:7", "no sign extension (s64)"),
        ("lock *(u8 *)(r1 + 0) += r2", "1:8", "no such access as u8: expected u64 u32"),
        ("lock *(u64 *)(r1 + 0) -= r2", "1:23", "no atomic -="),
        ("r3 = atomic64_fetch_or((u64 *)(r1 + 0), r2)", "1:1", "the old value in r2"),
        ("r1 = cmpxchg_64(r2 + 0, r0, r3)", "1:1", "compares with r0"),
        ("r1 = atomic64_xchg(r2 + 0, r3)", "1:20", "expected a pointer such as"),
        ("r1 = frob(r2)", "1:6", "unknown operation frob: expected addr_space_cast"),
        ("r1 = addr_space_cast(r1, 0)", "1:26", "2 arguments, expected 3"),
        ("r1 =", "1:5", "unexpected end of line: expected"),
        ("r1 = *(u32 *)(r2 + 0", "1:21", "unexpected end of line: expected ')'"),
        ("r0 = 1 2", "1:8", "unexpected '2': expected"),
        ("(b7) r1 += 5", "1:6", "the text is opcode 07, not (b7)"),
        ("call bpf_ktime_get_ns#4", "1:6", "bpf_ktime_get_ns is helper 5, not 4"),
        ("r1 = map(m)", "1:10", "unknown map m"),
        (".frob x", "1:1", "unknown directive .frob: expected .map, .prog, .func"),
        (".slot 00", "1:7", ".slot: expected 8 bytes in hex, not 00"),
        (".slot zz", "1:7", ".slot: expected 8 bytes in hex, not zz"),
        (".slot", "1:6", ".slot: expected 8 bytes in hex"),
        (".map", "1:5", ".map: expected a map's name"),
        (".map m", "1:6", "map m: type=... is missing"),
        (".map m type=blob", "1:13", "type: blob is unknown: expected hash array"),
        (".map m type=array value=x", "1:25", "value: expected a number, not x"),
        (".map m type=array color=red", "1:25", ".map: color is unknown here"),
        (
            ".map m type=array fields=bpf_spin_lock@x",
            "1:26",
            "fields: 'bpf_spin_lock@x': expected NAME@OFFSET of bpf_spin_lock",
        ),
        (".map m type=array fields=lock@4", "1:26", "fields: 'lock@4': expected NAME@OFFSET of"),
        (".map m type=array flags=wet", "1:25", "flags: wet is unknown: expected no_prealloc"),
        (".map m type=array\n.map m type=array", "2:6", "duplicate map m"),
        (".prog a type=lunch\nexit", "1:14", "unknown program type lunch: expected"),
        (".prog a\nexit\n.prog a\nexit", "3:7", "duplicate program a"),
        (".prog a\n.prog b\nexit", "1:1", "program a has no insns"),
        ("r0 = 1\n.prog a\nexit", "1:1", "an insn before the first .prog or .func"),
        ("", "1:1", "program main has no insns"),
    ],
)
def test_a_complaint_tells_where_and_what_was_expected(text: str, where: str, message: str) -> None:
    with pytest.raises(AsmError) as caught:
        assemble(text, "file.s", helpers=HELPERS)
    line, col = map(int, where.split(":"))
    first, source, caret = str(caught.value).split("\n")
    assert first.startswith(f"file.s:{where}: ")
    assert message in first
    assert source == text.split("\n")[line - 1]
    assert caret == " " * (col - 1) + "^"


@pytest.mark.parametrize(
    "text",
    [
        f"mov %r{'9' * 5000}, 0",
        f"r{'9' * 5000} = 0",
        f"r1 = {'9' * 5000}",
        f"call x#{'9' * 5000}",
        f"goto +{'9' * 5000}",
        f".map m type=array value={'9' * 5000}",
        "mov %r\u0663, 0",
        "r1 = \u0663",
        "exit \0",
        "exit {",
        '.map "m',
        "ldxb %r0, [%r1+]",
        "ldxb %r0, []",
        "call (",
        "\ud800",
    ],
    ids=range(15),
)
def test_odd_text_is_no_crash(text: str) -> None:
    with pytest.raises(AsmError):
        assemble(text)


def test_a_jump_that_is_too_far_for_its_field() -> None:
    text = "goto end\n" + "r0 = 1\n" * 40000 + "end: exit"
    with pytest.raises(AsmError, match="more than a jump reaches: use gotol"):
        assemble(text)
    assert insns(text.replace("goto", "gotol"))[0].imm == 40000


@pytest.fixture(scope="module")
def clang() -> str:
    tool = shutil.which("clang-19") or shutil.which("clang")
    if tool is None:
        pytest.skip("no clang to compare with")
    return tool


C_SOURCE = """
typedef unsigned long long u64; typedef unsigned u32; typedef unsigned char u8;
static __attribute__((noinline))
u64 sub(u64 a, long b) { return a / 3 + b % 7 + b / (long)(a | 1); }
u64 prog(u64 __attribute__((address_space(1))) *p, u64 *q, u8 *b, u64 n, u64 k)
{
    u64 s = sub(n, k);
    for (u32 i = 0; i < n; i++) {
        s += p[i];
        s ^= b[i];
        if ((long)s < -5)
            break;
        if ((int)s > (int)k)
            s >>= 3;
    }
    s += (signed char)b[3] + *(short *)(b + 8) + __builtin_bswap16(k) + __builtin_bswap64(n);
    s += __sync_fetch_and_add(q, s) + __sync_val_compare_and_swap(q, 1, s);
    s += __sync_lock_test_and_set((u32 *)q, 3) + __sync_fetch_and_xor((u32 *)q, s);
    __sync_fetch_and_or((u32 *)q, s);
    s += 0x123456789abcdefULL + (int)s + (short)k + (long)n % 5;
    *(u32 *)(b + 40) = 77;
    *(u64 *)(b + 48) = -1;
    return -s;
}
"""


def test_what_clang_prints_assembles_to_what_clang_encodes(clang: str, tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text(C_SOURCE)
    flags = [clang, "-O2", "-target", "bpf", "-mcpu=v4"]
    subprocess.run([*flags, "-S", "a.c", "-o", "a.s"], cwd=tmp_path, check=True)
    subprocess.run([*flags, "-c", "a.c", "-o", "a.o"], cwd=tmp_path, check=True)
    elf = pytest.importorskip("elftools.elf.elffile")
    with (tmp_path / "a.o").open("rb") as file:
        code = elf.ELFFile(file).get_section_by_name(".text").data()
    program = only((tmp_path / "a.s").read_text())
    assert program.insns == decode(code)
    assert [s.name for s in program.subprogs] == ["main", "sub"]
    objdump = shutil.which(clang.replace("clang", "llvm-objdump"))
    if objdump is None:
        pytest.skip("no llvm-objdump to compare with")
    listing = subprocess.run(
        [objdump, "-d", "--mcpu=v4", "a.o"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert only(listing).insns == decode(code)
