"""Kfuncs on strings that end with NUL (kernel/bpf/helpers.c).

Nothing is checked of their addresses before they run: what is no memory of the program's gives an
errno. Characters are unsigned, letters are those of Latin-1. No string is followed further than
XATTR_SIZE_MAX bytes.
"""

from __future__ import annotations

from errno import E2BIG, EFAULT, ENOENT, ERANGE

from bpfvm.bits import s32
from bpfvm.memory import AddressSpace
from bpfvm.proto import ArgType, KfuncFlags, RetType, kfunc
from bpfvm.runtime import RunContext

__all__ = [
    "bpf_strcasecmp",
    "bpf_strcasestr",
    "bpf_strchr",
    "bpf_strchrnul",
    "bpf_strcmp",
    "bpf_strcspn",
    "bpf_strlen",
    "bpf_strncasecmp",
    "bpf_strncasestr",
    "bpf_strnchr",
    "bpf_strnlen",
    "bpf_strnstr",
    "bpf_strrchr",
    "bpf_strspn",
    "bpf_strstr",
]

#: kernel: XATTR_SIZE_MAX
_MOST = 65536
#: Addresses from here on are the kernel's (x86-64): below, -ERANGE instead of -EFAULT.
_KERNEL_HALF = 1 << 63
_CHUNK = 256
_TEXT, _NUMBER = ArgType.KF_IGNORE, ArgType.SCALAR
_PERFMON = KfuncFlags.PERFMON


class _NoMemoryError(Exception):
    """A string is not where it was said to be; its argument is the errno."""


class _Text:
    """The bytes from an address on, read as they are asked for."""

    def __init__(self, space: AddressSpace, addr: int) -> None:
        self._space, self._addr = space, addr
        self._known = b""
        if space.read(addr, 1) is None and addr < _KERNEL_HALF:
            raise _NoMemoryError(ERANGE)

    def __getitem__(self, at: int) -> int:
        while at >= len(self._known):
            start = self._addr + len(self._known)
            more = self._space.read(start, _CHUNK) or self._space.read(start, 1)
            if more is None:
                raise _NoMemoryError(EFAULT)
            self._known += more
        return self._known[at]


def _lower(char: int) -> int:
    is_upper = 0x41 <= char <= 0x5A or (0xC0 <= char <= 0xDE and char != 0xD7)
    return char + 0x20 if is_upper else char


def _compare(run: RunContext, s1: int, s2: int, count: int, *, folds: bool) -> int:
    space = run.machine.space
    try:
        first, second = _Text(space, s1), _Text(space, s2)
        for at in range(min(count, _MOST)):
            a, b = first[at], second[at]
            if folds:
                a, b = _lower(a), _lower(b)
            if a != b:
                return -1 if a < b else 1
            if not a:
                return 0
    except _NoMemoryError as error:
        return -int(error.args[0])
    return -E2BIG if count >= _MOST else 0


@kfunc(RetType.INT32, (_TEXT, _TEXT), flags=_PERFMON)
def bpf_strcmp(run: RunContext, s1: int, s2: int) -> int:
    """Compare two strings: -1, 0 or 1."""
    return _compare(run, s1, s2, _MOST, folds=False)


@kfunc(RetType.INT32, (_TEXT, _TEXT), flags=_PERFMON)
def bpf_strcasecmp(run: RunContext, s1: int, s2: int) -> int:
    """Compare two strings whatever the case of their letters: -1, 0 or 1."""
    return _compare(run, s1, s2, _MOST, folds=True)


@kfunc(RetType.INT32, (_TEXT, _TEXT, _NUMBER), flags=_PERFMON)
def bpf_strncasecmp(run: RunContext, s1: int, s2: int, count: int) -> int:
    """As `bpf_strcasecmp`, of at most *count* characters."""
    return _compare(run, s1, s2, count, folds=True)


def _find(run: RunContext, s: int, count: int, char: int, missing: int | None) -> int:
    """Return where *char* is first; *missing*: what there is without it, None: its end's place."""
    try:
        text = _Text(run.machine.space, s)
        for at in range(min(count, _MOST)):
            if text[at] == char:
                return at
            if not text[at]:
                return at if missing is None else missing
    except _NoMemoryError as error:
        return -int(error.args[0])
    return -E2BIG if count >= _MOST or missing is None else missing


@kfunc(RetType.INT32, (_TEXT, _NUMBER), flags=_PERFMON)
def bpf_strchr(run: RunContext, s: int, char: int) -> int:
    """Return the index of the first *char*, or -ENOENT."""
    return _find(run, s, _MOST, char & 0xFF, -ENOENT)


@kfunc(RetType.INT32, (_TEXT, _NUMBER), flags=_PERFMON)
def bpf_strchrnul(run: RunContext, s: int, char: int) -> int:
    """Return the index of the first *char*, or of the string's end."""
    return _find(run, s, _MOST, char & 0xFF, None)


