"""Engines against each other: the same programs and inputs, and all they leave behind.

Each engine gets fresh maps and a fresh arena, whose user view lies at the same address for all;
clock and random numbers are the same too. Words that are addresses of an instance's own memory
are compared by the place they point to.

The running kernel (`bpfvm.kernel`) is an engine too. It has its own clock and random numbers, its
own addresses (where we have one, its word is not compared), r0 comes back as 32 bits, and of
streams and faults it tells nothing.
"""

from __future__ import annotations

import gc
import itertools
import random
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from bpfvm import generate, vm
from bpfvm.bits import U32_MAX
from bpfvm.console import Report, open_object
from bpfvm.context import PROG_TYPES
from bpfvm.disasm import disassemble
from bpfvm.errors import BpfError, RunFault
from bpfvm.exits import Exit
from bpfvm.kernel import (
    KernelError,
    KernelMap,
    KernelObject,
    KernelProg,
    refusal,
    running_rules,
)
from bpfvm.maps.base import Map, MapType
from bpfvm.memory import PAGE_SIZE
from bpfvm.program import ObjectFile
from bpfvm.rules import NEWEST
from bpfvm.runtime import ARENA_GUARD, Machine, RunContext

__all__ = ["Compared", "Difference", "Input", "compare", "diff"]

#: The engine that is the running kernel.
KERNEL = "kernel"
#: Insns a program that doesn't verify may execute.
_BUDGET = 1_000_000
_HEX = re.compile(rb"0x[0-9a-f]{8,16}")
#: Where addresses of an instance's memory are put before they are compared.
_PLACE = 0xB9F0 << 48
#: How far from our memory the address of a refused access is still told by its distance.
_NEAR = 1 << 32


@dataclass(frozen=True, slots=True)
class Input:
    """What one round gives its programs; None is what `bpfvm run` gives."""

    ctx: bytes | None = None
    data: bytes | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class _Left:
    """What one run of one program left behind: bytes by what they are, such as "r0".

    "end" says why the run ended early, b"" where it came to its end; *end* is the same with
    the addresses as they were. *refused* is the verifier's complaint.
    """

    prog: str
    verified: bool
    found: dict[str, bytes] = field(default_factory=dict)
    end: str = ""
    refused: str = ""
    max_ctx_offset: int = 0


@dataclass(frozen=True, slots=True)
class Difference:
    """The first thing in which the runs of two *engines* differ; b"" for what one of them does
    not have."""

    what: str
    one: bytes
    other: bytes
    engines: tuple[str, str] = ("interp", "jit")

    def __str__(self) -> str:
        first, second = self.engines
        if self.what in ("verdict", "end", "stdout", "stderr", "trace"):
            texts = (b.decode(errors="replace").strip() for b in (self.one, self.other))
            return f"{self.what}: {first} {next(texts)!r}, {second} {next(texts)!r}"
        pairs = itertools.zip_longest(self.one, self.other)
        at = next(i for i, (a, b) in enumerate(pairs) if a != b) & -8
        here = f" at byte {at}" if len(self.one) > 8 or len(self.other) > 8 else ""
        one, other = _shown(self.one, at), _shown(self.other, at)
        return f"{self.what}{here}: {first} {one}, {second} {other}"


def _shown(data: bytes, at: int) -> str:
    return data[at : at + 8].hex(" ") or "nothing"


class _Places:
    """The memory of one machine, to name addresses in it independently of where it lies."""

    def __init__(self, machine: Machine) -> None:
        space, arena = machine.space, machine.arena
        self.spans = [(space.window.base, space.window.size)]
        if space.low_window is not None:
            self.spans.append((space.low_window.base, space.low_window.size))
        if arena is not None:
            start = arena.kern_vm_start - ARENA_GUARD
            self.spans.append((start, (1 << 32) + 2 * ARENA_GUARD))

    def word(self, value: int, slack: int = 0) -> int:
        """Return *value*, or where it points to if that is in one of our spans, or no more than
        *slack* bytes beside one."""
        for number, (base, size) in enumerate(self.spans):
            if base <= value < base + size:
                return _PLACE | number << 40 | value - base
        for number, (base, size) in enumerate(self.spans):
            if base - slack <= value < base + size + slack:
                return _PLACE | (number + 8) << 40 | (value - base) & ((1 << 40) - 1)
        return value

    def words(self, data: bytes) -> bytes:
        """Return *data* with its aligned 8-byte words placed."""
        count = len(data) // 8
        words = struct.unpack_from(f"<{count}Q", data)
        if max(words, default=0) <= U32_MAX:
            return data
        return struct.pack(f"<{count}Q", *map(self.word, words)) + data[8 * count :]

    def text(self, data: bytes, slack: int = 0) -> bytes:
        """Return *data* with the addresses it spells placed."""
        return _HEX.sub(lambda m: f"{self.word(int(m[0], 16), slack):#x}".encode(), data)


