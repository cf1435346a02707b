"""A strict, bounded view of a BPF relocatable ELF file: sections, symbols, relocations.

The file may be hostile. pyelftools gives the layouts of the structures; every offset, size and
index is checked here before it is followed, nothing is copied that the file does not contain, and
sections may not overlap, so that all work is bounded by the file's size.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO

from elftools.common.exceptions import ELFParseError
from elftools.common.utils import struct_parse
from elftools.construct import Construct
from elftools.elf.enums import ENUM_E_MACHINE
from elftools.elf.structs import ELFStructs

from bpfvm.bits import U32_MAX
from bpfvm.errors import LoadError
from bpfvm.insn import SLOT

__all__ = ["MAGIC", "MAX_NAME", "Elf", "Reloc", "Section", "Symbol", "text_at"]

MAGIC = b"\x7fELF"
#: The longest name that is followed: the kernel's KSYM_NAME_LEN is 512, C++ mangles longer ones.
MAX_NAME = 4096

_EHDR_SIZE, _SHDR_SIZE = 64, 64
_SYM = struct.Struct("<IBBHQQ")
_REL = struct.Struct("<QQ")
_CLASS64, _LITTLE = 2, 1
_SHF_WRITE, _SHF_EXECINSTR = 1, 4
#: Section indices from here on mean something else (SHN_ABS, SHN_COMMON, ...).
_SHN_LORESERVE = 0xFF00


@dataclass(frozen=True, slots=True)
class Section:
    """A section header and the bytes that belong to it (none for SHT_NOBITS)."""

    index: int
    name: str
    type: str
    flags: int
    size: int
    link: int
    info: int
    data: memoryview

    @property
    def is_code(self) -> bool:
        """Whether it holds insns."""
        return self.type == "SHT_PROGBITS" and bool(self.flags & _SHF_EXECINSTR) and self.size > 0

    @property
    def is_writable(self) -> bool:
        """Whether SHF_WRITE is set."""
        return bool(self.flags & _SHF_WRITE)


@dataclass(frozen=True, slots=True)
class Symbol:
    """A symbol; *section* is None where it is undefined, absolute or common."""

    name: str
    value: int
    size: int
    bind: int
    type: int
    hidden: bool
    shndx: int
    section: Section | None

    LOCAL, GLOBAL, WEAK = 0, 1, 2
    NOTYPE, OBJECT, FUNC, SECTION = 0, 1, 2, 3

    @property
    def is_extern(self) -> bool:
        """Whether another party is to define it."""
        return self.shndx == 0 and self.bind != Symbol.LOCAL and self.type == Symbol.NOTYPE

    @property
    def place(self) -> str:
        """How messages name it: a section symbol has no name of its own."""
        if self.name:
            return self.name
        return self.section.name if self.section else f"section index {self.shndx:#x}"


@dataclass(frozen=True, slots=True)
class Reloc:
    """A relocation of the bytes at *offset*; its symbol is looked up when it is needed."""

    offset: int
    type: int
    symbol: int


def text_at(table: memoryview, offset: int, limit: int = MAX_NAME) -> str | None:
    """Return the NUL-terminated string at *offset*, or None where there is none."""
    if not 0 <= offset < len(table):
        return None
    window = bytes(table[offset : offset + limit + 1])
    end = window.find(b"\0")
    return None if end < 0 else window[:end].decode("utf-8", "replace")


class Elf:
    """The sections, symbols and relocations of one object.

    Raises:
        LoadError: not a little-endian 64-bit BPF relocatable object, or damaged.
    """

    def __init__(self, data: bytes, origin: str) -> None:
        self.origin = origin
        self._data = memoryview(data)
        self._stream = BytesIO(data)
        self._check_ident(data)
        self._structs = ELFStructs(little_endian=True, elfclass=64)
        self._structs.create_basic_structs()
        header = self._parse(self._structs.Elf_Ehdr, 0, "ELF header")
        if header["e_machine"] != "EM_BPF":
            raise self.error(f"not a BPF object: machine {header['e_machine']}")
        if header["e_type"] != "ET_REL":
            raise self.error(f"not a relocatable object: type {header['e_type']}")
        self._structs.create_advanced_structs(header["e_type"], header["e_machine"])
        self.sections = self._read_sections(header)
        self._by_name = {s.name: s for s in reversed(self.sections)}
        self._relocs: dict[int, dict[int, Reloc]] = {}

    def error(self, message: str) -> LoadError:
        """Return the error that says *message* of this file."""
        return LoadError(f"{self.origin}: {message}")

    def section(self, name: str) -> Section | None:
        """Return the first section of that name."""
        return self._by_name.get(name)

    def _check_ident(self, data: bytes) -> None:
        if not data.startswith(MAGIC):
            raise self.error(f"not an ELF file: it starts with {data[:4].hex(' ') or 'nothing'}")
        if len(data) < _EHDR_SIZE:
            raise self.error(f"truncated ELF header: {len(data)} of {_EHDR_SIZE} bytes")
        if data[4] != _CLASS64:
            raise self.error(f"not a 64-bit ELF file: class {data[4]}")
        if data[5] != _LITTLE:
            order = "big-endian" if data[5] == 2 else f"byte order {data[5]}"
            machine = int.from_bytes(data[18:20], "big")
            what = "BPF objects" if machine == ENUM_E_MACHINE["EM_BPF"] else "ELF files"
            raise self.error(f"{order} {what} are not supported")

    def _parse(self, layout: Construct, offset: int, what: str) -> dict[str, int | str]:
        try:
            parsed = struct_parse(layout, self._stream, offset)
        except ELFParseError as err:
            raise self.error(f"{what} at {offset:#x}: {err}") from None
        return dict(parsed)

    def _read_sections(self, header: dict[str, int | str]) -> tuple[Section, ...]:
        start, count = int(header["e_shoff"]), int(header["e_shnum"])
        if not start or not count:
            raise self.error("no section headers")
        if header["e_shentsize"] != _SHDR_SIZE:
            raise self.error(
                f"section headers of {header['e_shentsize']} bytes, expected {_SHDR_SIZE}"
            )
        if start + count * _SHDR_SIZE > len(self._data):
            raise self.error(
                f"truncated: {count} section headers at {start:#x} end past the file's "
                f"{len(self._data):#x} bytes"
            )
        raw = [
            self._parse(self._structs.Elf_Shdr, start + i * _SHDR_SIZE, f"section header {i}")
            for i in range(count)
        ]
        names = self._section_names(raw, int(header["e_shstrndx"]))
        sections = tuple(self._section(i, r, names) for i, r in enumerate(raw))
        self._check_overlap(raw, sections)
        return sections

    def _section_names(self, raw: list[dict[str, int | str]], index: int) -> memoryview:
        if not 0 < index < len(raw):
            raise self.error(f"section name table: index {index} of {len(raw)} sections")
        if raw[index]["sh_type"] != "SHT_STRTAB":
            raise self.error(f"section name table: section {index} is {raw[index]['sh_type']}")
        return self._bytes_of(raw[index], f"section {index}")

    def _bytes_of(self, raw: dict[str, int | str], what: str) -> memoryview:
        if raw["sh_type"] in ("SHT_NOBITS", "SHT_NULL"):
            return self._data[:0]
        start, size = int(raw["sh_offset"]), int(raw["sh_size"])
        if start + size > len(self._data):
            raise self.error(
                f"{what}: {size:#x} bytes at {start:#x} end past the file's "
                f"{len(self._data):#x} bytes"
            )
        return self._data[start : start + size]

    def _section(self, index: int, raw: dict[str, int | str], names: memoryview) -> Section:
        name = text_at(names, int(raw["sh_name"]))
        if name is None:
            raise self.error(f"section {index}: bad name offset {int(raw['sh_name']):#x}")
        return Section(
            index,
            name,
            str(raw["sh_type"]),
            int(raw["sh_flags"]),
            int(raw["sh_size"]),
            int(raw["sh_link"]),
            int(raw["sh_info"]),
            self._bytes_of(raw, f"section {index} '{name}'"),
        )

    def _check_overlap(
        self, raw: list[dict[str, int | str]], sections: tuple[Section, ...]
    ) -> None:
        placed = sorted((int(raw[s.index]["sh_offset"]), s.index) for s in sections if s.data)
        end, before = 0, 0
        for start, index in placed:
            if start < end:
                raise self.error(
                    f"sections {before} '{sections[before].name}' and {index} "
                    f"'{sections[index].name}' overlap at {start:#x}"
                )
            end, before = start + len(sections[index].data), index

    # -- symbols and relocations --------------------------------------------------------------

    @cached_property
    def _symbol_tables(self) -> tuple[memoryview, memoryview]:
        tables = [s for s in self.sections if s.type == "SHT_SYMTAB"]
        if len(tables) != 1:
            raise self.error(f"{len(tables)} symbol tables, expected one")
        table = tables[0]
        if not 0 < table.link < len(self.sections) or (
            self.sections[table.link].type != "SHT_STRTAB"
        ):
            raise self.error(f"section '{table.name}': string table {table.link} does not exist")
        if len(table.data) % _SYM.size:
            raise self.error(
                f"section '{table.name}': {len(table.data)} bytes are not whole symbols"
            )
        return table.data, self.sections[table.link].data

    @cached_property
    def symbols(self) -> tuple[Symbol, ...]:
        """All symbols, by index."""
        return tuple(self._symbols())

    def _symbols(self) -> Iterator[Symbol]:
        table, strings = self._symbol_tables
        for i, (name_off, info, other, shndx, value, size) in enumerate(_SYM.iter_unpack(table)):
            name = text_at(strings, name_off) if name_off else ""
            if name is None:
                raise self.error(f"symbol {i}: bad name offset {name_off:#x}")
            section = None
            if 0 < shndx < _SHN_LORESERVE:
                if shndx >= len(self.sections):
                    raise self.error(
                        f"symbol {i} '{name}': section index {shndx} of {len(self.sections)}"
                    )
                section = self.sections[shndx]
            hidden = other & 3 in (1, 2)
            yield Symbol(name, value, size, info >> 4, info & 15, hidden, shndx, section)

    def relocs(self, section: Section) -> dict[int, Reloc]:
        """Return the relocations of code in *section*, by byte offset.

        Raises:
            LoadError: they are damaged.
        """
        if section.index not in self._relocs:
            self._relocs[section.index] = dict(self._read_relocs(section))
        return self._relocs[section.index]

    def _read_relocs(self, target: Section) -> Iterator[tuple[int, Reloc]]:
        for section in self.sections:
            if section.info != target.index or section.type not in ("SHT_REL", "SHT_RELA"):
                continue
            what = f"section '{section.name}'"
            if section.type == "SHT_RELA":
                raise LoadError(f"{what}: SHT_RELA is not used by BPF")
            if len(section.data) % _REL.size:
                raise LoadError(f"{what}: {len(section.data)} bytes are not whole relocations")
            for offset, info in _REL.iter_unpack(section.data):
                if offset % SLOT or offset >= target.size:
                    raise LoadError(
                        f"{what}: relocation at {offset:#x} of {target.size:#x} bytes of insns"
                    )
                yield offset, Reloc(offset, info & U32_MAX, info >> 32)

    def symbol_of(self, reloc: Reloc) -> Symbol:
        """Return the symbol that *reloc* names.

        Raises:
            LoadError: there is no such symbol.
        """
        if reloc.symbol >= len(self.symbols):
            raise LoadError(
                f"relocation at {reloc.offset:#x}: symbol {reloc.symbol} of {len(self.symbols)}"
            )
        return self.symbols[reloc.symbol]
