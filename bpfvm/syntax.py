"""The shape of a line of assembly, and its operands: registers, numbers, memory operands.

Every complaint is an `AsmError` that tells the place and what was expected there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from lark import Lark, Token, Tree, UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from bpfvm import isa
from bpfvm.bits import S32_MAX, S32_MIN, S64_MIN, U32_MAX, U64_MAX, s16, s32, u64
from bpfvm.errors import AsmError
from bpfvm.isa import InsnDef

__all__ = [
    "Node",
    "Place",
    "Reader",
    "Reg",
    "as_tree",
    "col_of",
    "first_token",
    "parse",
    "read_int",
    "text_of",
]

#: The highest register number that fits the encoding; those above r10 are for negative tests.
_LAST_REG = 15
_REGISTERS = {f"{letter}{n}": n for letter in "rw" for n in range(_LAST_REG + 1)}
#: Digits of a number that is worth reading.
_LONGEST = 80


@dataclass(frozen=True, slots=True)
class Place:
    """A line of the source, for messages; columns count from 1."""

    file: str
    line: int
    source: str

    def error(self, message: str, col: int) -> AsmError:
        """Return the error *message* at *col* of this line."""
        return AsmError(message, file=self.file, line=self.line, col=col, source=self.source)


# -- shapes ----------------------------------------------------------------------------------------


_WORDS = {
    "REG": "a register",
    "PREG": "a register such as %r1",
    "INT": "a number",
    "NAME": "a name",
    "CALLEE": "a helper",
    "ASSIGN": "an assignment such as = or +=",
    "COMPARE": "a comparison such as == or s>",
    "BRACKET": "a memory operand such as [%r1+8]",
    "STRING": "a string",
    "COMMA": "','",
    "LL": "'ll'",
    "LOCK": "'lock'",
    "IF": "'if'",
    "PLUS": "'+'",
    "MINUS": "'-'",
    "STAR": "'*'",
    "LPAR": "'('",
    "RPAR": "')'",
    "LSQB": "'['",
    "RSQB": "']'",
    "EQUAL": "'='",
    "WORD": "a word",
    "DIRECTIVE": "a directive",
    "$END": "the end of the line",
}


@cache
def _parser() -> Lark:
    return Lark(
        files("bpfvm").joinpath("grammar.lark").read_text(encoding="utf-8"),
        start=["statement", "directive"],
        parser="lalr",
        maybe_placeholders=False,
    )


def parse(place: Place, text: str, start: str) -> Tree[Token]:
    """Return the tree of *text*: the line of *place*, with blanks where something was cut off.

    Raises:
        AsmError: the text has not the shape of *start* ("statement" or "directive").
    """
    try:
        return _parser().parse(text, start=start)
    except UnexpectedCharacters as err:
        raise place.error(
            f"unexpected {text[err.column - 1]!r}: expected {_expected(err.allowed or set())}",
            err.column,
        ) from None
    except UnexpectedToken as err:
        wanted = _expected(err.accepts or err.expected)
        if err.token.type == "$END":
            raise place.error(
                f"unexpected end of line: expected {wanted}", len(text.rstrip()) + 1
            ) from None
        raise place.error(f"unexpected {str(err.token)!r}: expected {wanted}", err.column) from None
    except UnexpectedInput as err:
        raise place.error("syntax error", err.column) from None


def _expected(terminals: set[str]) -> str:
    words = sorted({_WORDS[t] for t in terminals if t in _WORDS})
    if not words:
        return _WORDS["$END"]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def read_int(text: str) -> int:
    """Return the number *text*: decimal or 0x hex, with or without a sign.

    Raises:
        ValueError: it is no such number, or one far beyond 64 bits.
    """
    sign, digits = (-1, text[1:]) if text[:1] == "-" else (1, text.removeprefix("+"))
    if not digits[:1].isdigit() or len(digits) > _LONGEST:
        raise ValueError(text)
    return sign * (int(digits, 16) if digits[:2].lower() == "0x" else int(digits, 10))


# -- operands --------------------------------------------------------------------------------------

Node = Tree[Token] | Token


def first_token(node: Node) -> Token:
    """Return the token that *node* begins with."""
    while isinstance(node, Tree):
        node = node.children[0]
    return node


def col_of(node: Node) -> int:
    """Return the column where *node* begins, from 1."""
    return first_token(node).column or 1


def text_of(node: Node) -> str:
    """Return what *node* was read from, without blanks and punctuation."""
    return str(node) if isinstance(node, Token) else "".join(text_of(c) for c in node.children)


def as_tree(node: Node) -> Tree[Token]:
    """Return *node*, which the grammar makes a tree."""
    assert isinstance(node, Tree)
    return node


@dataclass(frozen=True, slots=True)
class Reg:
    """A register as written; *is_word*: a w register, 32 bits."""

    number: int
    is_word: bool
    col: int


class Reader:
    """Reads the operands of one statement; every complaint (AsmError) knows its column."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def fail(self, message: str, node: Node) -> AsmError:
        """Return the error *message* at *node*."""
        return self.place.error(message, col_of(node))

    def reg(self, token: Node) -> Reg:
        """Read a register, with or without %."""
        text = text_of(token)
        name = text.removeprefix("%")
        if name not in _REGISTERS:
            raise self.fail(f"{text} is no register: expected r0 to r{isa.MAX_REG}", token)
        return Reg(_REGISTERS[name], name[0] == "w", col_of(token))

    def whole(self, node: Node, text: str) -> int:
        """Read the number *text* that stands at *node*."""
        try:
            return read_int(text)
        except ValueError:
            raise self.fail(f"the number {text[:_LONGEST]} is out of range", node) from None

    def full(self, token: Node) -> int:
        """Read a register that is used with all 64 bits; return its number."""
        reg = self.reg(token)
        if reg.is_word:
            raise self.fail(f"w{reg.number} where 64 bits are used: expected r{reg.number}", token)
        return reg.number

    def sized(self, token: Node, size: int) -> int:
        """Read a register that holds *size* bytes (r or w up to 4); return its number."""
        return self.full(token) if size == 8 else self.reg(token).number

    def same_width(self, a: Reg, token: Node) -> int:
        """Read a register that must be as wide as *a*; return its number."""
        b = self.reg(token)
        if a.is_word != b.is_word:
            raise self.fail(
                f"{text_of(token)} and {'rw'[a.is_word]}{a.number} differ in width", token
            )
        return b.number

    def imm32(self, node: Node) -> int:
        """Read a 32-bit immediate; hex up to 0xffffffff stands for the same bits."""
        text = text_of(node)
        value = self.whole(node, text)
        if S32_MIN <= value <= S32_MAX or ("x" in text.lower() and 0 < value <= U32_MAX):
            return s32(value)
        raise self.fail(
            f"immediate {text} is out of the 32-bit range: expected {S32_MIN} to {S32_MAX}"
            f" or up to {U32_MAX:#x} in hex",
            node,
        )

    def imm64(self, node: Node) -> int:
        """Read a 64-bit immediate, signed or unsigned; return it unsigned."""
        text = text_of(node)
        value = self.whole(node, text)
        if not S64_MIN <= value <= U64_MAX:
            raise self.fail(f"immediate {text} is out of the 64-bit range", node)
        return u64(value)

    def signed(self, node: Node, bits: int, what: str) -> int:
        """Read a signed number of *bits* bits; *what* names it in a complaint."""
        value = self.whole(node, text_of(node).replace("+-", "-").replace("--", "+"))
        limit = 1 << (bits - 1)
        if not -limit <= value < limit:
            raise self.fail(
                f"{what} {value} is out of the {bits}-bit range: expected {-limit} to {limit - 1}",
                node,
            )
        return value

    def off(self, nodes: Sequence[Node]) -> int:
        """Read an insn's 16-bit offset, 0 where none is written."""
        return self.signed(nodes[0], 16, "offset") if nodes else 0

    def deref(self, node: Node) -> tuple[Token, int, int]:
        """Return C type, base register and offset of `*(u32 *)(r1 + 4)`, or of an item."""
        ctype, base, *disp = as_tree(node).children
        return first_token(ctype), self.full(base), self.off(disp)

    def typed(self, table: dict[str, InsnDef], ctype: Token) -> InsnDef:
        """Return the row that *table* has for a C type such as u32."""
        if str(ctype) not in table:
            raise self.fail(f"no such access as {ctype}: expected {' '.join(table)}", ctype)
        return table[str(ctype)]

    def bracket(self, token: Token) -> tuple[int, int]:
        """Return base register and offset of `[%r1+4]`."""
        inside = str(token)[1:-1]
        if any(c.isspace() for c in inside):
            raise self.fail("no space is allowed in a memory operand", token)
        cut = min((i for i in (inside.find("+"), inside.find("-")) if i >= 0), default=len(inside))
        base, disp = inside[:cut], inside[cut:]
        if not base.startswith("%"):
            raise self.fail(f"expected [%rN+OFF], not {token}", token)
        number = self.full(Token("PREG", base, column=(token.column or 1) + 1))
        try:
            off = read_int(disp) if disp else 0
        except ValueError:
            raise self.fail(f"expected [%rN+OFF], not {token}", token) from None
        if -(1 << 15) <= off < 1 << 15 or (disp[1:3].lower() == "0x" and 0 < off < 1 << 16):
            return number, s16(off)
        raise self.fail(
            f"offset {disp} is out of the 16-bit range: expected -32768 to 32767", token
        )