@dataclass(frozen=True, slots=True)
class Compared:
    """One program's runs, the other engines' against the first one's."""

    prog: str
    verified: bool
    ended_early: bool
    difference: Difference | None


def compare(
    file: ObjectFile, given: Input, engines: Sequence[str] = ("interp", "jit")
) -> list[Compared]:
    """Run the programs of *file* with each of *engines*, in file order. Where the kernel is one of
    them, its rules are what the others verify by."""
    rules = running_rules() if KERNEL in engines else NEWEST
    first, *others = sorted(engines, key=lambda name: name == KERNEL)
    base, view = _observe(file, first, given, rules)
    placed = _at(file, view)
    differences: dict[str, Difference] = {}
    for engine in others:
        if engine == KERNEL:
            found = _ask_kernel(placed, given, base)
        else:
            left, _ = _observe(placed, engine, given, rules)
            found = {b.prog: _first_difference(a, b) for a, b in zip(base, left, strict=True)}
        for prog, (what, one, other) in ((p, d) for p, d in found.items() if d is not None):
            differences.setdefault(prog, Difference(what, one, other, (first, engine)))
    return [
        Compared(a.prog, a.verified, bool(a.found.get("end")), differences.get(a.prog))
        for a in base
    ]


_Difference = tuple[str, bytes, bytes]


def _first_difference(interp: _Left, jit: _Left) -> _Difference | None:
    for what in dict.fromkeys([*interp.found, *jit.found]):
        a, b = interp.found.get(what, b""), jit.found.get(what, b"")
        if what == "end" and interp.end == jit.end:
            continue  # a wild address that is no place in either instance
        if a != b or (what in interp.found) != (what in jit.found):
            return what, a, b
    return None


# -- the kernel ------------------------------------------------------------------------------------

#: Arena pages that are looked at in the kernel, from the first on.
_KERNEL_PAGES = 4096


def _ask_kernel(file: ObjectFile, given: Input, base: list[_Left]) -> dict[str, _Difference | None]:
    """Compare what our runs have left with the kernel's; programs that would make it warn are
    left out."""
    found: dict[str, _Difference | None] = {}
    warns = {p.name for p in vm.Object(file).programs.values() if p.contradicts(running_rules())}
    gc.collect()  # the kernel's arena wants the place of that object's
    with KernelObject(file) as obj:
        for ours in base:
            program = file.programs[ours.prog]
            if ours.prog in warns:
                continue
            prog = obj.load(program)
            if prog.verdict.ok != ours.verified:
                one = b"accepted" if ours.verified else ours.refused.encode()
                other = b"accepted" if prog.verdict.ok else prog.verdict.last.encode()
                found[ours.prog] = "verdict", one, other
            elif ours.verified:
                found[ours.prog] = _kernel_difference(obj, prog, given, ours)
            prog.close()
    return found


def _kernel_difference(
    obj: KernelObject, prog: KernelProg, given: Input, ours: _Left
) -> _Difference | None:
    prog_type = PROG_TYPES[prog.program.prog_type]
    ctx = None
    if prog_type.fields is None:
        ctx = given.ctx if given.ctx is not None else bytes(ours.max_ctx_offset)
    try:
        ran = prog.run(ctx=ctx or None, data=given.data if prog_type.packet else None)
    except KernelError as error:
        return None if ours.found["end"] else ("end", b"", str(error).encode())
    if ours.found["end"]:
        return "end", ours.found["end"], b""
    theirs = {"r0": ran.retval.to_bytes(8, "little")}
    if ran.ctx is not None:
        theirs["ctx"] = ran.ctx
    if ran.data is not None:
        theirs["data"] = ran.data
    for name, live in obj.maps.items():
        theirs.update(_kernel_contents(name, live))
    mine = dict(ours.found)
    if _words_of(mine["r0"])[0] >> 48 != _PLACE >> 48:
        mine["r0"] = mine["r0"][:4] + bytes(4)
    names = [what for what in mine if what.startswith(("map ", "arena "))]
    for what in dict.fromkeys([*theirs, *names]):
        a, b = mine.get(what, b""), theirs.get(what, b"")
        if (what in mine) != (what in theirs) or _without_places(a, b) != b:
            return what, a, b
    return None


