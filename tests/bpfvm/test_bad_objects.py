"""Damaged and hostile objects: each loads, or is one clear LoadError, soon and in little memory."""

from __future__ import annotations

import random
import struct
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from elf_kit import (
    EXAMPLES,
    FIELDS,
    edit_section,
    patch,
    section_bytes,
    section_headers,
    section_names,
)

from bpfvm.errors import LoadError
from bpfvm.loader import load_elf, load_path
from bpfvm.program import ObjectFile

OBJECTS = sorted(EXAMPLES.glob("*.bpf.o"))
MUTANTS_OF_A_KIND = 20
#: Far above what a small object takes, far below what a runaway loop would.
SECONDS, MIB = 5.0, 32
SYM = struct.Struct("<IBBHQQ")


def attempt(data: bytes, origin: str = "bad.o") -> ObjectFile | LoadError:
    """Load *data*; whatever comes must be told within bounds and in one line."""
    tracemalloc.start()
    start = time.monotonic()
    outcome: ObjectFile | LoadError
    try:
        outcome = load_elf(data, origin)
    except LoadError as err:
        outcome = err
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.monotonic() - start < SECONDS
    assert peak < MIB << 20
    errors = [outcome] if isinstance(outcome, LoadError) else list(outcome.broken.values())
    for text in map(str, errors):
        assert text.startswith(f"{origin}: ")
        assert "\n" not in text
        assert len(text) < 5000
    return outcome


def refused(data: bytes) -> str:
    outcome = attempt(data)
    assert isinstance(outcome, LoadError)
    return str(outcome).removeprefix("bad.o: ")


def broken(data: bytes, name: str) -> str:
    """The error of one program of an object that loads."""
    outcome = attempt(data)
    assert isinstance(outcome, ObjectFile)
    return str(outcome.broken[name]).removeprefix(f"bad.o: program '{name}': ")


# -- mutants ------------------------------------------------------------------------------------


def flip_bytes(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def flip_elf_data(data: bytes, rng: random.Random) -> bytes:
    """Flip bits where the loader reads: not in the debug sections."""
    names = [n for n in section_names(data) if n and not n.startswith((".debug", ".rel.debug"))]
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        start, body = section_bytes(data, rng.choice(names))
        if body and start + len(body) <= len(data):
            out[start + rng.randrange(len(body))] ^= 1 << rng.randrange(8)
    return bytes(out)


def truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(1, len(data))]


def edit_header(data: bytes, rng: random.Random) -> bytes:
    at, fields = rng.choice(section_headers(data))
    value = rng.choice((0, 1, 7, 0xFFFF, 1 << 31, rng.randrange(1 << 12), rng.randrange(1 << 64)))
    name = rng.choice(FIELDS)
    wide = name in ("flags", "addr", "offset", "size", "align", "entsize")
    offset = at + struct.calcsize("<" + "".join("Q" if f in _WIDE else "I" for f in _before(name)))
    size = 8 if wide else 4
    assert fields[name] == int.from_bytes(data[offset : offset + size], "little")
    return patch(data, offset, (value % (1 << 8 * size)).to_bytes(size, "little"))


_WIDE = ("flags", "addr", "offset", "size", "align", "entsize")


def _before(name: str) -> tuple[str, ...]:
    return FIELDS[: FIELDS.index(name)]


def splice(data: bytes, rng: random.Random) -> bytes:
    """Copy a piece of the file over another place."""
    size = rng.randrange(1, 64)
    source, target = (rng.randrange(len(data) - size) for _ in range(2))
    return patch(data, target, data[source : source + size])


MUTATORS = (flip_bytes, flip_elf_data, truncate, edit_header, splice)


def mutants() -> Iterator[bytes]:
    for path in OBJECTS:
        data = path.read_bytes()
        for mutate in MUTATORS:
            rng = random.Random(f"{path.name} {mutate.__name__}")
            for _ in range(MUTANTS_OF_A_KIND):
                yield mutate(data, rng)


def test_mutants_load_or_are_refused() -> None:
    outcomes = [attempt(data) for data in mutants()]
    loaded = sum(isinstance(o, ObjectFile) for o in outcomes)
    assert len(outcomes) >= 200
    # Both ways must be taken, or the mutants are of no use.
    assert len(outcomes) // 10 < loaded < len(outcomes) * 9 // 10


def test_every_truncation_of_an_object_is_refused() -> None:
    data = (EXAMPLES / "repaired.bpf.o").read_bytes()
    for size in range(1, len(data), 61):
        assert isinstance(attempt(data[:size]), LoadError)


# -- one lie at a time --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def good() -> bytes:
    return (EXAMPLES / "arena_heap.bpf.o").read_bytes()


