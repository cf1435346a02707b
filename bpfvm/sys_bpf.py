"""bpf(2) itself: the few commands that a referee needs, each as one function.

Only loading, maps, BTF and test-runs; nothing is ever attached, pinned or enumerated: a command
that is not in `_Cmd` can't be issued. Layouts: Linux include/uapi/linux/bpf.h, union bpf_attr.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from errno import ENOENT, ENOSPC, ENOSYS
from functools import cache
from pathlib import Path
from types import FrameType

from bpfvm.errors import BpfError

__all__ = [
    "KernelError",
    "Loaded",
    "RunAnswer",
    "btf_load",
    "map_create",
    "map_delete",
    "map_freeze",
    "map_keys",
    "map_lookup",
    "map_mmap",
    "map_munmap",
    "map_update",
    "prog_code",
    "prog_load",
    "prog_test_run",
    "refusal",
    "taint",
]

_NR_BPF = {"x86_64": 321, "aarch64": 280, "riscv64": 280}
_TAINTED = Path("/proc/sys/kernel/tainted")
#: Taint bits of a kernel that has complained about itself: machine check, bad page, oops,
#: warning, soft lockup. What it says is not to be trusted, and nothing more is loaded into it.
_COMPLAINED = 1 << 4 | 1 << 5 | 1 << 7 | 1 << 9 | 1 << 14
_LOG_SIZE, _MAX_LOG_SIZE = 1 << 18, 1 << 24
_NAME_SIZE = 16
_MAP_FIXED_NOREPLACE = 0x100000


class KernelError(BpfError):
    """The kernel refused a command, with its positive `errno`; *log* is what it said."""

    def __init__(self, what: str, errno: int, log: str = "") -> None:
        self.errno, self.log = errno, log
        super().__init__(f"{what}: {os.strerror(errno)}")


class _Cmd(IntEnum):
    MAP_CREATE = 0
    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    MAP_GET_NEXT_KEY = 4
    PROG_LOAD = 5
    PROG_TEST_RUN = 10
    OBJ_GET_INFO_BY_FD = 15
    BTF_LOAD = 18
    MAP_FREEZE = 22


_U32, _U64 = ctypes.c_uint32, ctypes.c_uint64


class _MapCreate(ctypes.Structure):
    _fields_ = (
        ("map_type", _U32),
        ("key_size", _U32),
        ("value_size", _U32),
        ("max_entries", _U32),
        ("map_flags", _U32),
        ("inner_map_fd", _U32),
        ("numa_node", _U32),
        ("map_name", ctypes.c_char * _NAME_SIZE),
        ("map_ifindex", _U32),
        ("btf_fd", _U32),
        ("btf_key_type_id", _U32),
        ("btf_value_type_id", _U32),
        ("btf_vmlinux_value_type_id", _U32),
        ("map_extra", _U64),
    )


class _MapElem(ctypes.Structure):
    _fields_ = (
        ("map_fd", _U32),
        ("pad", _U32),
        ("key", _U64),
        ("value", _U64),  # or next_key
        ("flags", _U64),
    )


class _ProgLoad(ctypes.Structure):
    _fields_ = (
        ("prog_type", _U32),
        ("insn_cnt", _U32),
        ("insns", _U64),
        ("license", _U64),
        ("log_level", _U32),
        ("log_size", _U32),
        ("log_buf", _U64),
        ("kern_version", _U32),
        ("prog_flags", _U32),
        ("prog_name", ctypes.c_char * _NAME_SIZE),
        ("prog_ifindex", _U32),
        ("expected_attach_type", _U32),
        ("prog_btf_fd", _U32),
        ("func_info_rec_size", _U32),
        ("func_info", _U64),
        ("func_info_cnt", _U32),
        ("line_info_rec_size", _U32),
        ("line_info", _U64),
        ("line_info_cnt", _U32),
        ("attach_btf_id", _U32),
    )


class _TestRun(ctypes.Structure):
    _fields_ = (
        ("prog_fd", _U32),
        ("retval", _U32),
        ("data_size_in", _U32),
        ("data_size_out", _U32),
        ("data_in", _U64),
        ("data_out", _U64),
        ("repeat", _U32),
        ("duration", _U32),
        ("ctx_size_in", _U32),
        ("ctx_size_out", _U32),
        ("ctx_in", _U64),
        ("ctx_out", _U64),
        ("flags", _U32),
        ("cpu", _U32),
        ("batch_size", _U32),
        ("pad", _U32),
    )


class _GetInfo(ctypes.Structure):
    _fields_ = (("bpf_fd", _U32), ("info_len", _U32), ("info", _U64))


class _ProgInfo(ctypes.Structure):
    """The head of struct bpf_prog_info."""

    _fields_ = (
        ("type", _U32),
        ("id", _U32),
        ("tag", ctypes.c_uint8 * 8),
        ("jited_prog_len", _U32),
        ("xlated_prog_len", _U32),
        ("jited_prog_insns", _U64),
        ("xlated_prog_insns", _U64),
    )


class _BtfLoad(ctypes.Structure):
    _fields_ = (
        ("btf", _U64),
        ("btf_log_buf", _U64),
        ("btf_size", _U32),
        ("btf_log_size", _U32),
        ("btf_log_level", _U32),
        ("pad", _U32),
    )


class _Fd(ctypes.Structure):
    _fields_ = (("fd", _U32),)


_Buffer = ctypes.Array[ctypes.c_char]


def _addr(buffer: _Buffer | None) -> int:
    return ctypes.addressof(buffer) if buffer is not None else 0


def _buffer(data: bytes) -> _Buffer:
    return ctypes.create_string_buffer(data, max(1, len(data)))


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_long,
    )
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    return libc


def _bpf(cmd: _Cmd, attr: ctypes.Structure, what: str) -> int:
    """Issue *cmd*; return its result.

    Raises:
        KernelError: it failed; *what* names it in the text.
    """
    number = _NR_BPF.get(platform.machine())
    if sys.platform != "linux" or number is None:
        raise KernelError(what, ENOSYS)
    result = int(
        _libc().syscall(
            ctypes.c_long(number),
            ctypes.c_long(cmd),
            ctypes.byref(attr),
            ctypes.c_long(ctypes.sizeof(attr)),
        )
    )
    if result < 0:
        raise KernelError(what, ctypes.get_errno())
    return result


# -- may we ----------------------------------------------------------------------------------------


def taint() -> int:
    """Return the bits by which the running kernel says that it has complained about itself."""
    try:
        return int(_TAINTED.read_text()) & _COMPLAINED
    except (OSError, ValueError):
        return 0


def refusal() -> str | None:
    """Return in one line why the running kernel can't be asked, or None where it can."""
    if sys.platform != "linux" or platform.machine() not in _NR_BPF:
        return f"bpf(2) is not known for {sys.platform} on {platform.machine()}"
    complained = taint()
    if complained:
        return (
            f"the running kernel is tainted ({complained:#x}: it has warned or worse);"
            " nothing is loaded into it"
        )
    return _probe()


