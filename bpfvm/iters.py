"""Open-coded iterators: kfuncs over an object of the program's own stack."""

from __future__ import annotations

import struct
from errno import E2BIG, EFAULT, EINVAL

from bpfvm.bits import s32, u32
from bpfvm.proto import ArgType, IterStep, IterType, KfuncFlags, RetType, kfunc
from bpfvm.runtime import MAY_GOTO_LIMIT, RunContext

__all__ = [
    "bpf_iter_bits_destroy",
    "bpf_iter_bits_new",
    "bpf_iter_bits_next",
    "bpf_iter_num_destroy",
    "bpf_iter_num_new",
    "bpf_iter_num_next",
]

_NUM = IterType("num", 1, 4)
_BITS = IterType("bits", 2, 4)
#: struct bpf_iter_num_kern: the current number, and the one behind the last.
_NUM_STATE = struct.Struct("<ii")
_NUM_ARGS = (ArgType.KF_ITER, ArgType.SCALAR, ArgType.SCALAR)


@kfunc(RetType.INT32, _NUM_ARGS, flags=KfuncFlags.SPINLOCK_SAFE, iterates=(_NUM, IterStep.NEW))
def bpf_iter_num_new(run: RunContext, it: int, start: int, end: int) -> int:
    """Begin to count from *start* up to but not including *end*.

    -EINVAL: the range is backwards; -E2BIG: more than the kernel's BPF_MAX_LOOPS numbers. Both
    leave an iterator without items.
    """
    first, last = s32(start), s32(end)
    error = 0
    if first > last:
        error = -EINVAL
    elif last - first > MAY_GOTO_LIMIT:
        error = -E2BIG
    # The kernel's counter stands before the first item, wrapping at 32 bits.
    state = _NUM_STATE.pack(0, 0) if error else _NUM_STATE.pack(s32(first - 1), last)
    run.write(it, state)
    return error


@kfunc(
    RetType.ITEM_OR_NULL,
    (ArgType.KF_ITER,),
    flags=KfuncFlags.SPINLOCK_SAFE,
    iterates=(_NUM, IterStep.NEXT),
)
def bpf_iter_num_next(run: RunContext, it: int) -> int:
    """Return the address of the next number, or 0 when they have run out."""
    current, end = _NUM_STATE.unpack(run.read(it, _NUM_STATE.size))
    following = s32(u32(current + 1))
    if following >= end:
        run.write(it, _NUM_STATE.pack(0, 0))
        return 0
    run.write(it, _NUM_STATE.pack(following, end))
    return it


@kfunc(
    RetType.VOID,
    (ArgType.KF_ITER,),
    flags=KfuncFlags.SPINLOCK_SAFE,
    iterates=(_NUM, IterStep.DESTROY),
)
def bpf_iter_num_destroy(run: RunContext, it: int) -> int:
    """End the iterator."""
    run.write(it, _NUM_STATE.pack(0, 0))
    return 0


#: struct bpf_iter_bits_kern: one word of bits, how many there are, and the last one given.
_BITS_STATE = struct.Struct("<Qii")
#: kernel: BITS_ITER_NR_WORDS_MAX
_MAX_WORDS = 511


@kfunc(
    RetType.INT32,
    (ArgType.KF_ITER, ArgType.KF_IGNORE, ArgType.SCALAR),
    iterates=(_BITS, IterStep.NEW),
)
def bpf_iter_bits_new(run: RunContext, it: int, words: int, count: int) -> int:
    """Begin with the bits that are set in the *count* 64-bit words at *words*.

    -EINVAL: none, -E2BIG: too many, -EFAULT: they can't be read. All leave an iterator without
    items.
    """
    count = u32(count)
    run.write(it, _BITS_STATE.pack(0, 0, 0))
    run.iter_bits.pop(it, None)
    if not words or not count:
        return -EINVAL
    if count > _MAX_WORDS:
        return -E2BIG
    bits = run.machine.space.read(words, 8 * count)
    if bits is None:
        return -EFAULT
    # The kernel keeps more words than one apart, too: the object has no room for them.
    run.iter_bits[it] = int.from_bytes(bits, "little")
    run.write(it, _BITS_STATE.pack(0, 64 * count, -1))
    return 0


@kfunc(RetType.ITEM_OR_NULL, (ArgType.KF_ITER,), iterates=(_BITS, IterStep.NEXT))
def bpf_iter_bits_next(run: RunContext, it: int) -> int:
    """Return the address of the next bit's number, or 0 when there are no more."""
    _, count, last = _BITS_STATE.unpack(run.read(it, _BITS_STATE.size))
    rest = run.iter_bits.get(it, 0) >> (last + 1) if 0 <= last + 1 < count else 0
    if not rest:
        run.write(it, _BITS_STATE.pack(0, 0, 0))
        return 0
    following = last + (rest & -rest).bit_length()
    run.write(it, _BITS_STATE.pack(0, count, following))
    return it + 12


@kfunc(RetType.VOID, (ArgType.KF_ITER,), iterates=(_BITS, IterStep.DESTROY))
def bpf_iter_bits_destroy(run: RunContext, it: int) -> int:
    """End the iterator."""
    run.iter_bits.pop(it, None)
    run.write(it, _BITS_STATE.pack(0, 0, 0))
    return 0
