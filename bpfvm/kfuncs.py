"""Kfuncs of the core: the streams (arena.md section 4.6). The arena's own live with the arena."""

from __future__ import annotations

import struct
from errno import EINVAL, ENOENT, ENOMEM, ENOSPC

from bpfvm.bits import u32
from bpfvm.printk import BUFFER_SIZE, c_string, clip, format_text
from bpfvm.proto import ArgType, KfuncFlags, RetType, kfunc
from bpfvm.runtime import RunContext, Stream

__all__ = ["bpf_stream_print_stack", "bpf_stream_vprintk"]

_FLAGS = KfuncFlags.SPINLOCK_SAFE | KfuncFlags.PERFMON
_MAX_ARGS = 12
#: No format this long prints less than the buffer holds, unless by tricks with empty strings.
_MAX_FORMAT = 4 * BUFFER_SIZE


def _stream(run: RunContext, stream_id: int) -> Stream | None:
    return {1: run.stdout, 2: run.stderr}.get(u32(stream_id))


@kfunc(
    RetType.INT32,
    (ArgType.SCALAR, ArgType.KF_CONST_STR, ArgType.KF_MEM, ArgType.KF_MEM_SIZE),
    flags=_FLAGS,
)
def bpf_stream_vprintk(run: RunContext, stream_id: int, fmt: int, args: int, size: int) -> int:
    """Print to stream *stream_id* by format *fmt* with the *size* // 8 values at *args*.

    -ENOENT: no such stream; -EINVAL: a size that is no array of up to 12 values, or a bad format;
    -ENOMEM: longer than the kernel's buffer; -ENOSPC: the stream is full.
    """
    stream = _stream(run, stream_id)
    if stream is None:
        return -ENOENT
    size = u32(size)
    if size % 8 or size > 8 * _MAX_ARGS or (size and not args):
        return -EINVAL
    values = struct.unpack(f"<{size // 8}Q", run.read(args, size))
    space = run.machine.space
    template = c_string(space, fmt, _MAX_FORMAT)
    text = None if template is None else format_text(template, values, space)
    if text is None:
        return -EINVAL
    if len(text) > BUFFER_SIZE:
        return -ENOMEM
    if len(text) == BUFFER_SIZE:
        text = clip(text) + b"\0"  # the buffer's last byte is its NUL, and it is all pushed
    return 0 if stream.push(text) else -ENOSPC


@kfunc(RetType.INT32, (ArgType.SCALAR,), flags=_FLAGS)
def bpf_stream_print_stack(run: RunContext, stream_id: int) -> int:
    """Print the call chain to stream *stream_id*; -ENOENT: no such stream.

    A dump that does not fit is dropped without an error.
    """
    stream = _stream(run, stream_id)
    if stream is None:
        return -ENOENT
    stream.push(run.stack_dump(run.pc, run.callers))
    return 0
