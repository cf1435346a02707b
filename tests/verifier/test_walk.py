"""The walk: paths, pruning, precision, loops, subprogs and limits."""

from __future__ import annotations

import ast
import random
import time
from dataclasses import replace
from pathlib import Path
from string import Formatter

import pytest
from walk_kit import build, check

import verifier
from bpfvm.insn import Insn
from bpfvm.memory import RegionKind
from bpfvm.rules import KernelRules
from bpfvm.vm import MAP_TYPES, REGISTRY
from bpfvm.xlated import Verdict
from verifier import api, cfg
from verifier.reasons import Reason

STATE_FREQ = 8  # BPF_F_TEST_STATE_FREQ: save a state wherever one is looked for


def test_verdicts_are_values() -> None:
    unknown = check("r0 = 0\nexit", prog_type="socket_filter", sleepable=True)
    assert (unknown.ok, unknown.errno) == (False, 22)
    program = replace(build("r0 = 0\nexit"), prog_type="no_such_type")
    verdict = api.verify(program, (), None, map_types=None, rules=None)  # type: ignore[arg-type]
    assert (verdict.errno, verdict.reason) == (22, "bad_prog_type")
    accepted = check("r0 = 0\nexit")
    assert (accepted.ok, accepted.errno, accepted.last, accepted.reason) == (True, 0, "", "")
    assert accepted.stats.processed == 2


def test_reasons_have_slugs_of_their_own() -> None:
    slugs = [reason.slug for reason in Reason]
    assert len(slugs) == len(set(slugs))
    assert all(reason.errno > 0 and reason.template for reason in Reason)


# -- bounded loops -----------------------------------------------------------------------------


def test_a_bounded_loop_is_walked_to_its_end() -> None:
    verdict = check("r0 = 0\nr0 += 1\nif r0 < 1000 goto -2\nexit", log_level=0)
    assert verdict.ok
    assert verdict.stats.processed == 2 + 2 * 1000


def test_too_many_insns() -> None:
    verdict = check("r0 = 0\nr0 += 1\nif r0 < 2000000 goto -2\nexit", log_level=0)
    assert (verdict.errno, verdict.last) == (
        7,
        "BPF program is too large. Processed 1000001 insn",
    )


def test_the_speed_is_fit_for_a_million_insns() -> None:
    started = time.perf_counter()
    verdict = check("r0 = 0\nr0 += 1\nif r0 < 20000 goto -2\nexit", log_level=0)
    assert verdict.ok
    # 70,000 insns/s when this was written; a machine under load gets plenty of room.
    assert verdict.stats.processed / (time.perf_counter() - started) > 5_000


# -- may_goto ----------------------------------------------------------------------------------


def test_a_may_goto_loop_converges() -> None:
    verdict = check("r0 = 0\nmay_goto +2\nr0 += 1\ngoto -3\nexit")
    assert verdict.ok
    assert verdict.stats.processed < 30


def test_nested_may_goto_loops_converge() -> None:
    verdict = check(
        "r0 = 0\nr6 = 0\nmay_goto +7\nr7 = 0\nmay_goto +3\nr7 += 1\nr0 += r7\ngoto -4\n"
        "r6 += 1\ngoto -8\nexit"
    )
    assert verdict.ok
    assert verdict.stats.processed < 200


def test_what_a_may_goto_loop_changes_is_forgotten_unless_relied_on() -> None:
    loop = """
    r6 = 0
loop:
    may_goto done
    {check}
    r2 = r10
    r2 += r6
    r2 += -8
    *(u8 *)(r2 + 0) = 1
    r6 += 1
    goto loop
done:
    r0 = 0
    exit"""
    assert check(loop.format(check="if r6 > 7 goto done")).ok
    unsafe = check(loop.format(check="if r6 > 8 goto done"))
    assert unsafe.last == "invalid write to stack R2 off=0 size=1"


def test_precision_goes_round_the_loop() -> None:
    # r6 is relied on, and two turns later it is what r8 was: 0 or 100.
    verdict = check("""
    r6 = 0
    r7 = 0
    call bpf_get_prandom_u32
    r8 = 0
    if r0 == 0 goto loop
    r8 = 100
loop:
    may_goto done
    r1 = r10
    r1 += r6
    r1 += -8
    *(u8 *)(r1 + 0) = 0
    r6 = r7
    r7 = r8
    goto loop
done:
    r0 = 0
    exit""")
    assert verdict.reason in ("ptr_unbounded", "stack_range"), verdict.log


