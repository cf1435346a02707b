"""Assembly text -> `ObjectFile`: lines, labels, directives, linking.

Statements may be in LLVM's and the kernel's syntax (what `clang -S`, `llvm-objdump` and the
verifier's log print) or in bpf_conformance's, line by line (`bpfvm.statement`). A line may begin
with what listings put there: `12:`, raw bytes, `(61)`. Comments run from `;`, `//` or `#` to the
end of the line (but `name#6` is a helper), or stand in `/* */`.

In the text of `clang -S` a function in a section such as "xdp" is a program of that type, and
those in .text are shared; maps can't be taken from it (its data sections are skipped).

Directives:

    .map NAME type=arena|array|hash|N [key=N] [value=N] [entries=N] [flags=mmapable,...|N]
              [extra=N] [image=HEX] [frozen] [inner=MAP] [fields=bpf_spin_lock@N,...]
    .struct NAME size=N [id=N] [fields=bpf_list_node@N,...]
    .prog NAME [type=xdp] [sleepable[=0|1]] [license=GPL] [attach=N] [flags=N]
    .func NAME [global] [args="WORD,..."] [ret=WORD] [exception=NAME]
    .kfunc NAME [weak]
    .slot HEX

`.prog` begins a program; text without one is one program "main" of type socket_filter. `.func`
after a `.prog` is a subprogram of that program (at its very start: the name of its main
function); `.func` before every `.prog` is shared, and linked behind each program that refers to
it. A label that is called is a subprogram too. `.kfunc` fixes the order of a program's kfuncs,
or tells that one is weak. `.struct` is one that programs have objects of, `id` its number in
BTF, by default 1 and on; `fields=bpf_list_head@8:NAME@N` says by which node a list has its objects
of that struct. `.slot` is a slot as it is, its 8 bytes in hex. The words for the
parameters and the result of a `.func`, which stand for its BTF, are `bpfvm.signature`'s.

Names in statements: a label of the same function group comes first, then a helper, and any other
name that is called is a kfunc; `call kfunc NAME` is always one. `r1 = map(NAME)`,
`r1 = map_value(NAME) + 8`, `r1 = func(NAME)` load addresses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NoReturn

from lark import Token, Tree

from bpfvm import isa
from bpfvm.bits import s32
from bpfvm.context import PROG_TYPES, SectionMatch, Sleepable, match_section
from bpfvm.errors import LoadError
from bpfvm.flow import find_subprogs
from bpfvm.insn import Insn, decode
from bpfvm.isa import CallKind, Kind, LdKind
from bpfvm.maps.base import MapFlags, MapType
from bpfvm.program import Linkage, LocalType, MapDef, ObjectFile, Param, Program, Subprog
from bpfvm.record import Contained, FieldKind, MapField
from bpfvm.signature import PARAM_WORDS, RESULT_WORDS, param_of, result_of
from bpfvm.statement import OpenSlot, Ref, RefKind, statement_slots
from bpfvm.syntax import Place, parse, read_int

__all__ = ["DEFAULT_PROG_TYPE", "assemble"]

DEFAULT_PROG_TYPE = "socket_filter"
_NO_HELPERS: Mapping[str, int] = {}

#: Whichever begins first: a string, a comment to the end of the line, or a block.
_STRING_OR_COMMENT = re.compile(
    r'"[^"\n]*"|(?P<comment>(?:;|//|(?<!\w)#|#(?!-?\d))[^\n]*|(?s:/\*.*?\*/))'
)
_LABEL = re.compile(r"\s*([A-Za-z_.$][\w.$]*|[0-9a-f]{16} <[\w.$]+>):(?!\w)")
_INDEX = re.compile(r"\s*\d+:(?=\s|$)")
_BYTES = re.compile(r"\s*((?:[0-9a-f]{2} ){7}[0-9a-f]{2}(?: (?:[0-9a-f]{2} ){7}[0-9a-f]{2})?)\s")
_OPCODE = re.compile(r"\s*\(([0-9a-f]{2})\)\s")
_ANNOTATION = re.compile(r"\s<[\w.$]+(\+0x[0-9a-f]+)?>\s*$")
_DIRECTIVE = re.compile(r"\s*(\.\w+)")
_OBJDUMP_TITLE = re.compile(r"^(\S.*:\tfile format |Disassembly of section )")
_PROG = re.compile(r"^\s*\.prog\b", re.MULTILINE)
_SECTION = re.compile(r'^\s*\.section\s+"?([^",\s]+)"?\s*,\s*"(\w*)"', re.MULTILINE)
_FUNCTION = re.compile(r"^\s*\.type\s+([\w.$]+),\s*@function", re.MULTILINE)
_LICENSE = re.compile(r'\.section\s+"?license"?.*?\.asciz\s+"([^"]*)"', re.DOTALL)
#: What `clang -S` prints besides insns and labels; it says nothing that we need.
_IGNORED = re.compile(
    r"\.(addrsig(_sym)?|cfi_\w+|file|globa?l|hidden|ident|loc|local|(p2)?align|size|text|type|weak)$"
)


def assemble(
    text: str, origin: str = "<text>", helpers: Mapping[str, int] = _NO_HELPERS
) -> ObjectFile:
    """Return the programs and maps that *text* describes; *helpers* gives helper numbers by name.

    Raises:
        AsmError: at the first thing that is wrong.
    """
    return _Assembler(text, origin, helpers).object_file()


@dataclass(slots=True)
class _Chunk:
    """A run of slots with its own labels: a program, or a shared function."""

    name: str
    place: Place
    slots: list[OpenSlot] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    funcs: dict[int, Subprog] = field(default_factory=dict)
    kfuncs: dict[str, bool] = field(default_factory=dict)
    prog_type: str = DEFAULT_PROG_TYPE
    sleepable: bool | None = None
    license: str = "GPL"
    attach: int = 0
    flags: int = 0


class _Assembler:
    def __init__(self, text: str, origin: str, helpers: Mapping[str, int]) -> None:
        self.helpers = helpers
        self.origin = origin
        self.maps: dict[str, MapDef] = {}
        self.types: dict[str, LocalType] = {}
        self.weak: dict[str, bool] = {}
        self.shared: dict[str, _Chunk] = {}
        #: Functions of `clang -S` text, where its sections make programs of some of them.
        self.functions: frozenset[str] = frozenset()
        self.section: SectionMatch | None = None
        self.license = "GPL"
        if any(match_section(m[1]) for m in _SECTION.finditer(text)):
            self.functions = frozenset(m[1] for m in _FUNCTION.finditer(text))
            licence = _LICENSE.search(text)
            self.license = licence[1] if licence else ""
        self.has_prog = bool(self.functions) or _PROG.search(text) is not None
        self.start = Place(origin, 1, text.split("\n", 1)[0])
        self.current = _Chunk("main", self.start)
        self.progs: dict[str, _Chunk] = {} if self.has_prog else {"main": self.current}
        self.in_data = False
        for place, line in _lines(text, origin):
            self.line(place, line)

    def object_file(self) -> ObjectFile:
        """Link every program."""
        maps = tuple(self.maps.values())
        programs = {
            name: _Linker(self, chunk, maps).program() for name, chunk in self.progs.items()
        }
        return ObjectFile(self.origin, programs, maps)

    # -- lines ---------------------------------------------------------------------------------

    def line(self, place: Place, text: str) -> None:
        directive = _DIRECTIVE.match(text)
        if directive and directive[1] == ".section":
            # Only sections of code matter; `clang -S` writes maps and BTF as data.
            section = _SECTION.match(text)
            self.in_data = section is None or "x" not in section[2]
            self.section = match_section(section[1]) if section else None
            return
        if directive and directive[1] == ".text":
            self.in_data, self.section = False, None
        if self.in_data:
            return
        while label := _LABEL.match(text):
            self.label(place, label[1], label.start(1) + 1)
            text = _blank(text, label.end())
        directive = _DIRECTIVE.match(text)
        if directive:
            if not _IGNORED.match(directive[1]):
                self.directive(place, text)
            return
        self.statement(place, text)

    def label(self, place: Place, name: str, col: int) -> None:
        name = name.split("<")[-1].rstrip(">")
        if name in self.functions:
            self.function(place, name)
        if name in self.current.labels:
            raise place.error(f"duplicate label {name}", col)
        self.current.labels[name] = len(self.current.slots)

    def function(self, place: Place, name: str) -> None:
        """Begin a function of `clang -S` text: a program by its section, else a shared one."""
        self.current = _Chunk(name, place, license=self.license)
        if self.section is None:
            self.shared[name] = self.current
            return
        self.current.prog_type = self.section.prog_type.name
        self.current.sleepable, self.current.attach = self.section.sleepable, self.section.attach
        self.progs[name] = self.current

    def statement(self, place: Place, text: str) -> None:
        index = _INDEX.match(text)
        text = _blank(text, index.end()) if index else text
        raw = _BYTES.match(text)
        text = _blank(text, raw.end(1)) if raw else text
        code = _OPCODE.match(text)
        text = _blank(text, code.end()) if code else text
        text = _ANNOTATION.sub("", text)
        if not text.strip():
            return
        self.need_function(place, text)
        self.current.slots += statement_slots(
            place,
            text,
            opcode=int(code[1], 16) if code else None,
            call_src=int(raw[1][3], 16) if raw else None,
        )

    def need_function(self, place: Place, text: str) -> None:
        if self.has_prog and not self.progs and self.current.name not in self.shared:
            col = len(text) - len(text.lstrip()) + 1
            raise place.error("an insn before the first .prog or .func", col)

    # -- directives ------------------------------------------------------------------------------

    def directive(self, place: Place, text: str) -> None:
        words = _Words(place, parse(place, text, "directive"))
        match words.name:
            case ".map":
                self.map_directive(words)
            case ".struct":
                self.struct_directive(words)
            case ".prog":
                self.prog_directive(words)
            case ".func":
                self.func_directive(words)
            case ".kfunc":
                name = words.subject("a kfunc's name")
                known = self.current.kfuncs if self.progs else self.weak
                known[name] = words.flag("weak")
            case ".slot":
                self.slot_directive(words)
            case _:
                words.fail(
                    f"unknown directive {words.name}: expected .map, .prog, .func, "
                    ".kfunc, .slot, .struct",
                    words.col,
                )
        words.done()

    def map_directive(self, words: _Words) -> None:
        name = words.subject("a map's name")
        if name in self.maps:
            words.fail(f"duplicate map {name}", words.col)
        kind = words.choice("type", {t.name.lower(): int(t) for t in MapType}, None)
        if kind is None:
            words.fail(f"map {name}: type=... is missing", words.col)
        usual = MapFlags.MMAPABLE if kind == MapType.ARENA else 0
        flags = {_flag_name(f): int(f) for f in MapFlags}
        image = words.text("image")
        try:
            content = None if image is None else bytes.fromhex(image)
        except ValueError:
            words.fail("image: expected bytes in hex", words.col)
        self.maps[name] = MapDef(
            name,
            kind,
            words.number("key", 4 if kind == MapType.ARRAY else 0),
            words.number("value", 0),
            words.number("entries", 0),
            words.flags("flags", flags, int(usual)),
            words.number("extra", 0),
            content,
            words.flag("frozen"),
            inner=self.inner_of(words),
            record=self.record_of(words),
        )

    def struct_directive(self, words: _Words) -> None:
        name = words.subject("a struct's name")
        if name in self.types:
            words.fail(f"duplicate struct {name}", words.col)
        number = words.number("id", len(self.types) + 1)
        size = words.number("size", 0)
        self.types[name] = LocalType(number, name, size, self.record_of(words) or ())

    def inner_of(self, words: _Words) -> MapDef | None:
        """Return the map that `inner=NAME` says elements are like."""
        name = words.text("inner")
        if name is None:
            return None
        if name not in self.maps:
            words.fail(f"inner: no map {name} before this one", words.col)
        return self.maps[name]

    @staticmethod
    def record_of(words: _Words) -> tuple[MapField, ...] | None:
        """Return the special fields that `fields=bpf_spin_lock@0,...` states."""
        text = words.text("fields")
        if text is None:
            return None
        kinds = {kind.label: kind for kind in FieldKind}
        found = []
        for part in filter(None, text.split(",")):
            field, _, target = part.partition(":")
            label, _, off = field.partition("@")
            name, _, node = target.partition("@")
            if label not in kinds or not off.isdigit() or (target and not node.isdigit()):
                known = ", ".join(kinds)
                words.fail(f"fields: {part!r}: expected NAME@OFFSET of {known}", words.col)
            holds = Contained(name, int(node)) if target else None
            found.append(MapField(kinds[label], int(off), holds))
        return tuple(sorted(found, key=lambda field: field.off))

    def prog_directive(self, words: _Words) -> None:
        name = words.subject("a program's name")
        if name in self.progs:
            words.fail(f"duplicate program {name}", words.col)
        chunk = _Chunk(name, words.place)
        chunk.prog_type = words.text("type") or DEFAULT_PROG_TYPE
        if chunk.prog_type not in PROG_TYPES:
            known = " ".join(PROG_TYPES)
            words.fail(f"unknown program type {chunk.prog_type}: expected {known}", words.col)
        if words.flag("sleepable"):
            chunk.sleepable = True
        elif (asked := words.number("sleepable", -1)) >= 0:
            chunk.sleepable = asked > 0
        licence = words.text("license")
        chunk.license = "GPL" if licence is None else licence
        chunk.attach = words.number("attach", 0)
        chunk.flags = words.number("flags", 0)
        self.progs[name] = self.current = chunk

    def func_directive(self, words: _Words) -> None:
        name = words.subject("a function's name")
        linkage = Linkage.GLOBAL if words.flag("global") else Linkage.STATIC
        if self.has_prog and not self.progs:
            if name in self.shared:
                words.fail(f"duplicate function {name}", words.col)
            self.current = _Chunk(name, words.place)
            self.shared[name] = self.current
        elif name in self.current.labels:
            words.fail(f"duplicate label {name}", words.col)
        self.current.labels[name] = len(self.current.slots)
        start = len(self.current.slots)
        self.current.funcs[start] = Subprog(start, start, name, linkage, *self.signature(words))
        callback = words.text("exception")
        if callback is not None:
            func = self.current.funcs[start]
            self.current.funcs[start] = replace(func, exception_callbacks=frozenset({callback}))

    def signature(self, words: _Words) -> tuple[tuple[Param, ...] | None, Param | None]:
        """Read what a `.func` tells of parameters and result; (None, None): nothing."""
        args, ret = words.text("args"), words.text("ret")
        if args is None and ret is None:
            return None, None
        params = []
        for i, word in enumerate(args.split(",") if args else ()):
            param = param_of(word, f"a{i}")
            if param is None:
                expected = " ".join(PARAM_WORDS)
                words.fail(f"args: {word} is unknown: expected {expected}", words.col)
            params.append(param)
        if ret is not None and ret not in RESULT_WORDS:
            words.fail(f"ret: {ret} is unknown: expected {' '.join(RESULT_WORDS)}", words.col)
        return tuple(params), result_of(ret or "int")

    def slot_directive(self, words: _Words) -> None:
        text = words.subject("8 bytes in hex")
        try:
            (insn,) = decode(bytes.fromhex(text))
        except (ValueError, LoadError):
            words.fail(f".slot: expected 8 bytes in hex, not {text}", words.col)
        self.need_function(words.place, words.name)
        self.current.slots.append(OpenSlot(insn, words.place))


def _flag_name(flag: MapFlags) -> str:
    assert flag.name is not None
    return flag.name.lower()


def _blank(text: str, end: int) -> str:
    """Return *text* with everything before *end* blanked, so that columns stay true."""
    return re.sub(r"[^\t]", " ", text[:end]) + text[end:]


def _lines(text: str, origin: str) -> Iterator[tuple[Place, str]]:
    """Yield each line that holds something, without its comments."""
    bare = _STRING_OR_COMMENT.sub(
        lambda m: re.sub(r"[^\n\t]", " ", m[0]) if m["comment"] else m[0], text
    )
    for number, (raw, line) in enumerate(zip(text.split("\n"), bare.split("\n"), strict=True), 1):
        if line.strip() and not _OBJDUMP_TITLE.match(line):
            yield Place(origin, number, raw.rstrip("\r")), line.rstrip()


class _Words:
    """A directive's words; what is left over at the end is an error."""

    def __init__(self, place: Place, tree: Tree[Token]) -> None:
        self.place = place
        name, *rest = tree.children
        assert isinstance(name, Token)
        self.name, self.col = str(name), name.column or 1
        self.end = len(place.source.rstrip()) + 1
        self.bare: list[Token] = []
        self.attrs: dict[str, Token] = {}
        for node in rest:
            assert isinstance(node, Tree)
            first, *value = (t for t in node.children if isinstance(t, Token))
            if not value:
                self.bare.append(first)
            elif str(first) in self.attrs:
                self.fail(f"{first}= is given twice", first.column or 1)
            else:
                self.attrs[str(first)] = value[0]

    def fail(self, message: str, col: int) -> NoReturn:
        raise self.place.error(message, col)

    def subject(self, what: str) -> str:
        if not self.bare:
            self.fail(f"{self.name}: expected {what}", self.end)
        token = self.bare.pop(0)
        self.col = token.column or 1
        return str(token).strip('"')

    def flag(self, name: str) -> bool:
        found = [t for t in self.bare if str(t) == name]
        self.bare = [t for t in self.bare if str(t) != name]
        return bool(found)

    def text(self, name: str) -> str | None:
        token = self.attrs.pop(name, None)
        if token is None:
            return None
        self.col = token.column or 1
        return str(token).strip('"') if token.type == "STRING" else str(token)

    def number(self, name: str, default: int) -> int:
        text = self.text(name)
        if text is None:
            return default
        try:
            return read_int(text)
        except ValueError:
            self.fail(f"{name}: expected a number, not {text}", self.col)

    def choice(self, name: str, names: Mapping[str, int], default: int | None) -> int | None:
        text = self.text(name)
        if text is None:
            return default
        if text in names:
            return names[text]
        try:
            return read_int(text)
        except ValueError:
            self.fail(f"{name}: {text} is unknown: expected {' '.join(names)}", self.col)

    def flags(self, name: str, names: Mapping[str, int], default: int) -> int:
        text = self.text(name)
        if text is None:
            return default
        value = 0
        for word in re.split(r"[,|]", text):
            if word in names:
                value |= names[word]
                continue
            try:
                value |= read_int(word)
            except ValueError:
                self.fail(f"{name}: {word} is unknown: expected {' '.join(names)}", self.col)
        return value

    def done(self) -> None:
        left = [*self.bare, *self.attrs.values()]
        if left:
            word = next((k for k, v in self.attrs.items() if v is left[0]), str(left[0]))
            self.fail(f"{self.name}: {word} is unknown here", left[0].column or 1)