@cache
def _probe() -> str | None:
    """Load the smallest program there is, once."""
    loaded = prog_load(b"\xb7\0\0\0\0\0\0\0\x95\0\0\0\0\0\0\0", prog_type=1, log_level=0)
    if loaded.errno:
        why = os.strerror(loaded.errno).lower()
        return f"the running kernel does not let us load BPF ({why})"
    os.close(loaded.fd)
    return None


# -- maps ------------------------------------------------------------------------------------------


def _name(name: str) -> bytes:
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "_.") else "_" for c in name)
    return kept.encode()[: _NAME_SIZE - 1]


def map_create(
    name: str,
    map_type: int,
    key_size: int,
    value_size: int,
    max_entries: int,
    flags: int = 0,
    map_extra: int = 0,
    btf: tuple[int, int, int] = (0, 0, 0),
) -> int:
    """BPF_MAP_CREATE; return the map's file descriptor. *btf*: descriptor and ids of key and
    value."""
    attr = _MapCreate(
        map_type=map_type,
        key_size=key_size,
        value_size=value_size,
        max_entries=max_entries,
        map_flags=flags,
        map_name=_name(name),
        map_extra=map_extra,
        btf_fd=btf[0],
        btf_key_type_id=btf[1],
        btf_value_type_id=btf[2],
    )
    return _bpf(_Cmd.MAP_CREATE, attr, f"map {name} can't be created")


def map_lookup(fd: int, key: bytes, value_size: int) -> bytes:
    """BPF_MAP_LOOKUP_ELEM: return the value of *key*."""
    key_buffer, value = _buffer(key), _buffer(bytes(value_size))
    attr = _MapElem(map_fd=fd, key=_addr(key_buffer), value=_addr(value))
    _bpf(_Cmd.MAP_LOOKUP_ELEM, attr, "map lookup")
    return value.raw[:value_size]


def map_update(fd: int, key: bytes, value: bytes, flags: int = 0) -> None:
    """BPF_MAP_UPDATE_ELEM."""
    key_buffer, buffer = _buffer(key), _buffer(value)
    attr = _MapElem(map_fd=fd, key=_addr(key_buffer), value=_addr(buffer), flags=flags)
    _bpf(_Cmd.MAP_UPDATE_ELEM, attr, "map update")