def test_a_may_goto_to_itself_is_an_endless_loop() -> None:
    assert check("r0 = 0\nmay_goto -1\nexit").reason == "infinite_loop"


# -- pruning -----------------------------------------------------------------------------------


def test_equal_paths_are_walked_once() -> None:
    diamonds = "\n".join(
        f"r2 = *(u32 *)(r1 + 0)\nif r2 == {i} goto +1\nr3 = {i}" for i in range(30)
    )
    verdict = check(diamonds + "\nr0 = 0\nexit", log_level=0)
    assert verdict.ok
    assert verdict.stats.processed < 1000


def test_a_scalar_that_decided_something_keeps_paths_apart() -> None:
    text = """
    r0 = *(u32 *)(r1 + 0)
    r6 = 8
    if r0 == 0 goto +1
    r6 = 16
    if r0 == 1 goto +1
    r7 = 0
    r2 = r10
    r2 += -16
    r2 += r6
    *(u64 *)(r2 + 0) = 0
    r0 = 0
    exit"""
    verdict = check(text, flags=STATE_FREQ)
    assert verdict.last == "invalid write to stack R2 off=0 size=8"


@pytest.mark.parametrize("through", ["r7 = r6", "*(u64 *)(r10 - 8) = r6\nr7 = *(u64 *)(r10 - 8)"])
def test_precision_follows_moves_spills_and_calls(through: str) -> None:
    text = f"""
    r0 = *(u32 *)(r1 + 0)
    r6 = 0
    if r0 == 0 goto +1
    r6 = 64
    if r0 == 1 goto +0
    {through}
    r1 = r7
    call same
    r1 = map_value(one)
    r1 += r0
    r0 = *(u8 *)(r1 + 0)
    exit
same:
    if r1 == 7 goto +0
    r0 = r1
    exit"""
    verdict = check(text, flags=STATE_FREQ)
    assert verdict.last == "R1 min value is outside of the allowed memory range"


def test_dead_registers_and_slots_do_not_matter() -> None:
    text = """
    r0 = *(u32 *)(r1 + 0)
    {keep}
    if r0 == 0 goto +1
    {keep}
    if r0 == 2 goto +0
    r0 = 0
    exit"""
    spill = check(text.format(keep="*(u64 *)(r10 - 8) = r1"), flags=STATE_FREQ)
    assert spill.ok
    assert check(text.format(keep="r9 = r10"), flags=STATE_FREQ).ok


def _random_program(rng: random.Random) -> str:
    lines = ["r6 = r1", *(f"r{r} = *(u32 *)(r6 + {4 * r})" for r in (0, 2, 3, 4))]
    lines += ["*(u64 *)(r10 - 8) = r2", "*(u64 *)(r10 - 16) = 0"]
    for _ in range(rng.randrange(4, 16)):
        a, b = rng.sample([0, 2, 3, 4], 2)
        k = rng.choice([0, 1, 3, 7, 8, 15])
        lines.append(
            rng.choice(
                [
                    f"if r{a} > {k} goto +1",
                    f"if r{a} == r{b} goto +1",
                    f"if w{a} s< {k} goto +2",
                    f"r{a} = r{b}",
                    f"r{a} &= {k}",
                    f"r{a} += {k}",
                    f"w{a} += w{b}",
                    f"r{a} = {k}",
                    f"*(u64 *)(r10 - {rng.choice([8, 16])}) = r{a}",
                    f"r{a} = *(u64 *)(r10 - {rng.choice([8, 16])})",
                ]
            )
        )
    lines += ["r5 = r10", "r5 += -16", f"r5 += r{rng.choice([0, 2, 3, 4])}"]
    lines += ["r0 = 0", "r0 = *(u8 *)(r5 + 0)", "exit"]
    return "\n".join(lines)


