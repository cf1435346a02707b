"""The kernel's formatting rules for programs."""

from __future__ import annotations

import pytest

from bpfvm.memory import AddressSpace, RegionKind
from bpfvm.printk import c_string, clip, format_text

U64 = 2**64


@pytest.fixture(scope="module")
def space() -> AddressSpace:
    return AddressSpace()


@pytest.mark.parametrize(
    ("fmt", "args", "expected"),
    [
        ("plain\ttext\n", [], "plain\ttext\n"),
        ("100%%", [], "100%"),
        ("%d %i", [U64 - 1, 5], "-1 5"),
        ("%d", [0x1_8000_0000], "-2147483648"),  # an int: the low 32 bits
        ("%ld %lld", [U64 - 2, 1 << 40], "-2 1099511627776"),
        ("%u", [U64 - 1], "4294967295"),
        ("%lu", [U64 - 1], "18446744073709551615"),
        ("%x %X %lx", [0xABC, 0xABC, 0xDEADBEEFCAFE], "abc ABC deadbeefcafe"),
        ("[%5d] [%-5d] [%05d]", [42, 42, U64 - 42], "[   42] [42   ] [-0042]"),
        ("[%+d] [% d] [%+u]", [7, 7, 7], "[+7] [ 7] [7]"),
        ("[%08x] [%-08x]", [255, 255], "[000000ff] [ff      ]"),
        ("%c%c", [ord("o"), 0x100 + ord("k")], "ok"),
        ("[%3c]", [ord("x")], "[  x]"),
        ("%p", [0x1234], "0000000000001234"),
        ("%px,%pK.", [U64 - 1, 1], "ffffffffffffffff,0000000000000001."),
        ("%ps %pB", [16, 17], "0x10 0x11"),
        ("%pi4 %pI4", [0, 0], "000.000.000.000 0.0.0.0"),  # unreadable: zeros
    ],
)
def test_formats(space: AddressSpace, fmt: str, args: list[int], expected: str) -> None:
    assert format_text(fmt.encode(), args, space) == expected.encode()


@pytest.mark.parametrize(
    "fmt",
    [
        "%",
        "%q",
        "%f",
        "%hd",
        "%llld",
        "%#x",
        "%.3d",
        "%*d",
        "%n",
        "%5%",
        "%pX",
        "%pi5",
        "%sx",
        "%pk",
        "%p1",
        "%l",
        "bell\a",
        "caf\u00e9",
        "\x7f",
    ],
)
def test_what_is_no_format(space: AddressSpace, fmt: str) -> None:
    assert format_text(fmt.encode(), [1, 2, 3], space) is None


def test_no_more_conversions_than_arguments(space: AddressSpace) -> None:
    assert format_text(b"%d %d", [1], space) is None
    assert format_text(b"%d", [1, 2, 3], space) == b"1"


def test_strings_and_addresses_are_read_from_memory(space: AddressSpace) -> None:
    region = space.add(64, RegionKind.MEM)
    region.view[:6] = b"hello\0"
    region.view[16:20] = bytes([192, 168, 0, 7])
    region.view[32:48] = bytes(range(16))
    at = region.base
    assert format_text(b"%s, %pks; %pus", [at, at + 1, at + 4], space) == b"hello, ello; o"
    assert format_text(b"[%8s] [%-8s]", [at, at], space) == b"[   hello] [hello   ]"
    assert format_text(b"<%s>", [16], space) == b"<>"
    assert format_text(b"%pI4 %pi4", [at + 16] * 2, space) == b"192.168.0.7 192.168.000.007"
    assert format_text(b"%pI6", [at + 32], space) == b"0001:0203:0405:0607:0809:0a0b:0c0d:0e0f"
    assert format_text(b"%pi6", [at + 32], space) == b"000102030405060708090a0b0c0d0e0f"


def test_c_strings_end_at_a_nul_or_the_limit(space: AddressSpace) -> None:
    region = space.add(4, RegionKind.MEM)
    region.view[:] = b"ab\0c"
    assert c_string(space, region.base, 100) == b"ab"
    assert c_string(space, region.base, 1) == b"a"
    assert c_string(space, region.base + 3, 100) is None  # runs out of its region


def test_clip_leaves_room_for_the_nul() -> None:
    assert len(clip(b"x" * 5000)) == 1023
    assert clip(b"short") == b"short"
