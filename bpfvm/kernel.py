"""The running kernel as a referee and an engine: what `bpf(2)` says of a program, and does with it.

A `KernelObject` creates an object file's maps in the kernel and loads its programs: never attached,
only test-run. Each program is written to a file before it is loaded, so that a kernel that does
not survive it leaves a witness. A kernel that has complained about itself is asked no more.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import re
import struct
from collections.abc import Iterator, Mapping
from errno import ENOENT
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

from bpfvm import sys_bpf
from bpfvm.bits import U32_MAX, u32
from bpfvm.btf import func_ids
from bpfvm.btfgen import map_btf, prog_btf
from bpfvm.context import PROG_TYPES
from bpfvm.errors import BpfError
from bpfvm.insn import Insn, encode
from bpfvm.isa import CallKind, Kind, LdKind, lookup
from bpfvm.maps.base import MapFlags, MapType
from bpfvm.memory import PAGE_SIZE
from bpfvm.program import LineInfo, MapDef, ObjectFile, Program, Subprog
from bpfvm.rules import KERNELS
from bpfvm.signature import words_of
from bpfvm.sys_bpf import KernelError, RunAnswer, refusal
from bpfvm.xlated import Stats, Verdict

__all__ = [
    "KernelError",
    "KernelMap",
    "KernelObject",
    "KernelProg",
    "closing_line",
    "refusal",
    "request_of",
    "running_rules",
]

_VMLINUX = Path("/sys/kernel/btf/vmlinux")
#: BPF_F_SLEEPABLE
_SLEEPABLE = 16
_STATS = re.compile(
    r"processed (\d+) insns \(limit (\d+)\) max_states_per_insn (\d+) "
    r"total_states (\d+) peak_states (\d+) mark_read (\d+)"
)
#: What 7.3 tells people at length, amid the lines that tell it in short.
_REPORT = re.compile(
    r"\nVerification failed: .*?(?:\nSuggestion:\n(?:  [^\n]*\n)+|(?=\nprocessed ))", re.DOTALL
)
#: Program types whose context and packet make an skb or xdp buff.
_PACKET_TYPES = frozenset({"socket_filter", "sched_cls", "xdp"})
#: Words of an arena page.
_WORDS = PAGE_SIZE // 8


def running_rules() -> str:
    """Return the rules that come nearest to the running kernel's: those of the newest kernel that
    is not newer, or the oldest that we follow."""
    release = _version(platform.release())
    older = [kernel for kernel in KERNELS if _version(kernel) <= release]
    return older[-1] if older else KERNELS[0]


def _version(release: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", release)
    return (int(found[1]), int(found[2])) if found else (0, 0)


@cache
def _kfunc_ids() -> Mapping[str, int]:
    try:
        return func_ids(_VMLINUX.read_bytes(), str(_VMLINUX))
    except OSError as error:
        raise BpfError(f"{_VMLINUX}: {error.strerror}: kfuncs have no numbers") from None


def closing_line(log: str) -> str:
    """Return the line of a log that comes before its statistics, reports left out."""
    log = _REPORT.sub("\n", log)
    # One message of 6.18 lacks its newline.
    lines = re.sub(r"(?<!\n)(processed \d+ insns)", r"\n\1", log).splitlines()
    kept = [line.rstrip() for line in lines if line.strip()]
    while kept and re.match(r"(processed \d+ insns|verification time|stack depth) ?", kept[-1]):
        kept.pop()
    return kept[-1] if kept else ""


def _stats(log: str) -> Stats:
    found = _STATS.search(log)
    return Stats(*map(int, found.groups())) if found else Stats()


# -- a program as a request, for the witness file and for other tools ------------------------------


def request_of(program: Program, log_level: int = 1) -> dict[str, object]:
    """Return the request of the JSON interface that loads *program* with its maps."""
    told = any(sub.params is not None for sub in program.subprogs)
    return {
        "prog_type": program.prog_type,
        "flags": _load_flags(program),
        "license": program.license,
        "expected_attach_type": program.expected_attach_type,
        "log_level": log_level,
        "insns": encode(program.insns).hex(),
        "fixups": list(_fixups(program)),
        **({"funcs": [_func(sub) for sub in program.subprogs]} if told else {}),
        **({"lines": [_line(line) for line in program.line_info]} if program.line_info else {}),
        "maps": {
            defn.name: {
                "type": defn.map_type,
                "key_size": defn.key_size,
                "value_size": defn.value_size,
                "max_entries": defn.max_entries,
                "flags": defn.flags,
                "map_extra": hex(defn.map_extra),
                "mmap": bool(defn.flags & MapFlags.MMAPABLE),
            }
            for defn in program.maps
        },
    }


def _line(line: LineInfo) -> dict[str, object]:
    return {
        "insn": line.insn_off,
        "file": line.file,
        "line": line.line,
        "col": line.col,
        "source": line.source,
    }


def _func(sub: Subprog) -> dict[str, object]:
    args, ret = words_of(sub.params or (), sub.ret)
    return {
        "insn": sub.start,
        "name": sub.name,
        "linkage": sub.linkage.value,
        "args": args.split(",") if args else [],
        "ret": ret,
    }


def _fixups(program: Program) -> Iterator[dict[str, object]]:
    for slot, insn in enumerate(program.insns):
        named = _named(program, slot, insn)
        if named is CallKind.KFUNC:
            yield {"insn": slot, "kind": "kfunc", "name": program.kfuncs[insn.imm]}
        elif named is LdKind.MAP_IDX:
            yield {"insn": slot, "kind": "map_fd", "name": program.maps[insn.imm].name}
        elif named is LdKind.MAP_IDX_VALUE:
            name, off = program.maps[insn.imm].name, program.insns[slot + 1].imm & U32_MAX
            yield {"insn": slot, "kind": "map_value", "name": name, "off": off}


def _named(program: Program, slot: int, insn: Insn) -> CallKind | LdKind | None:
    """Return which of a program's names the insn in *slot* refers to by its number, if any."""
    row = lookup(insn)
    if row is None:
        return None
    if row.kind is Kind.CALL and row.op is CallKind.KFUNC:
        return CallKind.KFUNC if insn.imm in range(len(program.kfuncs)) else None
    is_whole = slot + 1 < len(program.insns) and insn.imm in range(len(program.maps))
    if row.kind is Kind.LDIMM64 and is_whole:
        kinds = (LdKind.MAP_IDX, LdKind.MAP_IDX_VALUE)
        return next((kind for kind in kinds if row.op is kind), None)
    return None


