"""Requests of the JSON interface: their keys, types and defaults, read strictly.

`read_request` turns one JSON value into a `Request`; every fault of it is a `RequestError` that
names the place. Nothing is looked up in maps or programs here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntFlag
from typing import TypeVar

from bpfvm.bits import U32_MAX, U64_MAX
from bpfvm.context import PROG_TYPES, prog_type_by_number
from bpfvm.errors import BpfError
from bpfvm.maps.base import MapFlags, MapType
from bpfvm.privileges import PRIVILEGED, UNPRIVILEGED, Privileges
from bpfvm.program import LineInfo, Linkage, MapDef, Param
from bpfvm.record import FieldKind, MapField
from bpfvm.rules import KERNELS, NEWEST
from bpfvm.signature import PARAM_WORDS, RESULT_WORDS, param_of, result_of
from bpfvm.testrun import MEM

__all__ = [
    "DumpSpec",
    "FixupSpec",
    "FuncSpec",
    "MapSpec",
    "Pages",
    "ProgFlags",
    "Ranges",
    "Request",
    "RequestError",
    "RunSpec",
    "read_request",
]

#: Columns and lines share a word in BTF.
_MAX_LINE, _MAX_COL = (1 << 22) - 1, (1 << 10) - 1
_MAX_REPEAT, _MAX_TIMES = 10_000_000, 1000
_F = TypeVar("_F", bound=IntFlag)


class RequestError(BpfError):
    """A request that can't be understood."""


class ProgFlags(IntFlag):
    """BPF_F_* load flags."""

    STRICT_ALIGNMENT = 1
    ANY_ALIGNMENT = 2
    TEST_RND_HI32 = 4
    TEST_STATE_FREQ = 8
    SLEEPABLE = 16
    XDP_HAS_FRAGS = 32
    TEST_REG_INVARIANTS = 128


@dataclass(frozen=True, slots=True)
class FixupSpec:
    """A field of an insn that names something: *name* or *target*, by *kind*."""

    insn: int
    kind: str
    name: str = ""
    off: int = 0
    target: int = 0


@dataclass(frozen=True, slots=True)
class FuncSpec:
    """What BTF tells of the subprog that starts at slot *insn*."""

    insn: int
    name: str
    linkage: Linkage
    params: tuple[Param, ...]
    ret: Param | None


@dataclass(frozen=True, slots=True)
class MapSpec:
    """A map to create, its first contents, and whether user space maps its memory."""

    defn: MapDef
    mmap: bool
    init: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class RunSpec:
    """How to run: *times* measurements of *repeat* repetitions."""

    repeat: int = 1
    times: int = 1
    data_in: bytes | None = None
    ctx_in: bytes | None = None
    timeout_s: float = 20.0


@dataclass(frozen=True, slots=True)
class Ranges:
    """Bytes of an arena's user view to dump: (offset, size) each."""

    ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Pages:
    """Pages of an arena to look at, by the low 32 bits of an address in each."""

    pages: tuple[int, ...]


DumpSpec = bool | Ranges | Pages


@dataclass(frozen=True, slots=True)
class Request:
    """One request. None: not given, so what the text or a default says."""

    prog_type: str | None = None
    flags: int | None = None
    license: str | None = None
    expected_attach_type: int | None = None
    log_level: int = 1
    insns: bytes | None = None
    asm: str | None = None
    fixups: tuple[FixupSpec, ...] = ()
    funcs: tuple[FuncSpec, ...] = ()
    lines: tuple[LineInfo, ...] = ()
    maps: tuple[MapSpec, ...] = ()
    run: RunSpec | None = None
    dump: Mapping[str, DumpSpec] = field(default_factory=dict)
    xlated: bool = False
    jited: bool = False
    engine: str = "jit"
    verify: bool = True
    kernel: str = NEWEST
    budget: int | None = None
    privileges: Privileges = PRIVILEGED


