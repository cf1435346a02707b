"""The product of an accepted program: rewritten insns and what was found about each."""

from __future__ import annotations

import pytest
from walk_kit import check, xlated

from bpfvm import isa
from bpfvm.insn import Insn
from bpfvm.memory import RegionKind
from bpfvm.proto import Variant


def mnemonics(insns: tuple[Insn, ...]) -> list[str]:
    return [row.mnemonic if (row := isa.lookup(i)) else "" for i in insns]


ARENA = """
r2 = map_value(arena)
r3 = addr_space_cast(r2, 0x0, 0x1)
r4 = *(u64 *)(r3 + 8)
r4 = *(s16 *)(r3 + 2)
*(u32 *)(r3 + 0) = 5
*(u8 *)(r3 + 0) = r4
lock *(u64 *)(r3 + 8) += r4
r5 = load_acquire((u32 *)(r3 + 0))
r3 += 16
r3 <<= 40
r5 = addr_space_cast(r3, 0x1, 0x0)
r0 = 0
exit
"""


def test_arena_accesses_casts_and_arithmetic() -> None:
    product = xlated(ARENA)
    assert mnemonics(product.insns) == [
        "lddw_map_idx_value",
        "",
        "mov32_reg",
        "arena_ldxdw",
        "arena_ldxsh",
        "arena_stw",
        "arena_stxb",
        "arena_lock_add",
        "arena_load_acquire32",
        "add32_imm",
        "lsh32_imm",
        "cast_user",
        "mov_imm",
        "exit",
    ]
    kinds = [aux.access for aux in product.aux]
    assert kinds[3:9] == [RegionKind.ARENA] * 6
    assert {*kinds[:3], *kinds[9:]} == {None}
    assert product.aux[3].regs == "R1=ctx() R2=scalar() R3=arena R10=fp0"
    assert product.verified


def test_user_casts_without_conversion_are_moves() -> None:
    program = ".map a type=arena entries=16 extra=0x100000000000 flags=mmapable|no_user_conv"
    product = xlated(ARENA.replace("(arena)", "(a)").join([program + "\n", ""]))
    assert mnemonics(product.insns)[11] == "mov32_reg"


def test_context_accesses_address_the_internal_context() -> None:
    product = xlated(
        "r2 = *(u32 *)(r1 + 76)\n"
        "r3 = *(u32 *)(r1 + 80)\n"
        "r4 = *(u32 *)(r1 + 0)\n"
        "r0 = r2\n"
        "r0 += 4\n"
        "if r0 > r3 goto +1\n"
        "r4 = *(u8 *)(r2 + 3)\n"
        "r0 = 0\n"
        "exit",
        "sched_cls",
    )
    names = mnemonics(product.insns)
    assert names[:3] == ["ldxdw", "ldxdw", "ldxw"]  # packet pointers are 8 bytes wide inside
    assert [aux.access for aux in product.aux][:3] == [RegionKind.CTX] * 3
    assert product.aux[6].access is RegionKind.PACKET


def test_one_insn_may_meet_several_memories() -> None:
    product = xlated(
        "r2 = r10\nr2 += -8\nr0 = *(u32 *)(r1 + 0)\nif r0 == 0 goto +2\n"
        "r2 = map_value(one)\n*(u64 *)(r2 + 0) = 1\nr0 = 0\nexit"
    )
    assert product.aux[6].access is None
    assert product.aux[2].access is RegionKind.CTX


def test_what_is_never_reached_is_marked() -> None:
    product = xlated("r0 = 0\nif r0 == 0 goto +2\nr0 = 1 ll\nexit")
    assert [aux.seen for aux in product.aux] == [True, True, False, False, True]
    assert product.aux[0].regs == "R1=ctx() R10=fp0"
    assert product.aux[2].regs == ""


ALLOC = "r1 = map(arena)\nr2 = 0\nr3 = 1\nr4 = -1\nr5 = 0\ncall bpf_arena_alloc_pages\n"


@pytest.mark.parametrize(
    ("prog_type", "variant", "sleepable", "context"),
    [
        ("syscall", Variant.SLEEPABLE, True, ""),
        ("socket_filter", Variant.NON_SLEEPABLE, False, "non-sleepable prog"),
    ],
)
def test_a_kfunc_call_knows_its_context(
    prog_type: str, variant: Variant, sleepable: bool, context: str
) -> None:
    site = xlated(ALLOC + "r0 = 0\nexit", prog_type).aux[6].call
    assert site is not None
    assert site.proto.name == "bpf_arena_alloc_pages"
    assert (site.variant, site.sleepable, site.context) == (variant, sleepable, context)


def test_6_18_refuses_arena_kfuncs_where_nothing_may_sleep() -> None:
    verdict = check(ALLOC + "exit", kernel="6.18")
    assert verdict.last == (
        "program must be sleepable to call sleepable kfunc bpf_arena_alloc_pages"
    )
    assert check(ALLOC + "exit", "syscall", kernel="6.18").ok


def test_stack_depth_is_by_subprog() -> None:
    product = xlated("*(u32 *)(r10 - 20) = 1\ncall f\nexit\nf:\n*(u8 *)(r10 - 1) = 1\nr0 = 0\nexit")
    assert product.stack_depth == (24, 8)


def test_the_highest_context_byte_is_known() -> None:
    product = xlated("r0 = *(u32 *)(r1 + 12)\n*(u64 *)(r1 + 32) = r0\nexit", "syscall")
    assert product.max_ctx_offset == 40


def test_slots_never_move() -> None:
    verdict = check(ARENA)
    assert verdict.xlated is not None
    assert len(verdict.xlated.insns) == len(verdict.xlated.program.insns)
    assert len(verdict.xlated.aux) == len(verdict.xlated.insns)
