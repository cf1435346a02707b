"""Links the programs of an ELF object, as libbpf does: relocations, and subprogs of `.text`
copied behind each program that calls them. One program's error is that program's alone.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, unique
from typing import TypeVar

from bpfvm import isa
from bpfvm.bits import s32
from bpfvm.btf import Btf, BtfExt, BtfKind, CoreReloc, FuncInfo, LineRecord, Records
from bpfvm.btfrecord import local_types
from bpfvm.context import match_section
from bpfvm.elf import Elf, Reloc, Section, Symbol
from bpfvm.elfmaps import ObjectMaps
from bpfvm.errors import LoadError, NotSupported
from bpfvm.insn import MAX_INSNS, SLOT, Insn, decode
from bpfvm.isa import CallKind, Kind, LdKind
from bpfvm.program import FuncRecord, LineInfo, Linkage, LocalType, Param, Program, Subprog

__all__ = ["Linked", "link_function", "link_programs"]

#: Where subprogs live.
_TEXT = ".text"
#: Slots that all programs of an object may have together: a small file in which a thousand
#: programs each claim a large `.text` must not fill the memory.
_MAX_TOTAL = 4 * MAX_INSNS
#: kernel: MAX_BPF_FUNC_ARGS.
_MAX_PARAMS = 12
#: Decl tag of a program's function that names its exception callback.
_EXCEPTION_TAG = "exception_callback:"
#: kernel: enum bpf_core_relo_kind, BPF_CORE_TYPE_MATCHES.
_LAST_CORE_KIND = 12
_TYPE_ID_LOCAL = 6
_BPF_F_XDP_HAS_FRAGS = 1 << 5

_Info = TypeVar("_Info", FuncInfo, LineRecord, CoreReloc)


@unique
class _RelocType(IntEnum):
    """R_BPF_* that occur in code."""

    IMM64 = 1
    CALL = 10


@dataclass(frozen=True, slots=True)
class _Func:
    """A function: bytes [start, end) of its section."""

    name: str
    section: Section
    start: int
    end: int
    symbol: Symbol


@dataclass(slots=True)
class _Tables:
    """What is looked up in an object for all its programs alike."""

    elf: Elf
    btf: Btf | None
    ext: BtfExt | None
    maps: ObjectMaps
    subprogs: dict[int, _Func]  # of .text, by start
    kfuncs: frozenset[str]
    license: str
    available: Container[str]  # kfuncs that the VM has
    slots: dict[int, tuple[Insn, ...]] = field(default_factory=dict)
    total: int = 0

    def code(self, func: _Func) -> tuple[Insn, ...]:
        """Return the slots of *func* as they stand in its section."""
        index = func.section.index
        if index not in self.slots:
            self.slots[index] = decode(bytes(func.section.data), f"section '{func.section.name}'")
        return self.slots[index][func.start // SLOT : func.end // SLOT]


@dataclass(slots=True)
class Linked:
    """The programs of an object by name in file order, the errors of those that have one, and
    the section and the decl tags of each."""

    programs: dict[str, Program] = field(default_factory=dict)
    broken: dict[str, LoadError] = field(default_factory=dict)
    sections: dict[str, str] = field(default_factory=dict)
    tags: dict[str, tuple[str, ...]] = field(default_factory=dict)


def link_programs(
    elf: Elf,
    btf: Btf | None,
    ext: BtfExt | None,
    maps: ObjectMaps,
    available: Container[str] = (),
) -> Linked:
    """Return the programs of *elf*."""
    entries = _functions(elf)
    tables = _tables(elf, btf, ext, maps, entries, available)
    out = Linked()
    programs, broken = out.programs, out.broken
    for func in entries:
        if func.section.name == _TEXT:
            continue
        name = func.name
        if name in programs or name in broken:
            name = f"{name}@{func.section.name}+{func.start:#x}"
        out.sections[name] = func.section.name
        if btf is not None:
            out.tags[name] = btf.func_tags.get(func.name, ())
        try:
            programs[name] = _Linker(tables, func).program()
        except LoadError as err:
            # What BTF complains of names the file already.
            reason = str(err).removeprefix(f"{elf.origin}: ")
            complaint = f"{elf.origin}: program '{func.name}': {reason}"
            broken[name] = type(err)(complaint)
    return out


def link_function(
    elf: Elf, btf: Btf | None, ext: BtfExt | None, maps: ObjectMaps, name: str, prog_type: str
) -> Program:
    """Return the function *name*, whatever its section, as a program of *prog_type*.

    Raises:
        LoadError: there is none, or it can't be linked.
    """
    entries = _functions(elf)
    main = next((f for f in entries if f.name == name), None)
    if main is None:
        raise elf.error(f"no function {name!r}")
    return _Linker(_tables(elf, btf, ext, maps, entries), main).linked(prog_type)


def _tables(
    elf: Elf,
    btf: Btf | None,
    ext: BtfExt | None,
    maps: ObjectMaps,
    entries: Sequence[_Func],
    available: Container[str] = (),
) -> _Tables:
    return _Tables(
        elf,
        btf,
        ext,
        maps,
        {f.start: f for f in entries if f.section.name == _TEXT},
        frozenset(
            v.name
            for v in (btf.datasecs.get(".ksyms", ()) if btf else ())
            if v.kind is BtfKind.FUNC
        ),
        _license(elf),
        available,
    )


def _functions(elf: Elf) -> list[_Func]:
    """Return all functions in the order of sections and offsets."""
    found = [
        _Func(s.name, s.section, s.value, s.value + s.size, s)
        for s in elf.symbols
        if s.type == Symbol.FUNC and s.section is not None and s.section.is_code
    ]
    return sorted(found, key=lambda f: (f.section.index, f.start, -f.symbol.bind))


def _license(elf: Elf) -> str:
    section = elf.section("license")
    if section is None:
        return ""
    return bytes(section.data[:128]).split(b"\0", 1)[0].decode("utf-8", "replace")


class _Linker:
    """Links one program."""

    def __init__(self, tables: _Tables, main: _Func) -> None:
        self.tables = tables
        self.main = main
        self.insns: list[Insn] = []
        self.placed: dict[_Func, int] = {}
        self.kfuncs: dict[str, int] = {}
        self.weak: set[str] = set()

    def program(self) -> Program:
        """Return the linked program.

        Raises:
            LoadError: it can't be linked; the text names the insn, the symbol or the section.
        """
        name = self.main.section.name
        section = name.removeprefix("?")  # libbpf: not loaded unless asked for
        matched = match_section(section)
        if matched is None:
            raise NotSupported(f"section '{name}': no program type that we support has this name")
        if self.main.symbol.bind == Symbol.LOCAL:
            raise LoadError(f"section '{name}': static programs are not supported")
        has_frags = section.split("/")[0] == "xdp.frags"
        return self.linked(
            matched.prog_type.name,
            sleepable=matched.sleepable,
            attach=matched.attach,
            flags=_BPF_F_XDP_HAS_FRAGS if has_frags else 0,
            attach_to=section.partition("/")[2],
        )

    def linked(
        self,
        prog_type: str,
        *,
        sleepable: bool = False,
        attach: int = 0,
        flags: int = 0,
        attach_to: str = "",
    ) -> Program:
        """Return the linked program as one of *prog_type*.

        Raises:
            LoadError: it can't be linked; the text names the insn or the symbol.
        """
        self._place_all()
        return Program(
            self.main.name,
            tuple(self.insns),
            prog_type,
            tuple(self._subprog(func, start) for func, start in self.placed.items()),
            sleepable,
            self.tables.license,
            tuple(self.tables.maps.defs),
            tuple(self.kfuncs),
            frozenset(self.weak),
            tuple(self._line_info()),
            attach,
            flags,
            self._func_info(),
            attach_to,
            self._types(),
        )

    def _place_all(self) -> None:
        """Place the main function, and each subprog where it is first referred to, then what that
        refers to (libbpf's order, so that insn indices agree with the kernel's log)."""
        self._place_from(self.main)
        for callback in self._exception_callbacks():
            if callback not in self.placed:
                self._place_from(callback)

    def _exception_callbacks(self) -> Iterator[_Func]:
        """Yield the functions that the main function's decl tags name."""
        ext, btf = self.tables.ext, self.tables.btf
        if ext is None or btf is None:
            return
        for info in _within(ext.funcs, self.main):
            if info.insn_off == self.main.start and btf.is_func(info.type_id):
                names = _exception_callbacks(btf, info)
                yield from (f for f in self.tables.subprogs.values() if f.name in names)

    def _place_from(self, func: _Func) -> None:
        self._place(func)
        stack = [self._rewrite(func)]
        while stack:
            target = next(stack[-1], None)
            if target is None:
                stack.pop()
            elif target not in self.placed:
                self._place(target)
                stack.append(self._rewrite(target))

    def _place(self, func: _Func) -> None:
        where = "" if func is self.main else f"subprog '{func.name}': "
        if func.start % SLOT or func.end % SLOT or func.end > func.section.size:
            raise LoadError(
                f"{where}bytes {func.start:#x} to {func.end:#x} are not whole insns of section "
                f"'{func.section.name}' ({func.section.size:#x} bytes)"
            )
        if func.start == func.end:
            raise LoadError(f"{where}no insns")
        self._check_core(func, where)
        count = (func.end - func.start) // SLOT
        if len(self.insns) + count > MAX_INSNS:
            raise LoadError(f"{where}more than {MAX_INSNS} insns")
        self.tables.total += count
        if self.tables.total > _MAX_TOTAL:
            raise LoadError(f"{where}more than {_MAX_TOTAL} insns in the programs of this object")
        self.placed[func] = len(self.insns)
        self.insns.extend(self.tables.code(func))

    def _check_core(self, func: _Func, where: str) -> None:
        """CO-RE relocations change nothing: the types of this VM's kernel are those that the
        program was compiled with, and the compiler has put their offsets, sizes and values in."""
        core = self.tables.ext.core if self.tables.ext else {}
        for reloc in _within(core, func):
            if reloc.kind > _LAST_CORE_KIND:
                slot = (reloc.insn_off - func.start) // SLOT
                raise LoadError(f"{where}insn {slot}: unknown CO-RE relocation {reloc.kind}")

    # -- relocations --------------------------------------------------------------------------

    def _rewrite(self, func: _Func) -> Iterator[_Func]:
        """Resolve what the insns of *func* refer to; yield each function that must be placed
        before the insn that refers to it can be finished."""
        base = self.placed[func]
        relocs = self.tables.elf.relocs(func.section)
        count = (func.end - func.start) // SLOT
        where = "" if func is self.main else f"subprog '{func.name}': "
        slot = 0
        while slot < count:
            insn = self.insns[base + slot]
            row = isa.lookup(insn)
            reloc = relocs.get(func.start + slot * SLOT)
            width = 2 if row is not None and row.kind is Kind.LDIMM64 else 1
            try:
                if width == 2 and (slot + 1 >= count or func.start + (slot + 1) * SLOT in relocs):
                    raise LoadError("incomplete ldimm64")
                target = self._resolve(func, base, slot, reloc, row)
            except LoadError as err:
                raise type(err)(f"{where}insn {slot}: {err}") from None
            if target is not None:
                yield target
                is_call = row is not None and row.kind is Kind.CALL
                self.insns[base + slot] = insn._replace(
                    src=(CallKind.LOCAL if is_call else LdKind.FUNC).value,
                    imm=self.placed[target] - (base + slot) - 1,
                )
            slot += width

    def _resolve(
        self, func: _Func, base: int, slot: int, reloc: Reloc | None, row: isa.InsnDef | None
    ) -> _Func | None:
        """Resolve one insn in place, or return the function that it refers to."""
        is_local = row is not None and row.kind is Kind.CALL and row.op is CallKind.LOCAL
        if reloc is None:
            if is_local:
                start = func.start + (slot + 1 + self.insns[base + slot].imm) * SLOT
                return self._subprog_at(func.section, start)
            return None
        symbol = self.tables.elf.symbol_of(reloc)
        if reloc.type not in tuple(_RelocType):
            raise LoadError(f"relocation type {reloc.type} against '{symbol.place}'")
        insn = self.insns[base + slot]
        if row is not None and row.kind is Kind.LDIMM64 and row.op is LdKind.IMM64:
            return self._resolve_imm64(base + slot, insn, symbol)
        if not is_local:
            raise LoadError(
                f"invalid relocation against '{symbol.place}' for opcode {insn.opcode:#04x}"
            )
        if symbol.is_extern:
            self._resolve_kfunc(base + slot, insn, symbol)
            return None
        if symbol.section is None:
            raise LoadError(f"call of '{symbol.place}', which is not a function of this object")
        return self._subprog_at(symbol.section, symbol.value + (insn.imm + 1) * SLOT)

    def _subprog_at(self, section: Section, start: int) -> _Func:
        found = self.tables.subprogs.get(start) if section.name == _TEXT else None
        if found is None:
            raise LoadError(
                f"no subprog at {start:#x} of section '{section.name}' (subprogs lie in '{_TEXT}')"
            )
        return found

    def _resolve_kfunc(self, at: int, insn: Insn, symbol: Symbol) -> None:
        if self.tables.btf is None:
            raise LoadError(f"extern '{symbol.name}': kfuncs need BTF: compile with -g")
        if symbol.name not in self.tables.kfuncs:
            raise LoadError(f"extern '{symbol.name}': not a function of section '.ksyms'")
        if symbol.bind == Symbol.WEAK:
            self.weak.add(symbol.name)
        index = self.kfuncs.setdefault(symbol.name, len(self.kfuncs))
        self.insns[at] = insn._replace(src=CallKind.KFUNC.value, imm=index)

    def _resolve_imm64(self, at: int, insn: Insn, symbol: Symbol) -> _Func | None:
        section, maps = symbol.section, self.tables.maps
        if symbol.is_extern:
            self._resolve_presence(at, insn, symbol)
            return None
        if section is None:
            raise LoadError(
                f"relocation against '{symbol.place}' in special section {symbol.shndx:#x}: "
                "is a global variable not initialized?"
            )
        offset = symbol.value + insn.imm
        if section.is_code:
            return self._subprog_at(section, offset)
        if section.index in maps.data:
            index, first = maps.data[section.index]
            self.insns[at] = insn._replace(src=LdKind.MAP_IDX_VALUE.value, imm=index)
            self.insns[at + 1] = self.insns[at + 1]._replace(imm=s32(first + offset))
            return None
        place = maps.by_place.get((section.index, offset))
        if place is None:
            raise LoadError(
                f"'{symbol.place}': no map or variable at {offset:#x} of section '{section.name}'"
            )
        self.insns[at] = insn._replace(src=LdKind.MAP_IDX.value, imm=place)
        self.insns[at + 1] = self.insns[at + 1]._replace(imm=0)
        return None

    def _resolve_presence(self, at: int, insn: Insn, symbol: Symbol) -> None:
        """The address of a kfunc only ever tells whether there is one: 0 is none, as in libbpf."""
        name, available = symbol.name, symbol.name in self.tables.available
        if name not in self.tables.kfuncs or not (available or symbol.bind == Symbol.WEAK):
            raise NotSupported(f"not supported yet: address of extern '{name}'")
        self.insns[at] = insn._replace(imm=int(available))
        self.insns[at + 1] = self.insns[at + 1]._replace(imm=0)

    # -- BTF ----------------------------------------------------------------------------------

    def _subprog(self, func: _Func, start: int) -> Subprog:
        end = start + (func.end - func.start) // SLOT
        linkage, params, ret = Linkage.STATIC, None, None
        callbacks: frozenset[str] = frozenset()
        ext, btf = self.tables.ext, self.tables.btf
        if ext is not None and btf is not None:
            for info in _within(ext.funcs, func):
                if info.insn_off == func.start and btf.is_func(info.type_id):
                    linkage, params, ret = _signature(btf, info, func)
                    callbacks = _exception_callbacks(btf, info)
                    break
        return Subprog(start, end, func.name, linkage, params, ret, callbacks)

    def _info(self, what: str, table: Mapping[str, Records[_Info]]) -> Iterator[tuple[int, _Info]]:
        """Yield what *table* tells of the placed functions, and the slot of each record (libbpf:
        reloc_prog_func_and_line_info). Of a main function without any, it tells nothing."""
        for func, start in self.placed.items():
            records = _within(table, func)
            if not records:
                if func is self.main:
                    return
                raise LoadError(f"subprog '{func.name}': missing .BTF.ext {what} info")
            yield from (
                (start + record.insn_off // SLOT - func.start // SLOT, record) for record in records
            )

    def _types(self) -> tuple[LocalType, ...]:
        """Return the structs that the program may have objects of: with special fields, or those
        whose numbers it asks for."""
        ext, btf = self.tables.ext, self.tables.btf
        if ext is None or btf is None or not self.kfuncs:
            return ()
        asked = frozenset(
            reloc.type_id
            for func in self.placed
            for reloc in _within(ext.core, func)
            if reloc.kind == _TYPE_ID_LOCAL
        )
        return local_types(btf, asked)

    def _func_info(self) -> tuple[FuncRecord, ...] | None:
        ext, btf = self.tables.ext, self.tables.btf
        if ext is None or btf is None:
            return None
        found = tuple(
            FuncRecord(slot, record.type_id, btf.is_func(record.type_id))
            for slot, record in self._info("function", ext.funcs)
        )
        return found or None

    def _line_info(self) -> Iterator[LineInfo]:
        ext, btf = self.tables.ext, self.tables.btf
        if ext is None or btf is None:
            return
        for slot, record in self._info("line", ext.lines):
            file, source = btf.line_text(record.file_off), btf.line_text(record.line_off)
            yield LineInfo(
                slot,
                file or "",
                record.line,
                record.col,
                source or "",
                file is not None and source is not None,
            )


def _signature(
    btf: Btf, info: FuncInfo, func: _Func
) -> tuple[Linkage, tuple[Param, ...], Param | None]:
    found = btf.func(info.type_id)
    linkage = Linkage.STATIC if func.symbol.hidden else btf.func_linkage(found)
    if len(btf.type(found.ref).extra) > _MAX_PARAMS:
        raise LoadError(f"function '{func.name}': more than {_MAX_PARAMS} parameters")
    return linkage, *btf.signature(found)


def _exception_callbacks(btf: Btf, info: FuncInfo) -> frozenset[str]:
    tags = btf.tags_of_func(btf.func(info.type_id))
    return frozenset(
        tag.removeprefix(_EXCEPTION_TAG) for tag in tags if tag.startswith(_EXCEPTION_TAG)
    )


def _within(table: Mapping[str, Records[_Info]], func: _Func) -> tuple[_Info, ...]:
    """Return what *table* tells of *func*."""
    records = table.get(func.section.name)
    return () if records is None else records.within(func.start, func.end)