@pytest.mark.parametrize(
    ("at", "new", "message"),
    [
        (4, b"\x01", "not a 64-bit ELF file: class 1"),
        (5, b"\x02", "big-endian ELF files are not supported"),
        (5, b"\x07", "byte order 7 ELF files are not supported"),
        (16, b"\x02\x00", "not a relocatable object: type ET_EXEC"),
        (18, b"\x3e\x00", "not a BPF object: machine EM_X86_64"),
        (18, b"\x39\x30", "not a BPF object: machine 12345"),
        (40, bytes(8), "no section headers"),
        (40, b"\xff" * 8, "truncated: 31 section headers at 0xffffffffffffffff end past the file"),
        (58, bytes(2), "section headers of 0 bytes, expected 64"),
        (60, bytes(2), "no section headers"),
        (60, b"\xff\xff", "truncated: 65535 section headers"),
        (62, bytes(2), "section name table: index 0 of 31 sections"),
        (62, b"\xff\xff", "section name table: index 65535 of 31 sections"),
    ],
)
def test_lies_in_the_elf_header(good: bytes, at: int, new: bytes, message: str) -> None:
    count = int.from_bytes(good[60:62], "little")
    assert refused(patch(good, at, new)).startswith(message.replace("31 sec", f"{count} sec"))


def test_a_big_endian_object_is_named(good: bytes) -> None:
    data = patch(patch(good, 5, b"\x02"), 18, b"\x00\xf7")
    assert refused(data) == "big-endian BPF objects are not supported"


@pytest.mark.parametrize("name", [".symtab", ".BTF", "syscall", ".relsyscall", ".addr_space.1"])
@pytest.mark.parametrize("size", [1 << 20, 1 << 40, (1 << 64) - 1])
def test_a_section_is_not_larger_than_the_file(good: bytes, name: str, size: int) -> None:
    text = refused(edit_section(good, name, size=size))
    assert f"'{name}': {size:#x} bytes at" in text
    assert "end past the file" in text


def test_sections_do_not_overlap(good: bytes) -> None:
    _, fields = section_headers(good)[section_names(good)["syscall"]]
    text = refused(edit_section(good, "license", offset=fields["offset"], size=8))
    assert "overlap at" in text


@pytest.mark.parametrize("size", [1 << 31, 1 << 40, (1 << 64) - 1])
def test_a_huge_bss_is_refused_without_making_it(good: bytes, size: int) -> None:
    assert refused(edit_section(good, ".bss", size=size)) == (
        f"section '.bss': {size} bytes, more than the 2147483647 that a map value may have"
    )


def test_a_large_bss_takes_no_memory_to_load(good: bytes) -> None:
    outcome = attempt(edit_section(good, ".bss", size=1 << 30))
    assert isinstance(outcome, ObjectFile)
    assert [m.value_size for m in outcome.maps if m.name == "bad.bss"] == [1 << 30]


def test_huge_alignment_changes_nothing(good: bytes) -> None:
    for align in (3, 1 << 40, (1 << 64) - 1):
        outcome = attempt(edit_section(good, "syscall", align=align))
        assert isinstance(outcome, ObjectFile)
        assert not outcome.broken


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        (".symtab", {"link": 0}, "section '.symtab': string table 0 does not exist"),
        (".symtab", {"link": 9999}, "section '.symtab': string table 9999 does not exist"),
        (".symtab", {"type": 1}, "0 symbol tables, expected one"),
        (".strtab", {"type": 1}, "section name table: section 1 is SHT_PROGBITS"),
        (".BTF", {"size": 10}, ".BTF: truncated header: 10 of 24 bytes"),
        (".BTF.ext", {"size": 9}, ".BTF.ext: truncated header: 9 of 24 bytes"),
        (
            ".addr_space.1",
            {"type": 8},
            "section '.addr_space.1': SHT_NOBITS, expected SHT_PROGBITS",
        ),
        (".maps", {"size": 8}, "map 'heap': 24 bytes at 0x0 end past section '.maps'"),
    ],
)
def test_lies_in_section_headers(
    good: bytes, section: str, changes: dict[str, int], message: str
) -> None:
    assert message in refused(edit_section(good, section, **changes))


def symbol_at(data: bytes, name: str) -> int:
    """The file offset of a symbol."""
    start, table = section_bytes(data, ".symtab")
    base, _ = section_bytes(data, ".strtab")
    for i, (name_off, *_rest) in enumerate(SYM.iter_unpack(table)):
        if data[base + name_off : data.index(b"\0", base + name_off)] == name.encode():
            return start + i * SYM.size
    raise AssertionError(name)


def edit_symbol(
    data: bytes,
    name: str,
    *,
    shndx: int | None = None,
    value: int | None = None,
    size: int | None = None,
) -> bytes:
    at = symbol_at(data, name)
    name_off, info, other, old_shndx, old_value, old_size = SYM.unpack_from(data, at)
    new = (
        name_off,
        info,
        other,
        old_shndx if shndx is None else shndx,
        old_value if value is None else value,
        old_size if size is None else size,
    )
    return patch(data, at, SYM.pack(*new))


def test_symbols_have_a_section_and_a_name(good: bytes) -> None:
    assert "'root': section index 500 of" in refused(edit_symbol(good, "root", shndx=500))
    data = patch(good, symbol_at(good, "root"), struct.pack("<I", 1 << 31))
    assert "bad name offset 0x80000000" in refused(data)