@kfunc(RetType.INT32, (_TEXT, _NUMBER, _NUMBER), flags=_PERFMON)
def bpf_strnchr(run: RunContext, s: int, count: int, char: int) -> int:
    """As `bpf_strchr`, in at most *count* characters."""
    return _find(run, s, count, char & 0xFF, -ENOENT)


@kfunc(RetType.INT32, (_TEXT, _NUMBER), flags=_PERFMON)
def bpf_strrchr(run: RunContext, s: int, char: int) -> int:
    """Return the index of the last *char*, or -ENOENT."""
    last, wanted = -ENOENT, s32(char)
    try:
        text = _Text(run.machine.space, s)
        for at in range(_MOST):
            if text[at] == wanted:
                last = at
            if not text[at]:
                return last
    except _NoMemoryError as error:
        return -int(error.args[0])
    return -E2BIG


@kfunc(RetType.INT32, (_TEXT,), flags=_PERFMON)
def bpf_strlen(run: RunContext, s: int) -> int:
    """Return the string's length."""
    return _length(run, s, _MOST)


@kfunc(RetType.INT32, (_TEXT, _NUMBER), flags=_PERFMON)
def bpf_strnlen(run: RunContext, s: int, count: int) -> int:
    """Return the string's length, at most *count*."""
    return _length(run, s, count)


def _length(run: RunContext, s: int, count: int) -> int:
    found = _find(run, s, count, 0, -ENOENT)
    return count if found == -ENOENT else found


def _span(run: RunContext, s: int, chars: int, *, of_them: bool) -> int:
    """Return how long the string's beginning of *chars* alone (*of_them*), or of others, is."""
    try:
        space = run.machine.space
        text, among = _Text(space, s), _Text(space, chars)
        for at in range(_MOST):
            char = text[at]
            if not char:
                return at
            other = 0
            while other < _MOST and among[other] not in (char, 0):
                other += 1
            if other == _MOST:
                return -E2BIG
            if bool(among[other]) is not of_them:
                return at
    except _NoMemoryError as error:
        return -int(error.args[0])
    return -E2BIG


@kfunc(RetType.INT32, (_TEXT, _TEXT), flags=_PERFMON)
def bpf_strspn(run: RunContext, s: int, accept: int) -> int:
    """Return how many characters at the beginning are all in *accept*."""
    return _span(run, s, accept, of_them=True)


@kfunc(RetType.INT32, (_TEXT, _TEXT), flags=_PERFMON)
def bpf_strcspn(run: RunContext, s: int, reject: int) -> int:
    """Return how many characters at the beginning are none of *reject*."""
    return _span(run, s, reject, of_them=False)


def _search(run: RunContext, s1: int, s2: int, count: int, *, folds: bool) -> int:
    """Return where *s2* is in the first *count* characters of *s1* (kernel: __bpf_strnstr)."""
    try:
        space = run.machine.space
        text, part = _Text(space, s1), _Text(space, s2)
        for at in range(_MOST):
            length = 0
            while at + length <= count and length < _MOST:
                b = part[length]
                if not b:
                    return at
                # One character of *s2* more may be read, for one that ends with *s1*.
                if at + length == count:
                    break
                a = text[at + length]
                if not a:
                    return -ENOENT
                if a != b and not (folds and _lower(a) == _lower(b)):
                    break
                length += 1
            if length == _MOST:
                return -E2BIG
            if at + length == count:
                return -ENOENT
    except _NoMemoryError as error:
        return -int(error.args[0])
    return -E2BIG


@kfunc(RetType.INT32, (_TEXT, _TEXT), flags=_PERFMON)
def bpf_strstr(run: RunContext, s1: int, s2: int) -> int:
    """Return the index of the first *s2* in *s1*, or -ENOENT."""
    return _search(run, s1, s2, _MOST, folds=False)


@kfunc(RetType.INT32, (_TEXT, _TEXT), flags=_PERFMON)
def bpf_strcasestr(run: RunContext, s1: int, s2: int) -> int:
    """As `bpf_strstr`, whatever the case of letters."""
    return _search(run, s1, s2, _MOST, folds=True)


@kfunc(RetType.INT32, (_TEXT, _TEXT, _NUMBER), flags=_PERFMON)
def bpf_strnstr(run: RunContext, s1: int, s2: int, count: int) -> int:
    """As `bpf_strstr`, in the first *count* characters of *s1*."""
    return _search(run, s1, s2, count, folds=False)


@kfunc(RetType.INT32, (_TEXT, _TEXT, _NUMBER), flags=_PERFMON)
def bpf_strncasestr(run: RunContext, s1: int, s2: int, count: int) -> int:
    """As `bpf_strcasestr`, in the first *count* characters of *s1*."""
    return _search(run, s1, s2, count, folds=True)