def _load_flags(program: Program) -> int:
    return program.flags | (_SLEEPABLE if program.sleepable else 0)


def _witness(program: Program, log_level: int) -> None:
    """Put the program on disk before the kernel sees it."""
    path = os.environ.get("BPFVM_KERNEL_LAST")
    if path is None:
        state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
        path = f"{state}/bpfvm/kernel-last.json"
    target = Path(path).expanduser()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("w") as file:
            json.dump({"engine": "kernel", **request_of(program, log_level)}, file)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise BpfError(
            f"{target}: {error.strerror}: each program is written there before the kernel loads it"
            " (BPFVM_KERNEL_LAST names another file)"
        ) from None


# -- maps ------------------------------------------------------------------------------------------


class KernelMap:
    """A live map in the kernel.

    Attributes:
        defn: what it was created from.
        fd: its file descriptor.
        user_vm_start: where its memory is mapped in this process, or 0.
    """

    def __init__(self, defn: MapDef, *, mapped: bool) -> None:
        self.defn = defn
        self.user_vm_start = 0
        self._size = 0
        self._peek: tuple[KernelMap, KernelProg] | None = None
        btf = (0, 0, 0)
        if defn.record is not None:
            blob, key, value = map_btf(defn)
            btf = sys_bpf.btf_load(blob), key, value
        try:
            self.fd = sys_bpf.map_create(
                defn.name,
                defn.map_type,
                defn.key_size,
                defn.value_size,
                defn.max_entries,
                defn.flags,
                defn.map_extra,
                btf,
            )
        finally:
            if btf[0]:
                os.close(btf[0])
        try:
            if mapped:
                self._map()
            self._fill()
        except BaseException:
            self.close()
            raise

    @property
    def is_arena(self) -> bool:
        """Whether it is an arena."""
        return self.defn.map_type == MapType.ARENA

    def _map(self) -> None:
        defn = self.defn
        size = defn.max_entries * PAGE_SIZE
        if not self.is_arena:
            whole = defn.max_entries * (-(-defn.value_size // 8) * 8)
            size = -(-whole // PAGE_SIZE) * PAGE_SIZE
        self.user_vm_start = sys_bpf.map_mmap(self.fd, size, defn.map_extra)
        self._size = size

    def _fill(self) -> None:
        image = self.defn.image
        if image is not None and self.is_arena:
            if not self.user_vm_start or self.defn.flags & MapFlags.SEGV_ON_FAULT:
                raise BpfError(f"map {self.defn.name}: its variables can't be put into the arena")
            ctypes.memmove(self.user_vm_start + self._size - len(image), image, len(image))
        elif image is not None:
            self[bytes(4)] = image.ljust(self.defn.value_size, b"\0")
        if self.defn.frozen:
            sys_bpf.map_freeze(self.fd)

    def __getitem__(self, key: bytes) -> bytes:
        return sys_bpf.map_lookup(self.fd, key, self.defn.value_size)

    def __setitem__(self, key: bytes, value: bytes) -> None:
        sys_bpf.map_update(self.fd, key, value)

    def items(self) -> list[tuple[bytes, bytes]]:
        """Return all elements, in the kernel's order."""
        return [(key, self[key]) for key in sys_bpf.map_keys(self.fd, self.defn.key_size)]

    def arena_bytes(self, off: int, size: int) -> bytes:
        """Return bytes of the user view, as user space reads them: absent pages come to life.

        Raises:
            BpfError: not mapped, outside, or an absent page that user space may not make.
        """
        if not self.user_vm_start or off + size > self._size:
            raise BpfError(f"map {self.defn.name}: {size} bytes at {off:#x} are not mapped")
        out = bytearray()
        # Through the file a page that can't be had is an error instead of a signal.
        with open("/proc/self/mem", "rb", buffering=0) as memory:
            memory.seek(self.user_vm_start + off)
            while len(out) < size:
                try:
                    part = memory.read(size - len(out))
                except OSError as error:
                    raise BpfError(f"map {self.defn.name}: {error.strerror}") from None
                out += part
        return bytes(out)

    def arena_page(self, addr: int) -> bytes | None:
        """Return the page at the low 32 bits of *addr* as programs see it, or None if absent.

        A program of ours looks at it; nothing is allocated.
        """
        if self._peek is None:
            out = KernelMap(MapDef("peek", MapType.ARRAY, 4, PAGE_SIZE, 1), mapped=False)
            try:
                self._peek = out, KernelProg(_peek_program(self.defn, out.defn), [self, out], 1)
            except BaseException:
                out.close()
                raise
        out, prog = self._peek
        page = u32(addr) & -PAGE_SIZE
        answer = prog.run(ctx=struct.pack("<Q", page))
        return out[bytes(4)] if answer.retval else None

    def close(self) -> None:
        """Let the kernel have it back."""
        if self._peek is not None:
            for held in self._peek:
                held.close()
            self._peek = None
        if self.user_vm_start:
            sys_bpf.map_munmap(self.user_vm_start, self._size)
            self.user_vm_start = 0
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _peek_program(arena: MapDef, out: MapDef) -> Program:
    """Return a program that copies the arena page at *(u64 *)ctx to the value of *out*, and
    returns 1; 0 where the page is absent.

    A first word of 0 does not tell: then a byte is set, which only a present page keeps, and
    cleared again.
    """
    r0, r1, r3, r6, r7, r8 = 0, 1, 3, 6, 7, 8
    code = [
        Insn(0xBF, r6, r1),  # r6 = r1
        *(Insn(0x18, r1, LdKind.MAP_IDX.value, 0, 0), Insn(0)),
        Insn(0x79, r7, r6),  # r7 = *(u64 *)(r6 + 0)
        Insn(0xBF, r7, r7, 1, 1),  # r7 = addr_space_cast(r7, 0, 1)
        *(Insn(0x18, r8, LdKind.MAP_IDX_VALUE.value, 0, 1), Insn(0)),
        Insn(0x79, r3, r7),
        Insn(0x55, r3, 0, 6, 0),  # if r3 != 0: present
        Insn(0x72, r7, 0, 0, 1),  # *(u8 *)(r7 + 0) = 1
        Insn(0x71, r3, r7),
        Insn(0x72, r7, 0, 0, 0),
        Insn(0x55, r3, 0, 2, 0),
        Insn(0xB7, r0, 0, 0, 0),
        Insn(0x95),
    ]
    for word in range(_WORDS):
        code += [Insn(0x79, r3, r7, 8 * word), Insn(0x7B, r8, r3, 8 * word)]
    code += [Insn(0xB7, r0, 0, 0, 1), Insn(0x95)]
    return Program("peek", tuple(code), "syscall", sleepable=True, maps=(arena, out))


# -- programs --------------------------------------------------------------------------------------


class KernelProg:
    """A program that was given to the kernel, and its verdict (without `xlated`).

    Attributes:
        verdict: the kernel's.
        load_ns: time of the load.
    """

    def __init__(self, program: Program, maps: list[KernelMap], log_level: int) -> None:
        prog_type = PROG_TYPES.get(program.prog_type)
        if prog_type is None:
            raise BpfError(f"{program.name}: the kernel has no program type {program.prog_type}")
        self.program = program
        code = encode(_bound(program, maps))
        _witness(program, log_level)
        btf_fd, info, lines = 0, b"", b""
        try:
            if program.line_info or any(sub.params is not None for sub in program.subprogs):
                btf, info, lines = prog_btf(program)
                btf_fd = sys_bpf.btf_load(btf)
            loaded = sys_bpf.prog_load(
                code,
                prog_type=prog_type.number,
                flags=_load_flags(program),
                license=program.license,
                name=program.name,
                log_level=log_level,
                expected_attach_type=program.expected_attach_type,
                btf_fd=btf_fd,
                func_info=info,
                line_info=lines,
            )
        finally:
            if btf_fd:
                os.close(btf_fd)
        self.fd, self.load_ns = loaded.fd, loaded.load_ns
        self.verdict = Verdict(
            ok=not loaded.errno,
            errno=loaded.errno,
            log=loaded.log,
            last=closing_line(loaded.log) if loaded.errno else "",
            stats=_stats(loaded.log),
        )

    def run(
        self,
        *,
        ctx: bytes | None = None,
        data: bytes | None = None,
        repeat: int = 1,
        timeout_s: float = 20.0,
    ) -> RunAnswer:
        """Test-run the program.

        Raises:
            KernelError: the kernel refuses such input, or the program was rejected.
        """
        if self.fd < 0:
            raise KernelError(f"{self.program.name} was rejected", ENOENT)
        has_packet = self.program.prog_type in _PACKET_TYPES
        if has_packet and data is None:
            data = bytes(64)
        row = PROG_TYPES[self.program.prog_type]
        return sys_bpf.prog_test_run(
            self.fd,
            data=data if has_packet else data or None,
            ctx=ctx,
            repeat=repeat if has_packet else 0,
            ctx_in_place=self.program.prog_type == "syscall",
            ctx_size_out=row.ctx_size if ctx and has_packet else 0,
            timeout_s=timeout_s,
        )

    def code(self) -> tuple[bytes, bytes]:
        """Return the insns as the kernel rewrote them, and the machine code."""
        return sys_bpf.prog_code(self.fd)

    def close(self) -> None:
        """Unload the program."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _bound(program: Program, maps: list[KernelMap]) -> tuple[Insn, ...]:
    """Return the insns with descriptors and BTF ids in the place of names."""
    insns = list(program.insns)
    for slot, insn in enumerate(program.insns):
        named = _named(program, slot, insn)
        if named is CallKind.KFUNC:
            name = program.kfuncs[insn.imm]
            number = _kfunc_ids().get(name)
            if number is None:
                raise KernelError(f"the running kernel has no kfunc {name}", ENOENT)
            insns[slot] = insn._replace(imm=number)
        elif named is LdKind.MAP_IDX:
            insns[slot] = insn._replace(src=LdKind.MAP_FD.value, imm=maps[insn.imm].fd)
        elif named is LdKind.MAP_IDX_VALUE:
            insns[slot] = insn._replace(src=LdKind.MAP_VALUE.value, imm=maps[insn.imm].fd)
    return tuple(insns)


class KernelObject:
    """The maps of an object file in the running kernel, and the programs loaded with them.

    Args:
        file: what to create.
        mapped: names of maps that user space maps; by default arenas.

    Raises:
        KernelError: a map can't be created or filled; its text names the map.
    """

    def __init__(self, file: ObjectFile, mapped: frozenset[str] | None = None) -> None:
        self.maps: dict[str, KernelMap] = {}
        self._progs: list[KernelProg] = []
        try:
            for defn in file.maps:
                is_mapped = (
                    defn.map_type == MapType.ARENA if mapped is None else defn.name in mapped
                )
                self.maps[defn.name] = KernelMap(defn, mapped=is_mapped)
        except BaseException:
            self.close()
            raise

    def load(self, program: Program, log_level: int = 1) -> KernelProg:
        """Load *program*, whose maps are the object's; a rejection is its verdict.

        Raises:
            KernelError: it could not be judged: an unknown kfunc, refused BTF, a tainted kernel.
        """
        prog = KernelProg(program, [self.maps[defn.name] for defn in program.maps], log_level)
        self._progs.append(prog)
        return prog

    def close(self) -> None:
        """Give everything back."""
        for prog in self._progs:
            prog.close()
        self._progs.clear()
        for live in self.maps.values():
            live.close()
        self.maps.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