def test_variables_lie_in_their_section(good: bytes) -> None:
    text = refused(edit_symbol(good, "root", size=1 << 40))
    assert text == (
        "symbol 'root': 1099511627776 bytes at 0x0 end past section '.addr_space.1'".replace(
            "0x0", f"{SYM.unpack_from(good, symbol_at(good, 'root'))[4]:#x}"
        )
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 1 << 40}, "bytes 0x0 to 0x10000000000 are not whole insns of section 'syscall'"),
        ({"value": 4}, "bytes 0x4 to "),
        ({"size": 12}, "bytes 0x0 to 0xc are not whole insns"),
        ({"size": 0}, "no insns"),
    ],
)
def test_programs_lie_in_their_section(good: bytes, changes: dict[str, int], message: str) -> None:
    assert broken(edit_symbol(good, "heap_insert", **changes), "heap_insert").startswith(message)


def reloc_at(data: bytes, index: int) -> int:
    start, _ = section_bytes(data, ".relsyscall")
    return start + 16 * index


@pytest.mark.parametrize("offset", [3, 1 << 20, 1 << 62])
def test_relocations_lie_in_the_section(good: bytes, offset: int) -> None:
    data = patch(good, reloc_at(good, 0), struct.pack("<Q", offset))
    text = broken(data, "heap_insert")
    assert text.startswith(f"section '.relsyscall': relocation at {offset:#x} of")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 17}, "section '.relsyscall': 17 bytes are not whole relocations"),
        ({"type": 4}, "section '.relsyscall': SHT_RELA is not used by BPF"),
    ],
)
def test_relocations_are_whole(good: bytes, changes: dict[str, int], message: str) -> None:
    assert broken(edit_section(good, ".relsyscall", **changes), "heap_insert") == message


def test_section_names_lie_in_their_table(good: bytes) -> None:
    at, _ = section_headers(good)[section_names(good)[".BTF"]]
    data = patch(good, at, struct.pack("<I", 1 << 30))
    assert "bad name offset 0x40000000" in refused(data)


@pytest.mark.parametrize(
    ("info", "message"),
    [
        (5000 << 32 | 1, "symbol 5000 of "),
        (1, "relocation against 'section index 0x0' in special section 0x0"),
        (1 << 32 | 1, "relocation against 'arena_heap.bpf.c' in special section 0xfff1"),
        (99, "relocation type 99 against"),
    ],
)
def test_relocations_name_a_symbol_of_use(good: bytes, info: int, message: str) -> None:
    data = patch(good, reloc_at(good, 0) + 8, struct.pack("<Q", info))
    assert message in broken(data, "heap_insert")


def test_a_relocation_of_another_insn_is_refused(good: bytes) -> None:
    data = patch(good, reloc_at(good, 0), struct.pack("<Q", 0))
    assert "insn 0: invalid relocation against 'node_cnt' for opcode 0xbf" in broken(
        data, "heap_insert"
    )


def test_an_arena_of_four_billion_pages_loads_and_fails_at_creation(
    good: bytes, tmp_path: Path
) -> None:
    # The array type that states max_entries = 1 << 20: {element, index, count} of an ARRAY.
    start, btf = section_bytes(good, ".BTF")
    at = btf.index(struct.pack("<I", 1 << 20))
    data = patch(good, start + at, struct.pack("<I", 0xFFFFFFFF))
    outcome = attempt(data)
    assert isinstance(outcome, ObjectFile)
    assert outcome.maps[0].max_entries == 0xFFFFFFFF
    assert outcome.symbols["root"].off > 1 << 40


def test_many_programs_on_one_large_text_do_not_fill_the_memory() -> None:
    """A thousand program symbols over the same insns: the total is bounded."""
    data = (EXAMPLES / "arena_heap.bpf.o").read_bytes()
    names = section_names(data)
    start, table = section_bytes(data, ".symtab")
    at = symbol_at(data, "heap_insert")
    symbol = data[at : at + SYM.size]
    insns = struct.pack("<BBhi", 0xB7, 0, 0, 0) * 100_000
    grown = data + insns
    code = symbol[:16] + struct.pack("<Q", len(insns))
    grown = edit_section(grown, "syscall", offset=len(data), size=len(insns))
    symbols = data[start : start + len(table)] + code * 1000
    grown = edit_section(grown, ".symtab", offset=len(grown), size=len(symbols)) + symbols
    grown = edit_section(grown, ".relsyscall", type=1)
    assert names["syscall"]
    outcome = load_elf(grown, "bad.o")
    assert len(outcome.programs) <= 40
    assert any("in the programs of this object" in str(e) for e in outcome.broken.values())


def test_load_path_names_the_file(tmp_path: Path, good: bytes) -> None:
    path = tmp_path / "damaged.o"
    path.write_bytes(good[:100])
    with pytest.raises(LoadError, match=r"damaged\.o: truncated: "):
        load_path(path)