class _Reader:
    """Takes the keys of one JSON object, each once and of its type; null counts as absent."""

    def __init__(self, value: object, place: str) -> None:
        if not isinstance(value, dict):
            raise RequestError(f"{place}: expected an object, not {_kind(value)}")
        self.left: dict[str, object] = dict(value)
        self.place = place

    def fail(self, key: str, problem: str) -> RequestError:
        return RequestError(f"{self.place}: {key}: {problem}")

    def take(self, key: str) -> object:
        return self.left.pop(key, None)

    def need(self, key: str) -> object:
        value = self.take(key)
        if value is None:
            raise self.fail(key, "missing")
        return value

    def text(self, key: str, default: str) -> str:
        value = self.take(key)
        return default if value is None else self.as_text(key, value)

    def optional_text(self, key: str) -> str | None:
        value = self.take(key)
        return None if value is None else self.as_text(key, value)

    def need_text(self, key: str) -> str:
        return self.as_text(key, self.need(key))

    def as_text(self, key: str, value: object) -> str:
        if not isinstance(value, str):
            raise self.fail(key, f"expected a string, not {_kind(value)}")
        return value

    def number(self, key: str, default: int, *, low: int = 0, high: int = U32_MAX) -> int:
        value = self.take(key)
        return default if value is None else self.as_number(key, value, low=low, high=high)

    def need_number(self, key: str) -> int:
        return self.as_number(key, self.need(key))

    def as_number(self, key: str, value: object, *, low: int = 0, high: int = U32_MAX) -> int:
        if isinstance(value, str):
            text = value
            try:
                value = int(text, 0)
            except ValueError:
                raise self.fail(key, f"not a number: {text[:40]!r}") from None
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.fail(key, f"expected a number, not {_kind(value)}")
        if not low <= value <= high:
            raise self.fail(key, f"out of range {low}..{high}")
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self.take(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.fail(key, f"expected true or false, not {_kind(value)}")
        return value

    def hex(self, key: str) -> bytes | None:
        value = self.take(key)
        return None if value is None else self.as_hex(key, value)

    def as_hex(self, key: str, value: object) -> bytes:
        if not isinstance(value, str):
            raise self.fail(key, f"expected hex bytes, not {_kind(value)}")
        try:
            return bytes.fromhex(value)
        except ValueError:
            raise self.fail(key, f"not hex bytes: {value[:40]!r}") from None

    def choice(self, key: str, choices: Sequence[str], default: str) -> str:
        value = self.take(key)
        return default if value is None else self.as_choice(key, value, choices)

    def need_choice(self, key: str, choices: Sequence[str]) -> str:
        return self.as_choice(key, self.need(key), choices)

    def as_choice(self, key: str, given: object, choices: Sequence[str]) -> str:
        value = self.as_text(key, given)
        if value not in choices:
            raise self.fail(key, f"{value!r} is none of {', '.join(choices)}")
        return value

    def items(self, key: str) -> Iterator[tuple[str, object]]:
        """Yield (place, item) of a list."""
        value = self.take(key)
        if value is None:
            return
        if not isinstance(value, list):
            raise self.fail(key, f"expected a list, not {_kind(value)}")
        for i, item in enumerate(value):
            yield f"{self.place}: {key}[{i}]", item

    def flags(self, key: str, names: type[_F]) -> int | None:
        """Return flag bits: a list of names, one name, or a number."""
        value = self.take(key)
        if value is None:
            return None
        bits = 0
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, str) and item.upper() in names.__members__:
                bits |= names[item.upper()]
            else:
                bits |= self.as_number(key, item)
        return bits

    def done(self) -> None:
        if self.left:
            unknown = ", ".join(sorted(map(str, self.left)))
            raise RequestError(f"{self.place}: unknown key {unknown}")


def _kind(value: object) -> str:
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a fraction", str: "a string"}
    return names.get(type(value)) or ("a list" if isinstance(value, list) else "an object")


