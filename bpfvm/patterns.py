"""Patterns that tests look for in a text, one behind the other, as the kernel's test loader does.

A pattern is a piece of the text; with `{{...}}` in it the pieces between the braces are POSIX
extended regular expressions, where `.` and `[^x]` take no line end, and `^` and `$` stand for those
of a line (REG_NEWLINE).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["Pattern", "first_missing", "line_patterns"]

_PIECES = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_POSIX_CLASSES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "blank": r" \t",
    "digit": "0-9",
    "lower": "a-z",
    "punct": r"!-/:-@\[-`{-~",
    "space": r"\s",
    "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}


@dataclass(frozen=True, slots=True)
class Pattern:
    """One pattern.

    Attributes:
        text: as written.
        absent: it must not occur between its neighbours.
        next_line: it must stand in the line behind the one before it.
        others: patterns that do as well.
    """

    text: str
    absent: bool = False
    next_line: bool = False
    others: tuple[str, ...] = ()

    def search(self, text: str, start: int, end: int) -> tuple[int, int] | None:
        """Return where the pattern first occurs in *text* between *start* and *end*.

        Raises:
            re.error: it is no regular expression.
        """
        found = self.compiled().search(text, start, end)
        return None if found is None else found.span()

    def compiled(self) -> re.Pattern[str]:
        """Return the regular expression that the pattern stands for."""
        texts = (self.text, *self.others)
        return re.compile("|".join(f"(?:{_regex(text)})" for text in texts), re.MULTILINE)


def _regex(text: str) -> str:
    pieces = _PIECES.split(text)
    parts = (f"(?:{_python(p)})" if i % 2 else re.escape(p) for i, p in enumerate(pieces))
    return "".join(parts)


def _python(posix: str) -> str:
    classes = re.sub(r"\[:(\w+):\]", lambda m: _POSIX_CLASSES.get(m[1], m[0]), posix)
    return classes.replace("[^", r"[^\n")


def line_patterns(texts: Iterable[str]) -> tuple[Pattern, ...]:
    """Return patterns for lines that follow one another, but where `...` stands between them."""
    patterns: list[Pattern] = []
    next_line = False
    for text in texts:
        if text == "...":
            next_line = False
            continue
        patterns.append(Pattern(text, next_line=next_line))
        next_line = True
    return tuple(patterns)


def first_missing(text: str, patterns: Sequence[Pattern]) -> str | None:
    """Return what is wrong with *text*: the first pattern that does not occur in its turn, or
    that occurs and must not; None where all is well."""
    at, before = 0, 0
    for number, pattern in enumerate(patterns):
        if pattern.absent:
            continue
        found = pattern.search(text, at, len(text))
        if found is None:
            return f"missing: {pattern.text!r}"
        start, end = found
        if pattern.next_line and number and text.count("\n", before, start) != 1:
            return f"not in the next line: {pattern.text!r}"
        unwanted = _unwanted(text, patterns, number, at, start)
        if unwanted is not None:
            return unwanted
        at, before = end, start
    return _unwanted(text, patterns, len(patterns), at, len(text))


def _unwanted(
    text: str, patterns: Sequence[Pattern], number: int, start: int, end: int
) -> str | None:
    """Return which of the absent patterns in front of *number* occurs between the offsets."""
    while number and patterns[number - 1].absent:
        number -= 1
        if patterns[number].search(text, start, end) is not None:
            return f"unwanted: {patterns[number].text!r}"
    return None
