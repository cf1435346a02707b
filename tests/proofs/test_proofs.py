"""The quick part of the proofs; `prove.py` does all of them, and `verifier/PROOFS.md` tells."""

from __future__ import annotations

import importlib
import json
import random
import re
from functools import cache
from typing import Any

import prove
import pytest
from exhaustive import Unsound, World
from loader import load, width_module

from bpfvm.isa import AluOp, JmpOp
from verifier import width

DOMAINS = ("6.18", "7.3")


def test_the_widths_are_the_domains_own() -> None:
    ours = width_module(64, 32, 8)
    rng = random.Random(1)
    for name in width.__all__:
        mine, theirs = getattr(ours, name), getattr(width, name)
        if isinstance(theirs, int):
            assert mine == theirs
            continue
        for _ in range(100):
            x, bits = rng.getrandbits(64), rng.choice((16, 32, 64))
            args = (x, bits) if name in ("sext", "bswap") else (x,)
            assert mine(*args) == theirs(*args)


def test_the_sources_are_loaded_at_other_widths() -> None:
    m = load(8, 4, 1)
    assert m.bounds.UNKNOWN.umax == 255
    assert m.cnum_alu.TRANSFER[AluOp.ADD](8, m.bounds.const(200), m.bounds.const(100)).umax == 44


# Exhaustively


@cache
def world(wide: int) -> World:
    return World(wide, wide // 2)


@cache
def scalars(wide: int, domain: str) -> list[Any]:
    """Return all scalars of words of two bits; of four bits some of 6.18's many."""
    w = world(wide)
    if wide == 2 or domain == "7.3":
        return w.scalars(domain)
    rng = random.Random(1)
    b = w.m.bounds
    found: set[Any] = set()
    signed, unsigned = w.all_ranges(w.size)
    low_signed, low_unsigned = w.all_ranges(w.low_size)
    while len(found) < 500:
        parts = (
            rng.choice(w.tnums),
            *map(rng.choice, (signed, unsigned, low_signed, low_unsigned)),
        )
        found.add(b.settle(b.Scalar(*(x for part in parts for x in part))))
    return sorted(found)


@pytest.mark.parametrize("domain", DOMAINS)
def test_all_there_is_in_two_bits(domain: str) -> None:
    for name, job in world(2).jobs(domain):
        tried, _ = job(scalars(2, domain))
        assert tried, name


@pytest.mark.parametrize("op", AluOp)
@pytest.mark.parametrize("domain", DOMAINS)
def test_arithmetic_in_four_bits(domain: str, op: AluOp) -> None:
    s = scalars(4, domain)
    for bits in (2, 4):
        assert world(4).check_alu(domain, op, bits, s, s, stride=len(s) // 2) > 800


@pytest.mark.parametrize("op", JmpOp)
@pytest.mark.parametrize("domain", DOMAINS)
def test_branches_in_four_bits(domain: str, op: JmpOp) -> None:
    s = scalars(4, domain)
    for bits in (2, 4):
        assert world(4).check_compare(domain, op, bits, s, s, stride=len(s) // 2) > 800


@pytest.mark.parametrize("domain", DOMAINS)
def test_moves_in_four_bits(domain: str) -> None:
    for name, run, spec in world(4).unaries(domain):
        assert world(4).check_unary(run, spec, scalars(4, domain)) > 400, name


def test_circular_sync_in_four_bits() -> None:
    assert world(4).check_sync("7.3") == 253773


def test_a_lost_member_is_noticed() -> None:
    w = World(2, 1)
    s = w.scalars("7.3")
    with pytest.raises(Unsound):
        w.check_binary(lambda a, b: a, lambda x, y: y, s, s)
    with pytest.raises(Unsound):
        w.check_unary(lambda a: a, lambda x: x ^ 1, s)
    w.m.cnum_branch.comparison = lambda op: lambda width, a, b: True
    with pytest.raises(Unsound):
        w.check_compare("7.3", JmpOp.JLT, 2, s, s)


# By the solver, at 64 bits

#: Functions whose proofs take a second or so.
QUICK = (
    r"both tnum\.(?!arshift$)|7\.3 (cnum\.|range|sync: (_by_tnum|_by_each|_only|the whole)"
    r"|(and|or|xor|mov)\d|zext|coerce|movsx64|end|jset)"
    r"|6\.18 (sync: (_by_o|_by_low)|(and|or|xor|mov)\d|zext|coerce|movsx64|end)"
)


@pytest.fixture(scope="module")
def smt() -> Any:
    pytest.importorskip("z3", reason="the solver is in the extra `dev`")
    return importlib.import_module("smt")


@pytest.mark.parametrize("part", range(2))
def test_what_is_proved_quickly(smt: Any, part: int) -> None:
    tasks = [t for t in smt.tasks("64") if re.search(QUICK, f"{t.domain} {t.function}")]
    assert len(tasks) > 60
    for task in tasks[part::2]:
        proof = task.run(60)
        assert proof.proven, (task.domain, task.function, proof)


def test_a_false_claim_is_refuted(smt: Any) -> None:
    kit = smt.plain_kit()
    kit.m.tnum.add = lambda a, b: kit.m.tnum.Tnum(a.value + b.value & ~(a.mask | b.mask), a.mask)
    (task,) = [t for t in smt._tnum_tasks(kit) if t.function == "tnum.add"]
    proof = task.run(60)
    assert not proof.proven
    assert proof.counterexample


def test_a_false_claim_about_a_range_is_refuted(smt: Any) -> None:
    kit = smt.plain_kit()
    whole = kit.m.cnum.intersect
    kit.m.cnum.intersect = lambda a, b, ones: whole(a, b, ones) and (b[0], 0)
    engine = importlib.import_module("symbolic").Engine(60)
    proof = engine.prove(lambda e: smt.cnum_function(kit, "intersect", False, e))
    assert proof.counterexample


# The docs


def test_the_table_is_up_to_date() -> None:
    assert prove.TABLE.read_text() == prove.table()


def test_nothing_in_the_table_is_false() -> None:
    rows = json.loads(prove.RESULTS.read_text())
    for found in rows.values():
        for methods in found.values():
            assert not any(result.get("counterexample") for result in methods.values())
