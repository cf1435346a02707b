"""Kfuncs on strings: what they find, and what they say of strings that are nowhere or endless."""

from __future__ import annotations

from collections.abc import Callable
from errno import E2BIG, EFAULT, ENOENT, ERANGE

import pytest
from interp_kit import EXIT, Bench

from bpfvm import kfuncs_text as k
from bpfvm.memory import RegionKind
from bpfvm.proto import Registry
from bpfvm.runtime import RunContext

NULL, LAST = 0, (1 << 64) - 1


@pytest.fixture
def bench() -> Bench:
    return Bench(Registry([k]))


@pytest.fixture
def run(bench: Bench) -> RunContext:
    return bench.context(bench.xlated((EXIT,)))


@pytest.fixture
def text(bench: Bench) -> Callable[[str], int]:
    def place(value: str) -> int:
        data = value.encode("latin-1") + b"\0"
        region = bench.space.add(len(data), RegionKind.MEM)
        region.view[:] = data
        return region.base

    return place


Text = Callable[[str], int]


@pytest.mark.parametrize(
    ("a", "b", "same", "folded"),
    [
        ("", "", 0, 0),
        ("arena", "arena", 0, 0),
        ("arena", "areno", -1, -1),
        ("arena", "ar", 1, 1),
        ("Arena", "aRENA", -1, 0),
        ("\xc4", "\xe4", -1, 0),
        ("\xd7", "\xf7", -1, -1),
        ("\xff", "\x01", 1, 1),
    ],
)
def test_comparing(run: RunContext, text: Text, a: str, b: str, same: int, folded: int) -> None:
    first, second = text(a), text(b)
    assert k.bpf_strcmp(run, first, second) == same
    assert k.bpf_strcasecmp(run, first, second) == folded
    assert k.bpf_strncasecmp(run, first, second, 100) == folded


def test_comparing_the_beginning(run: RunContext, text: Text) -> None:
    a, b = text("PAGES"), text("pagoda")
    assert [k.bpf_strncasecmp(run, a, b, n) for n in (0, 3, 4)] == [0, 0, -1]


def test_finding_a_character(run: RunContext, text: Text) -> None:
    s = text("banana")
    assert k.bpf_strchr(run, s, ord("a")) == 1
    assert k.bpf_strchr(run, s, 0x100 | ord("n")) == 2
    assert k.bpf_strchr(run, s, 0) == 6
    assert k.bpf_strchr(run, s, ord("x")) == -ENOENT
    assert k.bpf_strchrnul(run, s, ord("x")) == 6
    assert k.bpf_strnchr(run, s, 2, ord("n")) == -ENOENT
    assert k.bpf_strnchr(run, s, 3, ord("n")) == 2
    assert k.bpf_strrchr(run, s, ord("a")) == 5
    assert k.bpf_strrchr(run, s, ord("x")) == -ENOENT
    # A whole int is compared.
    assert k.bpf_strrchr(run, s, 0x100 | ord("a")) == -ENOENT


def test_lengths(run: RunContext, text: Text) -> None:
    s = text("banana")
    assert k.bpf_strlen(run, s) == 6
    assert [k.bpf_strnlen(run, s, n) for n in (0, 4, 6, 7)] == [0, 4, 6, 6]
    assert k.bpf_strspn(run, s, text("ab")) == 2
    assert k.bpf_strspn(run, s, text("")) == 0
    assert k.bpf_strcspn(run, s, text("n")) == 2
    assert k.bpf_strcspn(run, s, text("")) == 6


def test_finding_a_string(run: RunContext, text: Text) -> None:
    s = text("banana")
    assert k.bpf_strstr(run, s, text("nan")) == 2
    assert k.bpf_strstr(run, s, text("")) == 0
    assert k.bpf_strstr(run, s, text("nab")) == -ENOENT
    assert k.bpf_strcasestr(run, s, text("NAN")) == 2
    assert k.bpf_strnstr(run, s, text("nan"), 5) == 2
    assert k.bpf_strnstr(run, s, text("nan"), 4) == -ENOENT
    assert k.bpf_strncasestr(run, s, text("Ana"), 4) == 1
    assert k.bpf_strnstr(run, s, text(""), 0) == 0


def test_strings_that_are_nowhere(run: RunContext, text: Text) -> None:
    s = text("x")
    assert k.bpf_strlen(run, NULL) == -ERANGE
    assert k.bpf_strlen(run, LAST) == -EFAULT
    assert k.bpf_strcmp(run, s, 1) == -ERANGE
    assert k.bpf_strcmp(run, s, LAST) == -EFAULT
    assert k.bpf_strstr(run, NULL, s) == -ERANGE
    assert k.bpf_strspn(run, s, LAST) == -EFAULT
    assert k.bpf_strrchr(run, LAST, 0) == -EFAULT


def test_no_string_is_followed_without_end(run: RunContext, text: Text) -> None:
    s, one = text("a" * 65537), text("a")
    assert k.bpf_strlen(run, s) == -E2BIG
    assert k.bpf_strnlen(run, s, 65537) == -E2BIG
    assert k.bpf_strchrnul(run, s, ord("b")) == -E2BIG
    assert k.bpf_strrchr(run, s, ord("a")) == -E2BIG
    assert k.bpf_strcmp(run, s, s) == -E2BIG
    assert k.bpf_strspn(run, s, one) == -E2BIG
    assert k.bpf_strcspn(run, text("b"), s) == -E2BIG