# -- linking ---------------------------------------------------------------------------------------


class _Linker:
    """Makes a `Program` of a chunk and the shared functions it refers to."""

    def __init__(self, owner: _Assembler, chunk: _Chunk, maps: tuple[MapDef, ...]) -> None:
        self.owner, self.chunk, self.maps = owner, chunk, maps
        self.map_index = {defn.name: i for i, defn in enumerate(maps)}
        self.kfuncs = {name: i for i, name in enumerate(chunk.kfuncs)}
        self.chunks: list[tuple[int, _Chunk]] = []
        self.shared_base: dict[str, int] = {}
        self.weak = {n for n, weak in (owner.weak | chunk.kfuncs).items() if weak}

    def program(self) -> Program:
        chunk = self.chunk
        if not chunk.slots:
            raise chunk.place.error(f"program {chunk.name} has no insns", 1)
        self.collect()
        insns: list[Insn] = []
        for base, part in self.chunks:
            for slot, opened in enumerate(part.slots):
                insns.append(self.resolve(part, base, slot, opened))
        must_sleep = PROG_TYPES[chunk.prog_type].sleepable is Sleepable.MUST
        return Program(
            chunk.name,
            tuple(insns),
            chunk.prog_type,
            self.subprogs(insns),
            must_sleep if chunk.sleepable is None else chunk.sleepable,
            chunk.license,
            self.maps,
            tuple(self.kfuncs),
            frozenset(self.weak & set(self.kfuncs)),
            (),
            chunk.attach,
            chunk.flags,
            types=tuple(self.owner.types.values()),
        )

    def collect(self) -> None:
        """Place the program's own slots, then each shared function that is reached from them."""
        todo, base = [self.chunk], 0
        while todo:
            part = todo.pop(0)
            self.chunks.append((base, part))
            base += len(part.slots)
            for opened in part.slots:
                ref = opened.ref
                name = ref.name if ref and ref.kind is not RefKind.KFUNC else None
                if name is None or name in part.labels or name in self.shared_base:
                    continue
                if (func := self.owner.shared.get(name)) is not None:
                    self.shared_base[name] = -1
                    todo.append(func)
        self.shared_base = {part.name: at for at, part in self.chunks[1:]}

    def resolve(self, part: _Chunk, base: int, slot: int, opened: OpenSlot) -> Insn:
        insn, ref = opened.insn, opened.ref
        if ref is None:
            return insn
        match ref.kind:
            case RefKind.JUMP_OFF:
                distance = self.distance(part, base, slot, opened, ref)
                if not -(1 << 15) <= distance < 1 << 15:
                    raise opened.place.error(
                        f"label {ref.name} is {distance} slots away, more than a jump reaches:"
                        " use gotol",
                        ref.col,
                    )
                return insn._replace(off=distance)
            case RefKind.JUMP_IMM | RefKind.LOCAL | RefKind.FUNC:
                return insn._replace(imm=self.distance(part, base, slot, opened, ref))
            case RefKind.CALL:
                return self.callee(part, base, slot, opened, ref)
            case RefKind.KFUNC:
                return insn._replace(imm=self.kfunc(ref.name))
            case RefKind.MAP | RefKind.MAP_VALUE:
                return insn._replace(imm=self.map_number(opened, ref))
            case RefKind.SYMBOL:
                if ref.name in self.map_index:
                    return insn._replace(imm=self.map_index[ref.name])
                distance = self.distance(part, base, slot, opened, ref, "map or label")
                return insn._replace(src=LdKind.FUNC.value, imm=distance)

    def find(self, part: _Chunk, base: int, name: str) -> int | None:
        if name in part.labels:
            return base + part.labels[name]
        if name in self.shared_base:
            return self.shared_base[name]
        if name == "exit":
            # bpf_conformance: the first exit defines this label.
            for slot, opened in enumerate(part.slots):
                row = isa.lookup(opened.insn)
                if row is not None and row.kind is Kind.EXIT:
                    return base + slot
        return None

    def distance(
        self,
        part: _Chunk,
        base: int,
        slot: int,
        opened: OpenSlot,
        ref: Ref,
        what: str = "label",
    ) -> int:
        target = self.find(part, base, ref.name)
        if target is None:
            known = ", ".join([*part.labels, *self.owner.shared])
            hint = f": expected one of {known}" if known and len(known) < 200 else ""
            raise opened.place.error(f"unknown {what} {ref.name}{hint}", ref.col)
        return target - (base + slot) - 1

    def callee(self, part: _Chunk, base: int, slot: int, opened: OpenSlot, ref: Ref) -> Insn:
        """A label, a helper, or else a kfunc."""
        helper, local = opened.insn, CallKind.LOCAL.value
        if ref.number is None and self.find(part, base, ref.name) is not None:
            distance = self.distance(part, base, slot, opened, ref)
            return helper._replace(src=local, imm=distance)
        if ref.name == "unknown" and ref.number is not None:
            return helper._replace(imm=s32(ref.number))
        number = self.owner.helpers.get(ref.name)
        if number is None:
            return helper._replace(src=CallKind.KFUNC.value, imm=self.kfunc(ref.name))
        if ref.number not in (None, number):
            raise opened.place.error(f"{ref.name} is helper {number}, not {ref.number}", ref.col)
        return helper._replace(imm=number)

    def kfunc(self, name: str) -> int:
        return self.kfuncs.setdefault(name, len(self.kfuncs))

    def map_number(self, opened: OpenSlot, ref: Ref) -> int:
        if ref.name not in self.map_index:
            known = ", ".join(self.map_index) or "a .map directive"
            raise opened.place.error(f"unknown map {ref.name}: expected {known}", ref.col)
        return self.map_index[ref.name]

    def subprogs(self, insns: Sequence[Insn]) -> tuple[Subprog, ...]:
        """What is called or declared, named by its label."""
        declared = {
            base + slot: func
            for base, part in self.chunks
            for slot, func in part.funcs.items()
            if base + slot < len(insns)
        }
        names = {0: self.chunk.name}
        for base, part in self.chunks:
            # The first label there gives the name; a compiler's own (.Ltmp1) only if alone.
            for label, slot in sorted(part.labels.items(), key=lambda at: at[0][:2] == ".L"):
                if slot < len(part.slots):
                    names.setdefault(base + slot, label)
        names |= {start: sub.name for start, sub in declared.items()}
        starts = {s.start for s in find_subprogs(insns)} | set(declared)
        ends = [*sorted(starts)[1:], len(insns)]
        return tuple(
            replace(declared[start], start=start, end=end)
            if start in declared
            else Subprog(start, end, names.get(start, f"subprog_{start}"))
            for start, end in zip(sorted(starts), ends, strict=True)
        )