def map_delete(fd: int, key: bytes) -> None:
    """BPF_MAP_DELETE_ELEM."""
    key_buffer = _buffer(key)
    _bpf(_Cmd.MAP_DELETE_ELEM, _MapElem(map_fd=fd, key=_addr(key_buffer)), "map delete")


def map_keys(fd: int, key_size: int, limit: int = 1 << 20) -> Iterator[bytes]:
    """Yield a map's keys, at most *limit*, in the kernel's order (BPF_MAP_GET_NEXT_KEY)."""
    key: _Buffer | None = None
    for _ in range(limit):
        following = _buffer(bytes(key_size))
        attr = _MapElem(map_fd=fd, key=_addr(key), value=_addr(following))
        try:
            _bpf(_Cmd.MAP_GET_NEXT_KEY, attr, "map keys")
        except KernelError as error:
            if error.errno == ENOENT:
                return
            raise
        yield following.raw[:key_size]
        key = following


def map_freeze(fd: int) -> None:
    """BPF_MAP_FREEZE: user space writes no more."""
    _bpf(_Cmd.MAP_FREEZE, _Fd(fd=fd), "map freeze")


def map_mmap(fd: int, size: int, at: int = 0) -> int:
    """Map *size* bytes of a map at address *at* (0: anywhere); return where they are."""
    fixed = _MAP_FIXED_NOREPLACE if at else 0
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    addr = _libc().mmap(at or None, size, protection, mmap.MAP_SHARED | fixed, fd, 0)
    if addr is None or addr == ctypes.c_void_p(-1).value:
        raise KernelError("map can't be mapped", ctypes.get_errno())
    return int(addr)


def map_munmap(addr: int, size: int) -> None:
    """Undo `map_mmap`."""
    _libc().munmap(addr, size)


# -- BTF and programs ------------------------------------------------------------------------------


def btf_load(data: bytes) -> int:
    """BPF_BTF_LOAD; return its file descriptor."""
    buffer, log = _buffer(data), _buffer(bytes(1 << 16))
    attr = _BtfLoad(
        btf=_addr(buffer),
        btf_size=len(data),
        btf_log_buf=_addr(log),
        btf_log_size=len(log),
        btf_log_level=1,
    )
    try:
        return _bpf(_Cmd.BTF_LOAD, attr, "BTF is refused")
    except KernelError as error:
        text = log.value.decode(errors="replace")
        raise KernelError("BTF is refused", error.errno, text) from None


@dataclass(frozen=True, slots=True)
class Loaded:
    """BPF_PROG_LOAD's answer: *fd* is -1 where *errno* is not 0."""

    fd: int
    errno: int
    log: str
    load_ns: int


def prog_load(
    insns: bytes,
    *,
    prog_type: int,
    flags: int = 0,
    license: str = "GPL",
    name: str = "",
    log_level: int = 1,
    expected_attach_type: int = 0,
    btf_fd: int = 0,
    func_info: bytes = b"",
    line_info: bytes = b"",
) -> Loaded:
    """BPF_PROG_LOAD: a rejection is a value.

    *func_info* has records of 8 bytes (insn, BTF id of the FUNC), *line_info* of 16 (insn, offsets
    of file and text, line and column). A log longer than 16 MiB keeps
    its end, where the complaint stands.

    Raises:
        KernelError: the program has not been judged, as nothing is loaded into a tainted kernel.
    """
    complained = taint()
    if complained:
        raise KernelError(f"the running kernel is tainted ({complained:#x})", ENOSYS)
    code, terms, funcs = _buffer(insns), _buffer(license.encode() + b"\0"), _buffer(func_info)
    lines = _buffer(line_info)
    size = _LOG_SIZE if log_level else 0
    while True:
        log = _buffer(bytes(size)) if size else None
        attr = _ProgLoad(
            prog_type=prog_type,
            insn_cnt=len(insns) // 8,
            insns=_addr(code),
            license=_addr(terms),
            log_level=log_level,
            log_size=size,
            log_buf=_addr(log),
            prog_flags=flags,
            prog_name=_name(name),
            expected_attach_type=expected_attach_type,
            prog_btf_fd=btf_fd,
            func_info_rec_size=8 if func_info else 0,
            func_info=_addr(funcs) if func_info else 0,
            func_info_cnt=len(func_info) // 8,
            line_info_rec_size=16 if line_info else 0,
            line_info=_addr(lines) if line_info else 0,
            line_info_cnt=len(line_info) // 16,
        )
        fd, errno, start = -1, 0, time.perf_counter_ns()
        try:
            fd = _bpf(_Cmd.PROG_LOAD, attr, "program load")
        except KernelError as error:
            errno = error.errno
        took = time.perf_counter_ns() - start
        if errno == ENOSPC and size and size < _MAX_LOG_SIZE:
            size *= 8
            continue
        text = log.value.decode(errors="replace") if log is not None else ""
        if errno == ENOSPC and size:
            # Too much to say: keep the end of it, and ask again for the verdict alone.
            again = prog_load(
                insns,
                prog_type=prog_type,
                flags=flags,
                license=license,
                name=name,
                log_level=0,
                expected_attach_type=expected_attach_type,
                btf_fd=btf_fd,
                func_info=func_info,
                line_info=line_info,
            )
            return Loaded(again.fd, again.errno, text, again.load_ns)
        return Loaded(fd, errno, text, took)