def _kernel_contents(name: str, live: KernelMap) -> Iterator[tuple[str, bytes]]:
    if not live.is_arena:
        for key, value in live.items():
            yield f"map {name}, key {key.hex()}", value
        return
    for number in range(min(live.defn.max_entries, _KERNEL_PAGES)):
        data = live.arena_page(live.user_vm_start + number * PAGE_SIZE)
        if data is not None:
            yield f"arena {name}, page {number * PAGE_SIZE:#x}", data


def _words_of(data: bytes) -> tuple[int, ...]:
    return struct.unpack_from(f"<{len(data) // 8}Q", data)


def _without_places(ours: bytes, theirs: bytes) -> bytes:
    """Return *ours* with the kernel's word wherever we have an address: it has another one."""
    out = bytearray(ours)
    for i, word in enumerate(_words_of(ours)):
        if word >> 48 == _PLACE >> 48:
            out[8 * i : 8 * i + 8] = theirs[8 * i : 8 * i + 8]
    return bytes(out)


# -- our engines -----------------------------------------------------------------------------------


def _at(file: ObjectFile, user_vm_start: int) -> ObjectFile:
    """Return *file* with its arena's user view at *user_vm_start*."""
    if not user_vm_start:
        return file
    maps = tuple(
        replace(m, map_extra=user_vm_start) if m.map_type == MapType.ARENA else m for m in file.maps
    )
    programs = {name: replace(p, maps=maps) for name, p in file.programs.items()}
    return replace(file, programs=programs, maps=maps)


def _observe(file: ObjectFile, engine: str, given: Input, rules: str) -> tuple[list[_Left], int]:
    """Run the programs on fresh instances; return what each left, and the arena's user view."""
    obj = vm.Object(file)
    machine = obj.machine
    places = _Places(machine)
    left = [_run(prog, engine, given, places, rules) for prog in obj.programs.values()]
    view = machine.arena.user_vm_start if machine.arena is not None else 0
    # The next instance needs this one's addresses.
    del obj, machine
    gc.collect()
    return left, view


def _run(prog: vm.Prog, engine: str, given: Input, places: _Places, rules: str) -> _Left:
    verdict = prog.verify(kernel=rules)
    verified = verdict.ok
    prog_type = PROG_TYPES[prog.program.prog_type]
    ticks = itertools.count(1_000_000, 1_000)
    runs: list[RunContext] = []

    def setup(run: RunContext) -> None:
        run.clock = lambda: next(ticks)
        run.rng = random.Random(given.seed)
        runs.append(run)

    found: dict[str, bytes] = {}
    end = ""
    try:
        result = prog.run(
            engine=engine,
            ctx=given.ctx if prog_type.fields is None else None,
            data=given.data if prog_type.packet else None,
            verify=verified,
            kernel=rules,
            budget=None if verified else _BUDGET,
            setup=setup,
        )
    except BpfError as error:
        end = str(error) if isinstance(error, RunFault) else f"refused: {error}"
        found["end"] = places.text(end.encode(), _NEAR)
    else:
        found["end"] = b""
        found["r0"] = places.word(result.r0).to_bytes(8, "little")
        found["ctx"], found["data"] = places.words(result.ctx), places.words(result.data)
    for run in runs:
        found["stdout"] = places.text(bytes(run.stdout.data))
        found["stderr"] = places.text(bytes(run.stderr.data))
        found["trace"] = places.text(bytes(run.trace))
        for i, fault in enumerate(run.faults):
            found[f"fault {i}"] = struct.pack("<QQ?", fault.insn, fault.addr, fault.write)
    for live in prog.owner.machine.maps:
        found.update(_contents(prog.owner, live, places))
    max_ctx_offset = verdict.xlated.max_ctx_offset if verdict.xlated is not None else 0
    return _Left(prog.name, verified, found, end, verdict.last, max_ctx_offset)


