"""What the kernel selftests' annotations say of a program: decl tags on its function.

Two spellings are understood: `comment:test_expect_msg=<counter>=text` (6.12) and
`comment:<counter>:test_expect_msg=text` (7.3), where the counter gives the order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from bpfvm.bits import S32_MIN, U32_MAX, s32
from bpfvm.errors import BpfError, LoadError, shown
from bpfvm.patterns import Pattern, line_patterns
from bpfvm.privileges import UNPRIVILEGED, Privileges

__all__ = ["ANY_VALUE", "Annotations", "Expectation", "LoadMode", "read_annotations"]

#: A retval that stands for any (`POINTER_VALUE`).
ANY_VALUE = 0xBADCAFE
_NAMED_VALUES = {
    "INT_MIN": S32_MIN,
    "_INT_MIN": S32_MIN,
    "POINTER_VALUE": ANY_VALUE,
    "TEST_DATA_LEN": 64,
}
_FLAGS = {
    "BPF_F_STRICT_ALIGNMENT": 1,
    "BPF_F_ANY_ALIGNMENT": 2,
    "BPF_F_TEST_RND_HI32": 4,
    "BPF_F_TEST_STATE_FREQ": 8,
    "BPF_F_SLEEPABLE": 16,
    "BPF_F_XDP_HAS_FRAGS": 32,
    "BPF_F_TEST_REG_INVARIANTS": 128,
}
#: The machine that the JIT and the arena are those of.
_ARCH = "X86_64"
_TAG = re.compile(r"comment:(?:(\d{1,9}):)?(\w+)(?:=(.*))?", re.DOTALL)
#: In 6.12's spelling these have a counter behind the name.
_COUNTED = re.compile(r"test_(expect_(not_)?msg|expect_xlated|expect_std(out|err)|jited).*")


class LoadMode:
    """Where a test may be loaded (`__load_if_JITed`, `__load_if_no_JITed`)."""

    JITED, NO_JITED = "jited", "no_jited"


@dataclass(frozen=True, slots=True)
class Expectation:
    """What is expected with one kind of privileges.

    Attributes:
        success: the program is accepted.
        messages: what the verifier's log has, and has not.
        xlated, jited: the listing of the rewritten insns, of the machine code.
        stdout, stderr: what a run leaves in its streams.
        retval: what a run returns as 32 bits with sign; None: it is not run.
    """

    success: bool
    messages: tuple[Pattern, ...] = ()
    xlated: tuple[Pattern, ...] = ()
    jited: tuple[Pattern, ...] = ()
    stdout: tuple[Pattern, ...] = ()
    stderr: tuple[Pattern, ...] = ()
    retval: int | None = None


@dataclass(frozen=True, slots=True)
class Annotations:
    """What is said of one program.

    Attributes:
        description: another name of it, or "".
        log_level: as the program is loaded with; a rejection is logged at level 1 at least.
        flags, cleared: BPF_F_* bits to set, and to clear.
        archs: the machines that the test is for; empty: all.
        auxiliary: it is no test, but loaded with others.
        btf_path, load_mode, linear_size: as written; "" and None without.
        capabilities: what an unprivileged user keeps.
        root, unprivileged: what is expected; None: not tested so.
    """

    description: str = ""
    log_level: int = 0
    flags: int = 0
    cleared: int = 0
    archs: frozenset[str] = frozenset()
    auxiliary: bool = False
    btf_path: str = ""
    load_mode: str = ""
    linear_size: int | None = None
    privileges: Privileges = UNPRIVILEGED
    root: Expectation | None = None
    unprivileged: Expectation | None = None

    @property
    def is_for_us(self) -> bool:
        """Whether the test is for the machine that is emulated."""
        return not self.archs or _ARCH in self.archs


@dataclass
class _Mode:
    """The tags of one kind of privileges while they are read."""

    used: bool = False
    success: bool | None = None
    retval: int | None = None
    texts: dict[str, list[Pattern]] = field(default_factory=dict)
    lines: dict[str, list[str]] = field(default_factory=dict)


def read_annotations(tags: Sequence[str]) -> Annotations | None:
    """Return what *tags* say, in the order of the program's BTF; None where they say nothing.

    Raises:
        LoadError: a tag is not understood.
    """
    reader = _Reader()
    found = list(_in_order(tags))
    for name, value in found:
        reader.tag(name, value)
    return reader.annotations() if found else None


def _in_order(tags: Iterable[str]) -> Iterable[tuple[str, str]]:
    read: list[tuple[int, str, str]] = []
    for tag in tags:
        match = _TAG.fullmatch(tag)
        if match is None:
            continue  # of others: `exception_callback:...`, `contains:...`
        counter, name, value = match[1], match[2], match[3] or ""
        if counter is None and _COUNTED.fullmatch(name):
            value = value.partition("=")[2]
        read.append((int(counter or 0), name, value))
    read.sort(key=lambda r: r[0])
    return [(name, value) for _, name, value in read]


class _Reader:
    """Takes tags in their order."""

    def __init__(self) -> None:
        self.modes = {"": _Mode(), "_unpriv": _Mode()}
        self.plain: dict[str, str] = {}
        self.archs: list[str] = []
        self.flags, self.cleared = 0, 0
        self.auxiliary = False

    def tag(self, name: str, value: str) -> None:
        suffix = "_unpriv" if name.endswith("_unpriv") else ""
        mode, stem = self.modes[suffix], name.removesuffix(suffix)
        match stem:
            case "test_caps" if suffix:
                self.plain["caps"] = value
            case "test_expect_success" | "test_expect_failure":
                mode.success = stem == "test_expect_success"
            case "test_expect_msg" | "test_expect_not_msg":
                mode.texts.setdefault("messages", []).append(self.pattern(stem, value))
            case "test_expect_stdout" | "test_expect_stderr":
                kind = stem.removeprefix("test_expect_")
                mode.texts.setdefault(kind, []).append(self.pattern(stem, value))
            case "test_expect_xlated":
                mode.lines.setdefault("xlated", []).append(value)
            case "test_jited":
                # Machine code is that of the architecture named last.
                if not self.archs or self.archs[-1] != _ARCH:
                    return
                mode.lines.setdefault("jited", []).append(value)
            case "test_retval":
                mode.retval = self.number(_NAMED_VALUES.get(value, value), "retval")
            case "test_auxiliary":
                self.auxiliary = True
            case _:
                self.plain_tag(name, value)
                return
        mode.used = mode.used or stem != "test_caps"

    def plain_tag(self, name: str, value: str) -> None:
        match name:
            case "test_prog_flags":
                bits = value.removeprefix("!")
                flag = self.number(_FLAGS.get(bits, bits), "flag")
                if value.startswith("!"):
                    self.flags, self.cleared = self.flags & ~flag, self.cleared | flag
                else:
                    self.flags, self.cleared = self.flags | flag, self.cleared & ~flag
            case "test_arch":
                self.archs.append(value.upper())
            case "test_description" | "test_log_level" | "test_btf_path" | "test_linear_size":
                self.plain[name.removeprefix("test_")] = value
            case "load_mode" | "test_btf_func_path":
                self.plain[name] = value
            case _:
                raise LoadError(f"unknown annotation {name!r}")

    def number(self, value: int | str, what: str) -> int:
        try:
            number = value if isinstance(value, int) else int(value, 0)
        except ValueError:
            raise LoadError(f"annotation {what}: not a number: {shown(value)}") from None
        if not S32_MIN <= number <= U32_MAX:
            raise LoadError(f"annotation {what}: {shown(value)}: expected {S32_MIN}..{U32_MAX}")
        return s32(number)

    def pattern(self, name: str, value: str) -> Pattern:
        found = Pattern(value, absent=name == "test_expect_not_msg")
        try:
            found.compiled()
        except re.error as err:
            raise LoadError(
                f"annotation {name}: no regular expression ({err}): {shown(value)}"
            ) from None
        return found

    def annotations(self) -> Annotations:
        root, unpriv = self.modes[""], self.modes["_unpriv"]
        if not root.used and not unpriv.used:
            return Annotations(auxiliary=self.auxiliary)
        for name in ("messages", "stdout", "stderr"):
            unpriv.texts[name] = unpriv.texts.get(name) or root.texts.get(name, [])
        for name in ("xlated", "jited"):
            unpriv.lines[name] = unpriv.lines.get(name) or root.lines.get(name, [])
        linear_size = self.plain.get("linear_size")
        return Annotations(
            self.plain.get("description", ""),
            self.number(self.plain.get("log_level", "0"), "log level"),
            self.flags,
            self.cleared,
            frozenset(self.archs),
            self.auxiliary,
            self.plain.get("btf_path", self.plain.get("test_btf_func_path", "")),
            self.plain.get("load_mode", ""),
            None if linear_size is None else self.number(linear_size, "linear size"),
            self.privileges(),
            _expectation(root, root) if root.used else None,
            _expectation(unpriv, root) if unpriv.used else None,
        )

    def privileges(self) -> Privileges:
        names = [n for n in self.plain.get("caps", "").split("|") if n.strip()]
        try:
            return Privileges.named(names)
        except BpfError as err:
            raise LoadError(f"annotation caps_unpriv: {err}") from None


def _expectation(mode: _Mode, fallback: _Mode) -> Expectation:
    success = mode.success if mode.success is not None else fallback.success
    return Expectation(
        success is not False,
        tuple(mode.texts.get("messages", ())),
        line_patterns(mode.lines.get("xlated", ())),
        line_patterns(mode.lines.get("jited", ())),
        tuple(mode.texts.get("stdout", ())),
        tuple(mode.texts.get("stderr", ())),
        mode.retval if mode.retval is not None else fallback.retval,
    )
