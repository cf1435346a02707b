"""Files and bytes -> `ObjectFile`.

What a file holds is told by its content first, then by the end of its name:

- bytes that begin with the ELF magic: an object of clang's, whatever its name;
- `.c`: C source, compiled first (`bpfvm.compile`);
- `.s`, `.S`, `.asm`: assembly text (`bpfvm.asm`), perhaps with a vector's sections behind it;
- `.data`: a text vector (`bpfvm.vectors`), of which the program is taken;
- `.bin`, `.raw`: raw insns, one program of type socket_filter named after the file.

Anything else is refused: bytes that nobody declared to be insns are more likely something else.
Everything that is wrong with a file is a `LoadError` (or an `AsmError`) of one line.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Container, Mapping
from pathlib import Path

from bpfvm.btf import Btf, BtfExt
from bpfvm.compile import compile_c
from bpfvm.elf import MAGIC, Elf
from bpfvm.elflink import link_function, link_programs
from bpfvm.elfmaps import ObjectMaps, read_maps
from bpfvm.errors import AsmError, LoadError, NoPrograms
from bpfvm.flow import find_subprogs
from bpfvm.insn import decode
from bpfvm.program import ObjectFile, Program
from bpfvm.vectors import has_sections, read_vectors

__all__ = [
    "MAX_FILE_SIZE",
    "load_elf",
    "load_function",
    "load_path",
    "load_text",
    "read_file",
    "text_of",
]

#: Larger files are refused unread: the largest objects in use have a few MiB.
MAX_FILE_SIZE = 32 << 20

_TEXT_SUFFIXES = (".s", ".asm", ".data")
_RAW_SUFFIXES = (".bin", ".raw")
_NO_HELPERS: Mapping[str, int] = {}


def load_path(
    path: str | os.PathLike[str],
    helpers: Mapping[str, int] = _NO_HELPERS,
    kfuncs: Container[str] = (),
) -> ObjectFile:
    """Return what the file at *path* holds; *helpers* gives assembly text its helper numbers,
    *kfuncs* are the kfuncs there are.

    Raises:
        LoadError: it can't be read, or is not what its name says.
        AsmError: wrong assembly text.
        BpfError: C source that does not compile, or no compiler.
    """
    origin = os.fspath(path)
    data = read_file(origin)
    suffix = Path(origin).suffix.lower()
    if data.startswith(MAGIC):
        return load_elf(data, origin, kfuncs)
    if not data:
        raise LoadError(f"{origin}: empty file")
    if suffix == ".c":
        return load_elf(compile_c(path), origin, kfuncs)
    if suffix in _TEXT_SUFFIXES:
        text = text_of(data, origin)
        if suffix == ".data" or has_sections(text):
            return _load_vector(text, origin, helpers)
        return load_text(text, origin, helpers)
    if suffix in _RAW_SUFFIXES:
        return _load_raw(data, origin)
    if suffix == ".o":
        return load_elf(data, origin, kfuncs)
    raise LoadError(
        f"{origin}: not an ELF object, and the name does not tell what it is "
        "(.c, .s or .asm, .data, .bin or .raw)"
    )


def load_text(text: str, origin: str, helpers: Mapping[str, int] = _NO_HELPERS) -> ObjectFile:
    """Return what assembly *text* describes (`bpfvm.asm`).

    Raises:
        AsmError: at the first thing that is wrong.
    """
    # The parser takes longer to import than most objects to load and run, and they need none.
    from bpfvm.asm import assemble

    return assemble(text, origin, helpers=helpers)


def load_elf(data: bytes, origin: str, kfuncs: Container[str] = ()) -> ObjectFile:
    """Return the programs and maps of the ELF object *data*; *origin* names it in messages.

    *kfuncs* are the kfuncs there are, for programs that ask whether there is one.

    Raises:
        LoadError: not a BPF object, damaged, or without any program.
    """
    elf, btf, ext, maps = _read_elf(data, origin)
    linked = link_programs(elf, btf, ext, maps, kfuncs)
    if not linked.programs and not linked.broken:
        raise NoPrograms(f"{origin}: no programs: no function in a section such as 'xdp'")
    return ObjectFile(
        origin,
        linked.programs,
        tuple(maps.defs),
        linked.broken,
        maps.symbols,
        linked.sections,
        linked.tags,
    )


def load_function(data: bytes, origin: str, name: str, prog_type: str) -> ObjectFile:
    """Return one function of the ELF object *data*, whatever its section, as the only program,
    of type *prog_type*.

    Raises:
        LoadError: not a BPF object, damaged, or without that function.
    """
    elf, btf, ext, maps = _read_elf(data, origin)
    program = link_function(elf, btf, ext, maps, name, prog_type)
    return ObjectFile(origin, {name: program}, tuple(maps.defs), symbols=maps.symbols)


def _read_elf(data: bytes, origin: str) -> tuple[Elf, Btf | None, BtfExt | None, ObjectMaps]:
    elf = Elf(data, origin)
    btf, ext = None, None
    section = elf.section(".BTF")
    if section is not None:
        btf = Btf(section.data, origin)
        section = elf.section(".BTF.ext")
        if section is not None:
            ext = BtfExt(section.data, btf, origin)
    return elf, btf, ext, read_maps(elf, btf)


def text_of(data: bytes, origin: str) -> str:
    """Return *data*, the content of the file *origin*, as text: UTF-8, with line feeds alone and
    without a byte order mark.

    Raises:
        LoadError: it is no text.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        raise LoadError(f"{origin}: not text: bad UTF-8 at byte {err.start}") from None
    return text.replace("\r\n", "\n")


def read_file(origin: str) -> bytes:
    """Return what the file at *origin* holds.

    Raises:
        LoadError: it can't be read, is no regular file, or is larger than `MAX_FILE_SIZE`.
    """
    try:
        # A named pipe or device could block for ever or never end.
        info = os.stat(origin)
        if stat.S_ISDIR(info.st_mode):
            raise LoadError(f"{origin}: is a directory")
        if not stat.S_ISREG(info.st_mode):
            raise LoadError(f"{origin}: not a regular file")
        if info.st_size > MAX_FILE_SIZE:
            raise LoadError(f"{origin}: {info.st_size} bytes, more than {MAX_FILE_SIZE}")
        with open(origin, "rb") as file:
            data = file.read(MAX_FILE_SIZE + 1)
    except OSError as err:
        raise LoadError(f"{origin}: {err.strerror or err}") from None
    except ValueError as err:  # a NUL in the name
        raise LoadError(f"{origin!r}: {err}") from None
    if len(data) > MAX_FILE_SIZE:
        raise LoadError(f"{origin}: more than {MAX_FILE_SIZE} bytes")
    return data


def _load_vector(text: str, origin: str, helpers: Mapping[str, int]) -> ObjectFile:
    """Return the program of the only vector in *text*."""
    vectors = read_vectors(text, origin)
    if len(vectors) != 1:
        raise LoadError(f"{origin}: {len(vectors)} vectors, expected one (bpfvm test takes many)")
    source = vectors[0].source
    if source is None or vectors[0].patches:
        raise LoadError(f"{origin}: a vector that is no text (bpfvm test takes it)")
    try:
        return load_text(source, origin, helpers)
    except AsmError as err:
        raise vectors[0].placed(err) from None


def _load_raw(data: bytes, origin: str) -> ObjectFile:
    name = Path(origin).name.split(".", 1)[0] or "main"
    insns = decode(data, origin)
    program = Program(name, insns, "socket_filter", find_subprogs(insns, {0: name}))
    return ObjectFile(origin, {name: program})