def _contents(obj: vm.Object, live: Map, places: _Places) -> Iterator[tuple[str, bytes]]:
    name = live.defn.name
    if live.defn.map_type != MapType.ARENA:
        for key in live.keys_in_order():
            yield f"map {name}, key {key.hex()}", places.words(live[key])
        return
    free = obj.arena.free_ranges()
    ends = [(-1, -1), *free, (live.defn.max_entries, 0)]
    for (_, last), (start, _) in itertools.pairwise(ends):
        for page in range(last + 1, start):
            data = obj.arena.page(page)
            if data is not None:
                yield f"arena {name}, page {page * PAGE_SIZE:#x}", places.words(data)


# -- the command -------------------------------------------------------------------------------


def diff(
    file: str | None,
    random: int | None,
    seed: int,
    prog: str | None = None,
    engines: str = "interp,jit",
) -> int:
    """`bpfvm diff`: compare the engines on a file's programs, or on random ones."""
    chosen = _engines(engines)
    if file is not None:
        return _diff_file(file, prog, random, seed, chosen)
    if random is None or prog is not None:
        raise BpfError("diff: a FILE (and --prog), or --random N for random programs, or both")
    return _diff_random(random, seed, chosen)


def _engines(names: str) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys(name.strip() for name in names.split(",")))
    known = (*vm.ENGINES, KERNEL)
    for name in chosen:
        if name not in known:
            raise BpfError(f"diff: engines: {name!r} is none of {', '.join(known)}")
    if len(chosen) < 2:
        raise BpfError("diff: engines: two of them at least")
    why = refusal() if KERNEL in chosen else None
    if why is not None:
        raise BpfError(f"diff: engines: kernel: {why}")
    return chosen


def _diff_file(
    file: str, prog: str | None, rounds: int | None, seed: int, engines: tuple[str, ...]
) -> int:
    obj = open_object(file)
    report = Report(file)
    progs = report.choose(obj, prog)
    if not progs:
        return report.exit
    inputs = [Input(seed=seed)]
    if rounds is not None:
        inputs = [_random_input(seed + i) for i in range(rounds)]
    chosen = replace(obj.file, programs={p.name: p.program for p in progs})
    first: dict[str, str] = {}
    verified: dict[str, bool] = {}
    for given in inputs:
        for compared in compare(chosen, given, engines):
            verified[compared.prog] = compared.verified
            if compared.difference is not None:
                again = "" if rounds is None else f" (again: --random 1 --seed {given.seed})"
                first.setdefault(compared.prog, f"{compared.difference}{again}")
    for p in progs:
        how = "" if verified[p.name] else " (in the sandbox: it does not verify)"
        same = p.name not in first
        print(f"{p.name}: {'same' if same else f'differs: {first[p.name]}'}{how}")
    return max(report.exit, Exit.FAILED if first else Exit.FINE)


def _random_input(seed: int) -> Input:
    rng = random.Random(seed)
    # From an Ethernet header up; and whole words for the types whose context is plain memory.
    packet = rng.randbytes(rng.randrange(14, 256))
    return Input(rng.randbytes(8 * rng.randrange(1, 13)), packet, seed)


def _diff_random(count: int, seed: int, engines: tuple[str, ...]) -> int:
    verified = early = 0
    for number in range(seed, seed + count):
        program = generate.random_program(number, repeatable=KERNEL in engines)
        file = ObjectFile(f"random {number}", {program.name: program}, program.maps)
        (compared,) = compare(file, _random_input(number), engines)
        if compared.difference is not None:
            print(disassemble(file, vm.HELPER_IDS), end="")
            print(f"differs: {compared.difference} (again: --random 1 --seed {number})")
            return Exit.FAILED
        verified += compared.verified
        early += compared.ended_early
    print(
        f"same: {count} random programs, seeds {seed} to {seed + count - 1}: "
        f"{verified} verified, {early} ended early"
    )
    return Exit.FINE