def test_pruning_never_accepts_what_a_full_walk_rejects(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = random.Random(20)
    pruned = 0
    before = cfg.check_program

    def unpruned(*args: object) -> object:
        found = before(*args)  # type: ignore[arg-type]
        found.prune = set()
        return found

    for _ in range(150):
        text = _random_program(rng)
        quick = check(text, flags=STATE_FREQ, log_level=0)
        if not quick.ok:
            continue
        with monkeypatch.context() as patch:
            patch.setattr(api, "check_program", unpruned)
            full = check(text, log_level=0)
        assert full.ok, text
        pruned += quick.stats.processed < full.stats.processed
    assert pruned > 5


# -- values ------------------------------------------------------------------------------------


def test_linked_scalars_learn_together() -> None:
    text = """
    r2 = *(u32 *)(r1 + 0)
    r3 = r2
    r3 += 4
    *(u64 *)(r10 - 32) = r2
    r0 = 0
    if r2 > 3 goto out
    r4 = r10
    r4 += r3
    r4 += -8
    *(u8 *)(r4 + 0) = 0
    r5 = *(u64 *)(r10 - 32)
    if r5 <= 3 goto out
    r0 = r9
out:
    exit"""
    verdict = check(text)
    assert verdict.ok, verdict.log


def test_a_mask_from_a_shift_is_walked_both_ways() -> None:
    verdict = check(
        "r2 = *(u32 *)(r1 + 0)\nr2 <<= 32\nr2 s>>= 63\nr2 &= 7\nif r2 == 0 goto +2\n"
        "if r2 == 7 goto +1\nr0 = r9\nr0 = 0\nexit"
    )
    assert verdict.ok, verdict.log


def test_a_comparison_of_pointers_can_lift_null() -> None:
    lookup = "*(u32 *)(r10 - 4) = 9\nr2 = r10\nr2 += -4\nr1 = map(hash)\ncall bpf_map_lookup_elem\n"
    text = lookup + "r6 = map_value(one)\nif r0 != r6 goto +1\nr7 = *(u64 *)(r0 + 0)\nr0 = 0\nexit"
    assert check(text).ok


def test_a_pointer_moved_far_lifts_null_only_before_7_3() -> None:
    text = (
        "r9 = *(u32 *)(r1 + 0)\n*(u32 *)(r10 - 4) = 9\nr2 = r10\nr2 += -4\n"
        "r1 = map(hash)\ncall bpf_map_lookup_elem\nr6 = map_value(one)\nr6 += r9\n"
        "if r0 != r6 goto +1\nr7 = *(u64 *)(r0 + 0)\nr0 = 0\nexit"
    )
    assert check(text).last == "R0 invalid mem access 'map_value_or_null'"
    assert check(text, kernel="6.18").ok


def test_an_arena_pointer_never_lifts_null() -> None:
    text = (
        "*(u32 *)(r10 - 4) = 9\nr2 = r10\nr2 += -4\nr1 = map(hash)\ncall bpf_map_lookup_elem\n"
        "r6 = map_value(arena)\nr6 = addr_space_cast(r6, 0x0, 0x1)\n"
        "if r0 != r6 goto +1\nr7 = *(u64 *)(r0 + 0)\nr0 = 0\nexit"
    )
    assert check(text).last == "R0 invalid mem access 'map_value_or_null'"


# -- subprogs ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("kernel", "frames"), [("6.18", 8), ("7.3", 16)])
def test_frames(kernel: str, frames: int) -> None:
    def nested(count: int) -> str:
        calls = "\n".join(f"call f{i + 1}\nexit\nf{i + 1}:" for i in range(count - 1))
        return f"{calls}\nr0 = 0\nexit"

    assert check(nested(frames), kernel=kernel).ok
    verdict = check(nested(frames + 1), kernel=kernel)
    assert verdict.last == f"the call stack of {frames + 1} frames is too deep"


def test_a_callee_reaches_its_callers_stack_only_through_pointers() -> None:
    text = """
    *(u64 *)(r10 - 8) = 1
    r1 = r10
    r1 += -8
    call f
    r0 = *(u64 *)(r10 - 8)
    r1 = map_value(one)
    r1 += r0
    r0 = *(u8 *)(r1 + {off})
    exit
f:
    *(u64 *)(r1 + 0) = 15
    r0 = 0
    exit"""
    assert check(text.format(off=0)).ok
    assert check(text.format(off=1)).reason == "min_outside"


# -- what is not followed ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("r1 = map(one)\nr0 = *(u32 *)(r1 + 0)\nexit", "loads from struct bpf_array of the kernel"),
        ("call 153\nexit", "helper #153"),
    ],
)
def test_what_the_kernel_would_go_on_with(text: str, what: str) -> None:
    if "call 153" in text:
        verdict = check("r0 = 0\nexit", insns=(Insn(0x85, imm=153), Insn(0x95)))
    else:
        verdict = check(text)
    assert verdict.last.startswith(f"not supported yet: {what}")
    assert verdict.errno == 95