def read_request(value: object) -> Request:
    """Return what a JSON value asks for.

    Raises:
        RequestError: it is no request; the text names the key.
    """
    reader = _Reader(value, "request")
    reader.take("name")
    prog_type = _prog_type(reader)
    engine = reader.choice("engine", ("interp", "jit", "kernel"), "jit")
    insns, text = reader.hex("insns"), reader.optional_text("asm")
    if insns is not None and text is not None:
        raise reader.fail("asm", "there are insns too: give one of the two")
    info = _Reader(reader.take("info") or {}, "request: info")
    run = reader.take("run")
    request = Request(
        prog_type=prog_type,
        flags=reader.flags("flags", ProgFlags),
        license=reader.optional_text("license"),
        expected_attach_type=reader.number("expected_attach_type", 0) or None,
        log_level=reader.number("log_level", 1, high=7),
        insns=insns,
        asm=text,
        fixups=tuple(_fixup(*item) for item in reader.items("fixups")),
        funcs=tuple(_func(*item) for item in reader.items("funcs")),
        lines=tuple(_line(*item) for item in reader.items("lines")),
        maps=_maps(reader),
        run=None if run is None else _run(run),
        dump=_dump(reader),
        xlated=info.flag("xlated", False),
        jited=info.flag("jited", False),
        engine=engine,
        verify=reader.flag("verify", prog_type != MEM),
        kernel=reader.choice("kernel", KERNELS, NEWEST),
        budget=reader.number("budget", 0, low=1, high=U64_MAX) or None,
        privileges=_privileges(reader),
    )
    info.done()
    reader.done()
    if engine == "kernel" and not request.verify:
        raise reader.fail("engine", "kernel: it runs verified programs only")
    if engine == "kernel" and request.privileges != PRIVILEGED:
        raise reader.fail("engine", "kernel: it is asked as the user who runs bpfvm")
    if engine == "kernel" and prog_type == MEM:
        raise reader.fail("engine", f"kernel: it has no program type {MEM}")
    return request


def _privileges(reader: _Reader) -> Privileges:
    """Return what "unpriv" or "caps" say; with neither the user is root."""
    unpriv = reader.flag("unpriv", False)
    if reader.left.get("caps") is None:
        return UNPRIVILEGED if unpriv else PRIVILEGED
    if unpriv:
        raise reader.fail("caps", "there is unpriv too: give one of the two")
    names = [reader.as_text("caps", name) for _, name in reader.items("caps")]
    try:
        return Privileges.named(names)
    except BpfError as error:
        raise reader.fail("caps", str(error)) from None


#: Other names of program types.
_ALIASES = {"raw_tracepoint": "raw_tp"}


def _prog_type(reader: _Reader) -> str | None:
    value = reader.take("prog_type")
    if value is None:
        return None
    value = _ALIASES.get(value, value) if isinstance(value, str) else value
    if isinstance(value, str) and value in (*PROG_TYPES, MEM):
        return value
    if isinstance(value, str) and not value[:1].isdigit():
        known = ", ".join([*PROG_TYPES, MEM])
        raise reader.fail("prog_type", f"{value!r} is none of {known}")
    number = reader.as_number("prog_type", value)
    found = prog_type_by_number(number)
    if found is None:
        raise reader.fail("prog_type", f"{number} is not supported")
    return found.name


def _fixup(place: str, value: object) -> FixupSpec:
    reader = _Reader(value, place)
    insn = reader.need_number("insn")
    kind = reader.need_choice("kind", ("map_fd", "map_value", "kfunc", "btf_var", "func", "call"))
    if kind == "btf_var":
        raise reader.fail("kind", "btf_var: kernel variables are not supported")
    if kind in ("func", "call"):
        fixup = FixupSpec(insn, kind, target=reader.need_number("target"))
    else:
        off = reader.number("off", 0) if kind == "map_value" else 0
        fixup = FixupSpec(insn, kind, name=reader.need_text("name"), off=off)
    reader.done()
    return fixup


def _line(place: str, value: object) -> LineInfo:
    reader = _Reader(value, place)
    line = LineInfo(
        reader.need_number("insn"),
        reader.need_text("file"),
        reader.number("line", 0, high=_MAX_LINE),
        reader.number("col", 0, high=_MAX_COL),
        reader.optional_text("source") or "",
    )
    reader.done()
    return line


def _func(place: str, value: object) -> FuncSpec:
    reader = _Reader(value, place)
    params = []
    for i, (where, arg) in enumerate(reader.items("args")):
        param = param_of(arg, f"a{i}") if isinstance(arg, str) else None
        if param is None:
            raise RequestError(f"{where}: {arg!r} is none of {', '.join(PARAM_WORDS)}")
        params.append(param)
    func = FuncSpec(
        reader.need_number("insn"),
        reader.need_text("name"),
        Linkage(reader.choice("linkage", tuple(link.value for link in Linkage), "static")),
        tuple(params),
        result_of(reader.choice("ret", RESULT_WORDS, "int")),
    )
    reader.done()
    return func


