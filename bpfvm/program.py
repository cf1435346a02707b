"""What a loader yields: immutable programs, their maps and subprogs, before anything is verified.

Whatever the source (ELF, text, bytes, JSON), a `Program` refers to maps and kfuncs by index:
an ldimm64 of kind MAP_IDX or MAP_IDX_VALUE holds an index into `ObjectFile.maps`, and a call of
kind KFUNC holds an index into `Program.kfuncs`. File descriptors and BTF ids never appear here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bpfvm.errors import LoadError
from bpfvm.insn import Insn
from bpfvm.record import MapField

__all__ = [
    "FuncRecord",
    "GlobalVar",
    "LineInfo",
    "Linkage",
    "LocalType",
    "MapDef",
    "MapFacts",
    "ObjectFile",
    "Param",
    "Program",
    "Subprog",
]

from enum import Enum


class Linkage(Enum):
    """BTF linkage of a subprog; without BTF a subprog is static."""

    STATIC = "static"
    GLOBAL = "global"


@dataclass(frozen=True, slots=True)
class Param:
    """A subprog's parameter as its BTF tells: C spelling, size in bytes, and decl/type tags.

    *kind* is its BTF kind behind typedefs and qualifiers ("INT", "ENUM", "STRUCT", ...). Of a
    pointer, *pointee_kind* and *pointee_name* tell what it points to ("UNKNOWN": void) and
    *pointee_typedef* the outermost typedef's name; *pointee_size* is its size, 0 where that is
    unknown.
    """

    name: str
    ctype: str
    size: int = 8
    is_pointer: bool = False
    tags: frozenset[str] = frozenset()
    pointee_size: int = 0
    kind: str = "INT"
    pointee_kind: str = "UNKNOWN"
    pointee_name: str = ""
    pointee_typedef: str = ""


@dataclass(frozen=True, slots=True)
class Subprog:
    """A function of a program: slots [start, end). Subprog 0 is the main program."""

    start: int
    end: int
    name: str
    linkage: Linkage = Linkage.STATIC
    params: tuple[Param, ...] | None = None  # None: no BTF
    ret: Param | None = None  # None: void, or no BTF
    #: Names in its decl tags `exception_callback:...`.
    exception_callbacks: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class LineInfo:
    """From slot *insn_off* on, the code comes from *file*:*line*:*col*, whose text is *source*.

    Not *is_named*: BTF has no string where file or text should be.
    """

    insn_off: int
    file: str
    line: int
    col: int
    source: str
    is_named: bool = True


@dataclass(frozen=True, slots=True)
class FuncRecord:
    """Slot *insn_off* is said to be the first of the function that BTF type *type_id* tells of;
    not *is_func*: that type is none."""

    insn_off: int
    type_id: int = 0
    is_func: bool = True


@dataclass(frozen=True, slots=True)
class LocalType:
    """A struct of the program, of which it may have objects: its number in BTF, name, size in
    bytes, and special fields by offset."""

    id: int
    name: str
    size: int
    fields: tuple[MapField, ...] = ()

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class MapDef:
    """What is needed to create a map (the fields of BPF_MAP_CREATE), and what libbpf then puts in.

    Attributes:
        map_type: the kernel's number (`bpfvm.maps.base.MapType`).
        flags: BPF_F_* bits.
        map_extra: an arena's user_vm_start, or 0.
        image: initial bytes: the whole value of a one-element array (.rodata, .data, .bss),
            or an arena's globals (placed at the arena's end).
        frozen: read-only for user space and programs after the image is in (.rodata).
        inner: what the elements of a map of maps are like.
        slots: elements that are there from the start, of a map of maps or an array of programs:
            index, and the name of a map or program of the same object.
        record: special fields of the values, by offset; None where there is no BTF to tell.
    """

    name: str
    map_type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int = 0
    map_extra: int = 0
    image: bytes | None = None
    frozen: bool = False
    inner: MapDef | None = None
    slots: tuple[tuple[int, str], ...] = ()
    record: tuple[MapField, ...] | None = None


@dataclass(frozen=True, slots=True)
class MapFacts:
    """All that a verifier may know of a live map; equal facts give equal verdicts.

    Attributes:
        defn: what the map was created from.
        user_vm_start, user_vm_end: bounds of an arena's user view, else 0.
        contents: bytes of a frozen read-only map's value (loads from it are constants), else None.
    """

    defn: MapDef
    user_vm_start: int = 0
    user_vm_end: int = 0
    contents: bytes | None = None


@dataclass(frozen=True, slots=True)
class Program:
    """One loadable program.

    Attributes:
        insns: one `Insn` per 8-byte slot; an ldimm64 takes two.
        subprogs: sorted by start, covering all slots; [0] is the main program.
        prog_type: name of a row of `bpfvm.context.PROG_TYPES`, such as "xdp".
        sleepable: loaded with BPF_F_SLEEPABLE.
        maps: the object's maps; ldimm64 MAP_IDX* immediates index this tuple.
        kfuncs: kfunc names; call KFUNC immediates index this tuple.
        weak_kfuncs: names in *kfuncs* that may be missing (poisoned: fail only when reached).
        line_info: source lines as they were given, by slot where they are in order.
        flags: further BPF_F_* load flags (BPF_F_STRICT_ALIGNMENT, ...).
        types: structs of which it has objects.
        func_info: where functions were said to begin, as given; None: where they do.
        attach_to: what the ELF section says behind the type, such as a function of the kernel.
    """

    name: str
    insns: tuple[Insn, ...]
    prog_type: str
    subprogs: tuple[Subprog, ...] = ()
    sleepable: bool = False
    license: str = "GPL"
    maps: tuple[MapDef, ...] = ()
    kfuncs: tuple[str, ...] = ()
    weak_kfuncs: frozenset[str] = frozenset()
    line_info: tuple[LineInfo, ...] = ()
    expected_attach_type: int = 0
    flags: int = 0
    func_info: tuple[FuncRecord, ...] | None = None
    attach_to: str = ""
    types: tuple[LocalType, ...] = ()

    @property
    def exception_callback(self) -> Subprog | None:
        """The subprog that ends the program when it throws, or None: the thrown value is the
        result."""
        names = self.subprogs[0].exception_callbacks if self.subprogs else frozenset()
        return next((s for s in self.subprogs if s.start and s.name in names), None)

    @property
    def is_gpl(self) -> bool:
        """Whether the licence is one that the kernel takes as GPL compatible."""
        return self.license in _GPL_COMPATIBLE


#: kernel: license_is_gpl_compatible
_GPL_COMPATIBLE = frozenset(
    {
        "GPL",
        "GPL v2",
        "GPL and additional rights",
        "Dual BSD/GPL",
        "Dual MIT/GPL",
        "Dual MPL/GPL",
    }
)


@dataclass(frozen=True, slots=True)
class GlobalVar:
    """A variable of the source: *size* bytes at value offset *off* of map *map_idx*. In an array
    map that is the value of key 0, in an arena the memory at user_vm_start + *off*."""

    map_idx: int
    off: int
    size: int


@dataclass(frozen=True, slots=True)
class ObjectFile:
    """All that one source holds. Programs that could not be linked stand in *broken*, each with
    its error: no program of a file keeps another from loading. *symbols* are its variables in
    .data, .bss, .rodata and the arena, by name. Of an ELF object *sections* tells the section of
    each program, and *tags* the decl tags that its BTF has for the program's function, in their
    order."""

    origin: str
    programs: Mapping[str, Program]
    maps: tuple[MapDef, ...] = ()
    broken: Mapping[str, LoadError] = field(default_factory=dict)
    symbols: Mapping[str, GlobalVar] = field(default_factory=dict)
    sections: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