def prog_code(fd: int) -> tuple[bytes, bytes]:
    """Return a loaded program's insns as the verifier rewrote them, and its machine code."""
    info = _ProgInfo()
    attr = _GetInfo(bpf_fd=fd, info_len=ctypes.sizeof(info), info=ctypes.addressof(info))
    _bpf(_Cmd.OBJ_GET_INFO_BY_FD, attr, "program info")
    jited, xlated = _buffer(bytes(info.jited_prog_len)), _buffer(bytes(info.xlated_prog_len))
    want = _ProgInfo(
        jited_prog_len=info.jited_prog_len,
        xlated_prog_len=info.xlated_prog_len,
        jited_prog_insns=_addr(jited),
        xlated_prog_insns=_addr(xlated),
    )
    attr = _GetInfo(bpf_fd=fd, info_len=ctypes.sizeof(want), info=ctypes.addressof(want))
    _bpf(_Cmd.OBJ_GET_INFO_BY_FD, attr, "program info")
    return xlated.raw[: info.xlated_prog_len], jited.raw[: info.jited_prog_len]


@dataclass(frozen=True, slots=True)
class RunAnswer:
    """BPF_PROG_TEST_RUN's answer; *data* and *ctx* are None where none came back."""

    retval: int
    duration_ns: int
    wall_ns: int
    data: bytes | None
    ctx: bytes | None


#: Bytes that a packet may grow by.
_HEADROOM = 512


def prog_test_run(
    fd: int,
    *,
    data: bytes | None = None,
    ctx: bytes | None = None,
    repeat: int = 0,
    ctx_in_place: bool = False,
    ctx_size_out: int = 0,
    timeout_s: float = 20.0,
) -> RunAnswer:
    """BPF_PROG_TEST_RUN. An alarm ends repetitions after *timeout_s* seconds (main thread only).

    *ctx_in_place*: the context comes back where it was given (syscall programs).

    Raises:
        KernelError: the run was refused or interrupted.
    """
    data_in = _buffer(data) if data is not None else None
    data_out = _buffer(bytes(len(data) + _HEADROOM)) if data is not None else None
    ctx_in = _buffer(ctx) if ctx else None
    ctx_out = _buffer(bytes(ctx_size_out)) if ctx_size_out else None
    attr = _TestRun(
        prog_fd=fd,
        data_size_in=len(data or b""),
        data_size_out=len(data_out) if data_out is not None else 0,
        data_in=_addr(data_in),
        data_out=_addr(data_out),
        repeat=repeat,
        ctx_size_in=len(ctx or b""),
        ctx_size_out=ctx_size_out,
        ctx_in=_addr(ctx_in),
        ctx_out=_addr(ctx_out),
    )
    start = time.perf_counter_ns()
    with _alarm(timeout_s):
        _bpf(_Cmd.PROG_TEST_RUN, attr, "test run")
    wall = time.perf_counter_ns() - start
    left = None
    if ctx_in is not None and ctx_in_place:
        left = ctx_in.raw[: len(ctx or b"")]
    elif ctx_out is not None:
        left = ctx_out.raw[: attr.ctx_size_out]
    out = data_out.raw[: attr.data_size_out] if data_out is not None else None
    return RunAnswer(int(attr.retval), int(attr.duration), wall, out, left)


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """The kernel gives up repeating when a signal is pending."""
    if threading.current_thread() is not threading.main_thread() or seconds <= 0:
        yield
        return

    def ignore(_number: int, _frame: FrameType | None) -> None:
        return None

    before = signal.signal(signal.SIGALRM, ignore)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