# -- any bytes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("opcode", [0x16, 0x06, 0x15, 0x05, 0xE5])
def test_no_jump_leaves_its_subprog(opcode: int) -> None:
    jump = Insn(opcode, imm=3) if opcode == 0x06 else Insn(opcode, off=3)
    code = (Insn(0xB7), jump, Insn(0x85, src=1, imm=1), Insn(0x95), Insn(0xB7), Insn(0x95))
    verdict = check("r0 = 0\nexit", insns=code)
    assert verdict.last == "jump out of range from insn 1 to 5"


def test_any_insns_get_a_verdict() -> None:
    rng = random.Random(4)
    seen = set()
    for _ in range(400):
        insns = [Insn(0xB7, reg, imm=rng.randrange(9)) for reg in (0, 2, 3)]
        for _ in range(rng.randrange(1, 6)):
            opcode = rng.choice([*range(0x04, 0xDF, 8), *range(0x05, 0xE6, 8), *range(256)])
            dst, src = rng.choices([0, 1, 2, 3, 10], k=2)
            off, imm = rng.choice([0, 1, -8]), rng.choice([0, 1, 16, 257])
            insns.append(Insn(opcode, dst, src, off, imm))
        insns += [Insn(0xB7), Insn(0x95)]
        for kernel in ("6.18", "7.3"):
            verdict = check("r0 = 0\nexit", kernel=kernel, log_level=7, insns=tuple(insns))
            assert verdict.ok == (verdict.errno == 0) == (verdict.xlated is not None)
            seen.add(verdict.reason)
    assert len(seen) > 20


# -- complaints --------------------------------------------------------------------------------