def _maps(request: _Reader) -> tuple[MapSpec, ...]:
    reader = _Reader(request.take("maps") or {}, f"{request.place}: maps")
    return tuple(
        _map(name, f"{reader.place}: {name}", value) for name, value in reader.left.items()
    )


def _map(name: str, place: str, value: object) -> MapSpec:
    reader = _Reader(value, place)
    kind = reader.need("type")
    if isinstance(kind, str) and kind.upper() in MapType.__members__:
        number = int(MapType[kind.upper()])
    elif isinstance(kind, str) and not kind[:1].isdigit():
        names = ", ".join(t.name.lower() for t in MapType)
        raise reader.fail("type", f"{kind!r} is none of {names}")
    else:
        number = reader.as_number("type", kind)
    is_arena = number == MapType.ARENA
    flags = reader.flags("flags", MapFlags)
    if flags is None:
        flags = MapFlags.MMAPABLE if is_arena else 0
    spec = MapSpec(
        MapDef(
            name,
            number,
            reader.number("key_size", 0 if is_arena else 4),
            reader.number("value_size", 0 if is_arena else 8),
            reader.number("max_entries", 1),
            int(flags),
            reader.number("map_extra", 0, high=U64_MAX),
            record=_record(reader),
        ),
        reader.flag("mmap", is_arena),
        tuple(_pair(*item) for item in reader.items("init")),
    )
    reader.done()
    return spec


def _record(reader: _Reader) -> tuple[MapField, ...] | None:
    """Return the special fields of a map's values: a list of {"kind": NAME, "off": N}."""
    if "fields" not in reader.left:
        return None
    kinds = {kind.label: kind for kind in FieldKind}
    found = []
    for place, value in reader.items("fields"):
        item = _Reader(value, place)
        kind = item.need("kind")
        if not isinstance(kind, str) or kind not in kinds:
            raise item.fail("kind", f"{kind!r} is none of {', '.join(kinds)}")
        found.append(MapField(kinds[kind], item.number("off", 0)))
        item.done()
    return tuple(sorted(found, key=lambda field: field.off))


def _pair(place: str, value: object) -> tuple[bytes, bytes]:
    reader = _Reader(value, place)
    pair = (
        reader.as_hex("key", reader.need("key")),
        reader.as_hex("value", reader.need("value")),
    )
    reader.done()
    return pair


def _run(value: object) -> RunSpec:
    reader = _Reader(value, "request: run")
    timeout = reader.take("timeout_s")
    if timeout is None:
        timeout = 20
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 <= timeout < 1e6:
        raise reader.fail("timeout_s", "expected seconds")
    run = RunSpec(
        min(reader.number("repeat", 1), _MAX_REPEAT),
        min(max(reader.number("times", 1), 1), _MAX_TIMES),
        reader.hex("data_in"),
        reader.hex("ctx_in"),
        float(timeout),
    )
    reader.done()
    return run


def _dump(request: _Reader) -> dict[str, DumpSpec]:
    reader = _Reader(request.take("dump") or {}, f"{request.place}: dump")
    return {name: _dump_one(reader, name, value) for name, value in reader.left.items()}


def _dump_one(reader: _Reader, name: str, value: object) -> DumpSpec:
    if isinstance(value, bool):
        return value
    if isinstance(value, dict):
        pages = _Reader(value, f"{reader.place}: {name}")
        found = tuple(
            pages.as_number("pages", page, high=U64_MAX) for _, page in pages.items("pages")
        )
        pages.done()
        return Pages(found)
    if not isinstance(value, list):
        raise reader.fail(name, f"expected true, ranges or pages, not {_kind(value)}")
    ranges = []
    for item in value:
        if not isinstance(item, list) or len(item) != 2:
            raise reader.fail(name, "expected [offset, size]")
        off, size = (reader.as_number(name, n, high=1 << 32) for n in item)
        ranges.append((off, size))
    return Ranges(tuple(ranges))