def _raised() -> list[tuple[str, set[str]]]:
    """Return (reason, names of the values given) for each `Reject(Reason.X, ...)` in the source."""
    found = []
    for path in sorted(Path(verifier.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and ast.unparse(node.func) == "Reject"):
                continue
            names = {kw.arg for kw in node.keywords if kw.arg} - {"before", "after"}
            reasons = [n.attr for n in ast.walk(node.args[0]) if isinstance(n, ast.Attribute)]
            found += [(r, names) for r in reasons if r in Reason.__members__]
    return found


def test_every_complaint_gets_the_values_its_words_need() -> None:
    raised = _raised()
    for name, given in raised:
        wanted = {field for _, field, _, _ in Formatter().parse(Reason[name].template) if field}
        assert given == wanted, name
    assert {name for name, _ in raised} == set(Reason.__members__)


# -- programs on plain memory ------------------------------------------------------------------


def on_memory(text: str, size: int = 16, log_level: int = 1) -> Verdict:
    return check(text, log_level=log_level, mem_size=size)


def test_memory_is_typed_by_its_size() -> None:
    accepted = on_memory("r0 = *(u64 *)(r1 + 8)\n*(u32 *)(r1 + 0) = r2\nexit", log_level=2)
    assert accepted.ok
    assert "0: R1=mem(sz=16) R2=16 R10=fp0\n" in accepted.log
    assert accepted.xlated is not None
    assert [aux.access for aux in accepted.xlated.aux[:2]] == [RegionKind.MEM] * 2
    beyond = on_memory("r0 = *(u64 *)(r1 + 9)\nexit")
    assert "invalid access to memory, mem_size=16 off=9 size=8\n" in beyond.log
    assert beyond.last == "R1 min value is outside of the allowed memory range"
    index = "r0 = *(u8 *)(r1 + 0)\nr0 &= {}\nr1 += r0\nr0 = *(u8 *)(r1 + 0)\nexit"
    assert on_memory(index.format(15)).ok
    assert on_memory(index.format(31)).reason == "max_outside"


def test_no_memory_is_no_pointer() -> None:
    assert on_memory("r0 = *(u8 *)(r1 + 0)\nexit", 0).last == "R1 invalid mem access 'scalar'"
    assert on_memory("r0 = r2\nexit", 0).ok


def test_a_type_of_its_own_may_run_on_memory() -> None:
    program = replace(build("r0 = r2\nexit"), prog_type="mem")
    rules = KernelRules.of()
    verdict = verifier.verify(program, (), REGISTRY, map_types=MAP_TYPES, rules=rules, mem_size=8)
    assert verdict.ok


# -- found by review ---------------------------------------------------------------------------


def test_a_fetching_atomic_keeps_a_frame_address_in_r0() -> None:
    verdict = check(
        """
    r6 = *(u32 *)(r1 + 0)
    r7 = 3
    if r6 == 5 goto far
    goto near
far:
    r7 = 100
near:
    *(u64 *)(r10 - 8) = r7
    r0 = r10
    r2 = 1
    *(u64 *)(r10 - 16) = 0
    r2 = atomic64_fetch_add((u64 *)(r10 - 16), r2)
    r7 = 0
    goto on
on:
    r4 = *(u64 *)(r0 - 8)
    r1 = map_value(one)
    r1 += r4
    r0 = *(u8 *)(r1 + 0)
    exit""",
        flags=STATE_FREQ,
    )
    assert verdict.last == "R1 min value is outside of the allowed memory range"


LOOKUP = "*(u32 *)(r10 - 4) = 9\nr2 = r10\nr2 += -4\nr1 = map(hash)\ncall bpf_map_lookup_elem\n"
PACKET = """
    r2 = *(u32 *)(r1 + 0)
    r3 = *(u32 *)(r1 + 4)
    r6 = *(u32 *)(r1 + 12)
    r6 &= 7
    r4 = r2
    r4 += 22
    r0 = 0
    if r4 > r3 goto out
    {use}
out:
    exit"""
VARIABLE_ZERO = """
    r2 = *(u32 *)(r1 + 0)
    r2 &= 7
    *(u64 *)(r10 - 8) = 0
    r2 += r10
    r0 = *(u8 *)(r2 - 8)
    r3 = map_value(one)
    r3 += r0
    r0 = *(u8 *)(r3 + 15)
    exit"""


@pytest.mark.parametrize(
    ("text", "prog_type", "before"),
    [
        (
            LOOKUP + "r1 = 0\nif r0 == r1 goto +1\nr0 = *(u64 *)(r0 + 0)\nr0 = 0\nexit",
            "socket_filter",
            "R0 invalid mem access 'map_value_or_null'",
        ),
        (
            "r0 = *(u32 *)(r1 + 0)\nif r0 >= r0 goto +1\nr0 = *(u64 *)(r0 + 0)\nr0 = 0\nexit",
            "socket_filter",
            "R0 invalid mem access 'scalar'",
        ),
        (
            PACKET.format(use="r2 += 8\nr2 -= r6\nr0 = *(u8 *)(r2 + 13)"),
            "xdp",
            "R2 min value is negative, either use unsigned index or do a if (index >=0) check.",
        ),
        (
            VARIABLE_ZERO,
            "socket_filter",
            "R3 max value is outside of the allowed memory range",
        ),
    ],
)
def test_what_7_3_accepts_and_6_18_does_not(text: str, prog_type: str, before: str) -> None:
    accepted = check(text, prog_type)
    assert accepted.ok, accepted.log
    assert check(text, prog_type, kernel="6.18").last == before


def test_a_packet_pointer_moved_down_keeps_no_more_than_was_proven() -> None:
    use = "r2 += 8\nr2 -= r6\nr0 = *(u8 *)(r2 + {})"
    assert check(PACKET.format(use=use.format(13)), "xdp").ok
    assert not check(PACKET.format(use=use.format(14)), "xdp").ok
    assert check(PACKET.format(use=use.format(-1)), "xdp").ok
    assert not check(PACKET.format(use=use.format(-2)), "xdp").ok


@pytest.mark.parametrize(
    ("text", "old", "new"),
    [
        ("r1 = map_value(one)\n*(u32 *)(r1 + 2) = 0", "value access off 0+0+2", "off 0+2"),
        ("r0 = *(u32 *)(r1 + 2)", "context access off 0+0+2", "off 0+2"),
    ],
)
def test_strict_alignment_is_for_all_memory(text: str, old: str, new: str) -> None:
    program = text + "\nr0 = 0\nexit"
    assert check(program, kernel="6.18", flags=1).last == f"misaligned {old} size 4"
    assert check(program, flags=1).last.endswith(f"{new} size 4")


@pytest.mark.parametrize(
    ("guard", "last"),
    [
        ("r1 = 1\nif r1 != 1 goto skip", "not supported yet: kfunc bpf_unheard_of"),
        ("r1 = 0\nif r1 != 1 goto skip", ""),
    ],
)
def test_a_missing_weak_kfunc_matters_where_it_is_reached(guard: str, last: str) -> None:
    verdict = check(
        f"{guard}\ncall bpf_unheard_of\nskip:\nr0 = 0\nexit",
        weak_kfuncs=frozenset({"bpf_unheard_of"}),
    )
    assert (verdict.last, verdict.ok) == (last, not last)
