"""One statement of assembly text -> slots, some of them with a reference still open.

Both syntaxes end here: LLVM's and the kernel's (`r1 += r2`) by the shape of the statement,
bpf_conformance's (`add %r1, %r2`) by the row's mnemonic and `Form`. Which operators, widths and
names exist is read from `isa.TABLE`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, unique
from functools import cache
from importlib.resources import files

from lark import Lark, Token, Tree, UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from bpfvm import isa
from bpfvm.bits import S32_MAX, S32_MIN, S64_MIN, U32_MAX, U64_MAX, hi32, s16, s32, u64
from bpfvm.errors import AsmError
from bpfvm.insn import Insn
from bpfvm.isa import TABLE, CallKind, Form, InsnDef, Kind, LdKind

__all__ = ["OpenSlot", "Place", "Ref", "RefKind", "parse", "read_int", "statement_slots"]

#: The highest register number that fits the encoding; those above r10 are for negative tests.
_LAST_REG = 15
_REGISTERS = {f"{letter}{n}": n for letter in "rw" for n in range(_LAST_REG + 1)}
#: Digits of a number that is worth reading.
_LONGEST = 80


@unique
class RefKind(Enum):
    """What an open reference is to become once all labels are known."""

    JUMP_OFF = "jump"
    JUMP_IMM = "long jump"
    CALL = "call"  # a label, a helper or a kfunc
    LOCAL = "local call"
    KFUNC = "kfunc"
    MAP = "map"
    MAP_VALUE = "map value"
    SYMBOL = "symbol"  # a map or a function
    FUNC = "function"


@dataclass(frozen=True, slots=True)
class Ref:
    """A name that is not known yet; *number* is the helper number in `name#number`."""

    kind: RefKind
    name: str
    col: int
    number: int | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """A line of the source, for messages; columns count from 1."""

    file: str
    line: int
    source: str

    def error(self, message: str, col: int) -> AsmError:
        """Return the error *message* at *col* of this line."""
        return AsmError(message, file=self.file, line=self.line, col=col, source=self.source)


@dataclass(frozen=True, slots=True)
class OpenSlot:
    """A slot as far as one statement tells."""

    insn: Insn
    place: Place
    ref: Ref | None = None


# -- syntax ---------------------------------------------------------------------------------------

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
        files("bpfvm").joinpath("grammar.lark").read_text(),
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


# -- the table, by what the text says -------------------------------------------------------------

_USER_ROWS = tuple(row for row in TABLE if not row.arena)


def _rows(*kinds: Kind) -> list[InsnDef]:
    return [row for row in _USER_ROWS if row.kind in kinds]


def _one(kind: Kind, op: isa.Op | None = None, width: int | None = None) -> InsnDef:
    (row,) = (r for r in _rows(kind) if r.op is op and (width is None or r.width == width))
    return row


def _ctype(row: InsnDef) -> str:
    return f"{'s' if row.sx else 'u'}{row.size * 8}"


def _symbol(op: isa.Op | None) -> str:
    assert isinstance(op, isa.AluOp | isa.JmpOp | isa.AtomicOp | isa.EndOp)
    return op.symbol


_ASSIGN = {(_symbol(r.op), r.width, r.is_reg): r for r in _rows(Kind.ALU, Kind.MOV)}
_COMPARE = {(_symbol(r.op), r.width, r.is_reg): r for r in _rows(Kind.JCOND)}
_NEGATE = {r.width: r for r in _rows(Kind.NEG)}
_EXTEND = {(f"s{r.sx}", r.width): r for r in _rows(Kind.MOVSX)}
_UNARY = {f"{_symbol(r.op)}{r.width}": r for r in _rows(Kind.END)}
_LOAD = {_ctype(r): r for r in _rows(Kind.LDX)}
_STORE = {(_ctype(r), r.is_reg): r for r in _rows(Kind.ST, Kind.STX)}
_LOCKED = {(_symbol(r.op), _ctype(r)): r for r in _rows(Kind.ATOMIC) if not r.fetch}
_ACQUIRE = {_ctype(r): r for r in _rows(Kind.LOAD_ACQ)}
_RELEASE = {_ctype(r): r for r in _rows(Kind.STORE_REL)}
_PACKET = {(r.kind, _ctype(r)): r for r in _rows(Kind.LD_ABS, Kind.LD_IND)}
_WIDE = {r.op: r for r in _rows(Kind.LDIMM64)}
_CALL = {r.op: r for r in _rows(Kind.CALL)}
_JUMP = {"goto": _one(Kind.JA, width=64), "gotol": _one(Kind.JA, width=32)}


def _fetches() -> dict[tuple[str, str], InsnDef]:
    """Atomics that give the old value, by the kernel's and LLVM's names; an LLVM exchange tells
    its width in its name and takes a bare place ("" for the type)."""
    found = {}
    for row in _rows(Kind.ATOMIC):
        if not row.fetch:
            continue
        assert isinstance(row.op, isa.AtomicOp)
        name, ctype = row.op.mnemonic, _ctype(row)
        if row.op.symbol:
            for prefix in ("atomic", "atomic64"):
                if prefix == "atomic" or row.size == 8:
                    found[f"{prefix}_fetch_{name}", ctype] = row
            continue
        for spelling in (f"{name}_64",) if row.size == 8 else (f"{name}_32", f"{name}32_32"):
            found[spelling, ""] = row
        for prefix in ("atomic", "atomic64"):
            if prefix == "atomic" or row.size == 8:
                found[f"{prefix}_{name}", ctype] = row
    return found


_FETCH = _fetches()
_FETCH_NAMES = {name for name, _ in _FETCH}

#: bpf_conformance's mnemonics: a table mnemonic, without what the operands tell.
_MNEMONICS: dict[str, dict[bool, InsnDef]] = {}
for _row in _USER_ROWS:
    if _row.kind not in (Kind.CALL, Kind.CALLX):
        _name = _row.mnemonic.removesuffix("_imm").removesuffix("_reg")
        _MNEMONICS.setdefault(_name, {})[_row.is_reg] = _row
        if _row.op is isa.EndOp.SWAP:
            _MNEMONICS[f"b{_name}"] = _MNEMONICS[_name]


# -- operands -------------------------------------------------------------------------------------

#: What each operand of a form is, in the order of bpf_conformance's syntax.
_OPERANDS: dict[Form, tuple[str, ...]] = {
    Form.NONE: (),
    Form.DST: ("dst",),
    Form.DST_SRC: ("dst", "src"),
    Form.DST_IMM: ("dst", "imm"),
    Form.DST_IMM64: ("dst", "imm64"),
    Form.LOAD: ("dst", "src+off"),
    Form.STORE_REG: ("dst+off", "src"),
    Form.STORE_IMM: ("dst+off", "imm"),
    Form.TARGET_OFF: ("target",),
    Form.TARGET_IMM: ("long target",),
    Form.DST_SRC_TARGET: ("dst", "src", "target"),
    Form.DST_IMM_TARGET: ("dst", "imm", "target"),
    Form.CALLEE: ("imm",),
    Form.CALLEE_OFF: ("imm",),
    Form.SKB_IMM: ("imm",),
    Form.SKB_SRC_IMM: ("src", "imm"),
}
_OPERAND_WORDS = {
    "dst": "a register",
    "src": "a register",
    "imm": "an immediate",
    "imm64": "a 64-bit immediate",
    "src+off": "a memory operand such as [%r1+8]",
    "dst+off": "a memory operand such as [%r1+8]",
    "target": "a label or +N",
    "long target": "a label or +N",
}

Node = Tree[Token] | Token


def _first(node: Node) -> Token:
    while isinstance(node, Tree):
        node = node.children[0]
    return node


def _col(node: Node) -> int:
    return _first(node).column or 1


def _text(node: Node) -> str:
    return str(node) if isinstance(node, Token) else "".join(_text(c) for c in node.children)


def _tree(node: Node) -> Tree[Token]:
    assert isinstance(node, Tree)
    return node


@dataclass(frozen=True, slots=True)
class _Reg:
    number: int
    is_word: bool  # a w register: 32 bits
    col: int


class _Reader:
    """Reads the operands of one statement; every complaint knows its column."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def fail(self, message: str, node: Node) -> AsmError:
        return self.place.error(message, _col(node))

    def reg(self, token: Node) -> _Reg:
        text = _text(token)
        name = text.removeprefix("%")
        if name not in _REGISTERS:
            raise self.fail(f"{text} is no register: expected r0 to r{isa.MAX_REG}", token)
        return _Reg(_REGISTERS[name], name[0] == "w", _col(token))

    def whole(self, node: Node, text: str) -> int:
        try:
            return read_int(text)
        except ValueError:
            raise self.fail(f"the number {text[:_LONGEST]} is out of range", node) from None

    def full(self, token: Node) -> int:
        """A register that is used with all 64 bits."""
        reg = self.reg(token)
        if reg.is_word:
            raise self.fail(f"w{reg.number} where 64 bits are used: expected r{reg.number}", token)
        return reg.number

    def sized(self, token: Node, size: int) -> int:
        """A register that holds a value of *size* bytes: either spelling up to 4."""
        return self.full(token) if size == 8 else self.reg(token).number

    def same_width(self, a: _Reg, token: Node) -> int:
        b = self.reg(token)
        if a.is_word != b.is_word:
            raise self.fail(
                f"{_text(token)} and {'rw'[a.is_word]}{a.number} differ in width", token
            )
        return b.number

    def imm32(self, node: Node) -> int:
        """A 32-bit immediate; hex up to 0xffffffff stands for the same bits."""
        text = _text(node)
        value = self.whole(node, text)
        if S32_MIN <= value <= S32_MAX or ("x" in text.lower() and 0 < value <= U32_MAX):
            return s32(value)
        raise self.fail(
            f"immediate {text} is out of the 32-bit range: expected {S32_MIN} to {S32_MAX}"
            f" or up to {U32_MAX:#x} in hex",
            node,
        )

    def imm64(self, node: Node) -> int:
        text = _text(node)
        value = self.whole(node, text)
        if not S64_MIN <= value <= U64_MAX:
            raise self.fail(f"immediate {text} is out of the 64-bit range", node)
        return u64(value)

    def signed(self, node: Node, bits: int, what: str) -> int:
        value = self.whole(node, _text(node).replace("+-", "-").replace("--", "+"))
        limit = 1 << (bits - 1)
        if not -limit <= value < limit:
            raise self.fail(
                f"{what} {value} is out of the {bits}-bit range: expected {-limit} to {limit - 1}",
                node,
            )
        return value

    def off(self, nodes: Sequence[Node]) -> int:
        return self.signed(nodes[0], 16, "offset") if nodes else 0

    def deref(self, node: Node) -> tuple[Token, int, int]:
        """Return C type, base register and offset of `*(u32 *)(r1 + 4)`, or of an item."""
        ctype, base, *disp = _tree(node).children
        return _first(ctype), self.full(base), self.off(disp)

    def typed(self, table: dict[str, InsnDef], ctype: Token) -> InsnDef:
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


# -- statements -----------------------------------------------------------------------------------


def statement_slots(
    place: Place, text: str, *, opcode: int | None = None, call_src: int | None = None
) -> tuple[OpenSlot, ...]:
    """Return the slots of the statement *text* (the line of *place*, the rest blanked out).

    Args:
        place: where it stands.
        text: one statement, at its own column.
        opcode: the `(xx)` before it in a listing, which tells an ldimm64 from a move.
        call_src: the `src` field in the raw bytes before it (llvm-objdump), which tells a
            local call from a helper's number.

    Raises:
        AsmError: what is wrong, where, and what was expected.
    """
    tree = parse(place, text, "statement")
    slots = _Statement(place, opcode, call_src).slots(tree)
    if opcode is not None and slots[0].insn.opcode != opcode:
        raise place.error(
            f"the text is opcode {slots[0].insn.opcode:02x}, not ({opcode:02x})", _col(tree)
        )
    return slots


class _Statement:
    def __init__(self, place: Place, opcode: int | None, call_src: int | None) -> None:
        self.place, self.opcode, self.call_src = place, opcode, call_src
        self.read = _Reader(place)

    def slots(self, tree: Tree[Token]) -> tuple[OpenSlot, ...]:
        shapes: dict[str, Callable[..., tuple[OpenSlot, ...]]] = {
            "assign": self.assign,
            "store": self.store,
            "lock": self.lock,
            "branch": self.branch,
            "action": self.action,
            "command": self.command,
        }
        return shapes[tree.data](*tree.children)

    def make(
        self,
        row: InsnDef,
        *,
        dst: int = 0,
        src: int = 0,
        off: int = 0,
        imm: int = 0,
        next_imm: int = 0,
        ref: Ref | None = None,
    ) -> tuple[OpenSlot, ...]:
        insn = Insn(row.opcode, dst, src, off, imm)._replace(**dict(row.fixed))
        first = OpenSlot(insn, self.place, ref)
        if row.kind is not Kind.LDIMM64:
            return (first,)
        return (first, OpenSlot(Insn(0, imm=next_imm), self.place))

    # -- `REG = value` ----------------------------------------------------------------------------

    def assign(self, target: Token, operator: Token, value: Tree[Token]) -> tuple[OpenSlot, ...]:
        dst = self.read.reg(target)
        if value.data in ("copy", "const") and not self.is_wide(operator, value):
            (operand,) = value.children
            is_reg = value.data == "copy"
            row = _ASSIGN.get((str(operator), 32 if dst.is_word else 64, is_reg))
            if row is None:
                known = " ".join(sorted({symbol for symbol, _, _ in _ASSIGN}))
                raise self.read.fail(f"unknown operator {operator}: expected {known}", operator)
            if is_reg:
                return self.make(row, dst=dst.number, src=self.read.same_width(dst, operand))
            return self.make(row, dst=dst.number, imm=self.read.imm32(operand))
        if str(operator) != "=":
            raise self.read.fail(f"expected a register or a number after {operator}", value)
        shapes: dict[str, Callable[..., tuple[OpenSlot, ...]]] = {
            "const": self.wide,
            "wide": self.wide,
            "symbol": self.symbol,
            "negate": self.negate,
            "extend": self.extend,
            "unary": self.unary,
            "load": self.load,
            "packet_abs": self.packet_abs,
            "packet_ind": self.packet_ind,
            "result": self.result,
        }
        return shapes[value.data](dst, *value.children)

    def is_wide(self, operator: Token, value: Tree[Token]) -> bool:
        """Whether a listing's (18) says that `r1 = 0x5` is an ldimm64."""
        return (
            value.data == "const"
            and str(operator) == "="
            and self.opcode == _WIDE[LdKind.IMM64].opcode
        )

    def need_full(self, dst: _Reg) -> int:
        if dst.is_word:
            raise self.place.error(
                f"w{dst.number} where 64 bits are used: expected r{dst.number}", dst.col
            )
        return dst.number

    def wide(self, dst: _Reg, number: Node) -> tuple[OpenSlot, ...]:
        return self.wide_value(_WIDE[LdKind.IMM64], self.need_full(dst), self.read.imm64(number))

    def wide_value(self, row: InsnDef, dst: int, value: int) -> tuple[OpenSlot, ...]:
        return self.make(row, dst=dst, imm=s32(value), next_imm=s32(hi32(value) >> 32))

    def symbol(self, dst: _Reg, name: Token) -> tuple[OpenSlot, ...]:
        return self.make(
            _WIDE[LdKind.MAP_IDX],
            dst=self.need_full(dst),
            ref=Ref(RefKind.SYMBOL, str(name), _col(name)),
        )

    def negate(self, dst: _Reg, _minus: Token, reg: Token) -> tuple[OpenSlot, ...]:
        self.must_repeat(dst, reg)
        return self.make(_NEGATE[32 if dst.is_word else 64], dst=dst.number)

    def must_repeat(self, dst: _Reg, reg: Token) -> None:
        if self.read.same_width(dst, reg) != dst.number:
            raise self.read.fail(f"expected {'rw'[dst.is_word]}{dst.number} again", reg)

    def extend(self, dst: _Reg, ctype: Token, reg: Token) -> tuple[OpenSlot, ...]:
        row = _EXTEND.get((str(ctype), 32 if dst.is_word else 64))
        if row is None:
            raise self.read.fail(f"no sign extension ({ctype}) to this width", ctype)
        return self.make(row, dst=dst.number, src=self.read.same_width(dst, reg))

    def unary(self, dst: _Reg, name: Token, reg: Token) -> tuple[OpenSlot, ...]:
        if str(name) not in _UNARY:
            raise self.read.fail(f"unknown operation {name}: expected {' '.join(_UNARY)}", name)
        self.need_full(dst)
        self.must_repeat(dst, reg)
        return self.make(_UNARY[str(name)], dst=dst.number)

    def load(self, dst: _Reg, deref: Node) -> tuple[OpenSlot, ...]:
        ctype, base, off = self.read.deref(deref)
        row = self.read.typed(_LOAD, ctype)
        if row.sx or row.size == 8:
            self.need_full(dst)
        return self.make(row, dst=dst.number, src=base, off=off)

    def packet(self, kind: Kind, dst: _Reg, ctype: Token, base: Token) -> InsnDef:
        if dst.number or dst.is_word:
            raise self.place.error("a packet load writes r0", dst.col)
        if str(base) != "skb":
            raise self.read.fail(f"unexpected {str(base)!r}: expected skb", base)
        rows = {size: row for (k, size), row in _PACKET.items() if k is kind}
        return self.read.typed(rows, ctype)

    def packet_abs(
        self, dst: _Reg, ctype: Token, base: Token, number: Node
    ) -> tuple[OpenSlot, ...]:
        row = self.packet(Kind.LD_ABS, dst, ctype, base)
        return self.make(row, imm=self.read.imm32(number))

    def packet_ind(
        self, dst: _Reg, ctype: Token, base: Token, src: Token, *disp: Node
    ) -> tuple[OpenSlot, ...]:
        row = self.packet(Kind.LD_IND, dst, ctype, base)
        imm = self.read.signed(disp[0], 32, "immediate") if disp else 0
        return self.make(row, src=self.read.full(src), imm=imm)

    # -- `REG = name(...)` ------------------------------------------------------------------------

    def result(self, dst: _Reg, func: Tree[Token], *disp: Tree[Token]) -> tuple[OpenSlot, ...]:
        name = func.children[0]
        spelling = str(name)
        if spelling in _FETCH_NAMES:
            done = self.fetch(dst, func)
        elif spelling == "addr_space_cast":
            done = self.cast(dst, func)
        elif spelling == "load_acquire":
            pointer = self.args(func, "pointer")[0]
            ctype, base, off = self.read.deref(pointer)
            row = self.read.typed(_ACQUIRE, ctype)
            reg = self.need_full(dst) if row.size == 8 else dst.number
            done = self.make(row, dst=reg, src=base, off=off)
        elif spelling in _POINTERS:
            return self.pointer(dst, func, disp)
        else:
            known = ["addr_space_cast", "load_acquire", *_POINTERS, *sorted(_FETCH_NAMES)]
            raise self.read.fail(f"unknown operation {name}: expected {' '.join(known)}", name)
        if disp:
            raise self.read.fail("unexpected offset after ')'", disp[0])
        return done

    def args(self, func: Tree[Token], *shapes: str) -> list[Tree[Token]]:
        """Return the arguments of *func*, which must have *shapes* ("a|b": one of these)."""
        name, *given = func.children
        args = [_tree(a) for a in given]
        if len(args) != len(shapes):
            raise self.read.fail(
                f"{name}: {len(args)} arguments, expected {len(shapes)}", args[-1] if args else name
            )
        for arg, shape in zip(args, shapes, strict=True):
            if arg.data not in shape.split("|"):
                words = {
                    "pointer": "a pointer such as (u64 *)(r1 + 8)",
                    "place": "a register",
                    "plain": "a number",
                    "word": "a name",
                }
                wanted = " or ".join(words[s] for s in shape.split("|"))
                raise self.read.fail(f"{name}: expected {wanted}", arg)
        return args

    def bare_reg(self, arg: Tree[Token]) -> Token:
        reg, *disp = arg.children
        if disp:
            raise self.read.fail("unexpected offset: expected a register", disp[0])
        return _first(reg)

    def fetch(self, dst: _Reg, func: Tree[Token]) -> tuple[OpenSlot, ...]:
        name = str(func.children[0])
        swaps = "cmpxchg" in name
        where = "place" if (name, "") in _FETCH else "pointer"
        args = self.args(func, where, *["place"] * (2 if swaps else 1))
        if where == "place":
            base, *disp = args[0].children
            row, reg, off = _FETCH[name, ""], self.read.full(base), self.read.off(disp)
        else:
            ctype, reg, off = self.read.deref(args[0])
            rows = {t: r for (n, t), r in _FETCH.items() if n == name}
            row = self.read.typed(rows, ctype)
        src = self.read.sized(self.bare_reg(args[-1]), row.size)
        old = self.need_full(dst) if row.size == 8 else dst.number
        if swaps:
            expected = self.read.sized(self.bare_reg(args[1]), row.size)
            if old or expected:
                raise self.place.error(f"{name} compares with r0 and returns in r0", dst.col)
        elif old != src:
            raise self.place.error(f"{name} returns the old value in r{src}", dst.col)
        return self.make(row, dst=reg, src=src, off=off)

    def cast(self, dst: _Reg, func: Tree[Token]) -> tuple[OpenSlot, ...]:
        args = self.args(func, "place", "plain", "plain")
        spaces = []
        for arg in args[1:]:
            value = self.read.imm64(arg.children[0])
            if value > 0xFFFF:
                raise self.read.fail("an address space number has 16 bits", arg)
            spaces.append(value)
        src = self.read.full(self.bare_reg(args[0]))
        (slot,) = self.make(_one(Kind.CAST_KERN), dst=self.need_full(dst), src=src)
        return (OpenSlot(slot.insn._replace(imm=s32(spaces[0] << 16 | spaces[1])), self.place),)

    def pointer(
        self, dst: _Reg, func: Tree[Token], disp: tuple[Tree[Token], ...]
    ) -> tuple[OpenSlot, ...]:
        """`map(NAME)` and its kin: the kinds of ldimm64 that a constant's text does not tell."""
        kind, by_name = _POINTERS[str(func.children[0])]
        (arg,) = self.args(func, "word" if by_name else "plain")
        extra = self.read.signed(disp[0], 64, "offset") if disp else 0
        if not -(1 << 31) <= extra <= U32_MAX:
            raise self.read.fail(f"offset {extra} is out of the 32-bit range", disp[0])
        ref, imm = None, 0
        if by_name is None:
            imm = self.read.imm32(arg.children[0])
        else:
            ref = Ref(by_name, _text(arg).strip('"'), _col(arg))
        reg = self.need_full(dst)
        return self.make(_WIDE[kind], dst=reg, imm=imm, next_imm=s32(extra), ref=ref)

    # -- the other kernel shapes ------------------------------------------------------------------

    def store(self, deref: Node, operator: Token, value: Node) -> tuple[OpenSlot, ...]:
        ctype, base, off = self.read.deref(deref)
        if str(operator) != "=":
            raise self.read.fail(f"unexpected {operator}: expected = (or lock before)", operator)
        is_reg = isinstance(value, Token)
        row = self.read.typed({t: r for (t, reg), r in _STORE.items() if reg is is_reg}, ctype)
        if is_reg:
            return self.make(row, dst=base, src=self.read.sized(value, row.size), off=off)
        return self.make(row, dst=base, off=off, imm=self.read.imm32(value))

    def lock(self, deref: Node, operator: Token, value: Token) -> tuple[OpenSlot, ...]:
        ctype, base, off = self.read.deref(deref)
        rows = {t: r for (symbol, t), r in _LOCKED.items() if symbol == str(operator)}
        if not rows:
            known = " ".join(sorted({symbol for symbol, _ in _LOCKED}))
            raise self.read.fail(f"no atomic {operator}: expected {known}", operator)
        row = self.read.typed(rows, ctype)
        return self.make(row, dst=base, src=self.read.sized(value, row.size), off=off)

    def branch(
        self, left: Token, operator: Token, right: Node, goto: Token, where: Tree[Token]
    ) -> tuple[OpenSlot, ...]:
        a = self.read.reg(left)
        is_reg = isinstance(right, Token)
        row = _COMPARE.get((str(operator), 32 if a.is_word else 64, is_reg))
        if row is None:
            known = " ".join(sorted({symbol for symbol, _, _ in _COMPARE}))
            raise self.read.fail(f"unknown comparison {operator}: expected {known}", operator)
        if str(goto) != "goto":
            raise self.read.fail(f"unexpected {str(goto)!r}: expected goto", goto)
        off, ref = self.target(where, 16)
        if is_reg:
            src = self.read.same_width(a, right)
            return self.make(row, dst=a.number, src=src, off=off, ref=ref)
        return self.make(row, dst=a.number, imm=self.read.imm32(right), off=off, ref=ref)

    def target(self, where: Tree[Token], bits: int) -> tuple[int, Ref | None]:
        """Return the distance of a jump, or the label that tells it."""
        kind = RefKind.JUMP_OFF if bits == 16 else RefKind.JUMP_IMM
        if where.data == "relative":
            return self.read.signed(where, bits, "jump"), None
        if where.data != "label":
            raise self.read.fail("expected a label, +N, -N or pc+N", where)
        name, *disp = where.children
        if not disp:
            return 0, Ref(kind, str(name), _col(name))
        if str(name) != "pc":
            raise self.read.fail(f"no distance is allowed after label {name}", disp[0])
        return self.read.signed(disp[0], bits, "jump"), None

    def action(self, func: Tree[Token]) -> tuple[OpenSlot, ...]:
        name = func.children[0]
        if str(name) != "store_release":
            raise self.read.fail(f"unknown operation {name}: expected store_release", name)
        pointer, value = self.args(func, "pointer", "place")
        ctype, base, off = self.read.deref(pointer)
        row = self.read.typed(_RELEASE, ctype)
        src = self.read.sized(self.bare_reg(value), row.size)
        return self.make(row, dst=base, src=src, off=off)

    # -- commands: a word and its operands --------------------------------------------------------

    def command(self, name: Token, *rest: Node) -> tuple[OpenSlot, ...]:
        operands = self.without_commas(rest)
        match str(name):
            case "goto" | "gotol":
                row = _JUMP[str(name)]
                (where,) = self.exactly(name, operands, "a label or +N")
                distance, ref = self.target(where, 16 if name == "goto" else 32)
                if row.form is Form.TARGET_IMM:
                    return self.make(row, imm=distance, ref=ref)
                return self.make(row, off=distance, ref=ref)
            case "call":
                return self.call(name, operands)
            case "callx":
                (reg,) = self.exactly(name, operands, "a register")
                return self.make(_one(Kind.CALLX), dst=self.read.full(_first(reg)))
            case _:
                return self.by_mnemonic(name, operands)

    def without_commas(self, nodes: Sequence[Node]) -> list[Tree[Token]]:
        """Return the operands alone; in bpf_conformance's syntax space follows a comma."""
        operands = []
        for i, node in enumerate(nodes):
            if isinstance(node, Tree):
                operands.append(node)
            elif i + 1 < len(nodes) and _col(nodes[i + 1]) == node.end_column:
                raise self.read.fail("expected a space after ','", nodes[i + 1])
        return operands

    def exactly(self, name: Token, operands: list[Tree[Token]], *words: str) -> list[Tree[Token]]:
        if len(operands) < len(words):
            end = len(self.place.source.rstrip()) + 1
            raise self.place.error(f"{name}: missing operand: expected {words[len(operands)]}", end)
        if len(operands) > len(words):
            extra = operands[len(words)]
            raise self.read.fail(f"{name}: unexpected operand {_text(extra)}", extra)
        return operands

    def call(self, name: Token, operands: list[Tree[Token]]) -> tuple[OpenSlot, ...]:
        if not operands:
            self.exactly(name, operands, "a helper, a kfunc, a label or pc+N")
        first, *rest = operands
        word = str(first.children[0]) if first.data == "label" else ""
        if word in ("helper", "local", "runtime", "kfunc") and (rest or len(first.children) > 1):
            return self.explicit_call(name, word, first, rest)
        self.exactly(name, operands, "a callee")
        match first.data:
            case "plain_int":
                kinds = {kind.value: kind for kind in CallKind}
                kind = kinds.get(self.call_src or 0, CallKind.HELPER)
                return self.make(_CALL[kind], imm=self.read.imm32(first))
            case "preg" | "reg":
                return self.make(_one(Kind.CALLX), dst=self.read.full(_first(first)))
            case "relative":
                kind = CallKind.KFUNC if self.call_src == CallKind.KFUNC.value else CallKind.LOCAL
                return self.make(_CALL[kind], imm=self.read.signed(first, 32, "call"))
            case "result":
                return self.kfunc_call(first)
            case "callee":
                spelling, number = _text(first).split("#")
                ref = Ref(RefKind.CALL, spelling, _col(first), self.read.whole(first, number))
                return self.make(_CALL[CallKind.HELPER], ref=ref)
            case "label" if len(first.children) > 1:
                distance, _ = self.target(first, 32)
                return self.make(_CALL[CallKind.LOCAL], imm=distance)
            case "label":
                ref = Ref(RefKind.CALL, word, _col(first))
                return self.make(_CALL[CallKind.HELPER], ref=ref)
            case _:
                raise self.read.fail("expected a helper, a kfunc, a label or pc+N", first)

    def explicit_call(
        self, name: Token, word: str, first: Tree[Token], rest: list[Tree[Token]]
    ) -> tuple[OpenSlot, ...]:
        """bpf_conformance's `call helper N`, `call local TARGET`, `call runtime N`."""
        if len(first.children) > 1:
            rest = [Tree("relative", _tree(first.children[1]).children), *rest]
        (what,) = self.exactly(name, rest, "a callee")
        if word == "local":
            if what.data == "label" and len(what.children) == 1:
                ref = Ref(RefKind.LOCAL, _text(what), _col(what))
                return self.make(_CALL[CallKind.LOCAL], ref=ref)
            return self.make(_CALL[CallKind.LOCAL], imm=self.target(what, 32)[0])
        if word == "helper" and what.data == "preg":
            return self.make(_one(Kind.CALLX), dst=self.read.full(_first(what)))
        if word == "kfunc" and what.data == "label":
            ref = Ref(RefKind.KFUNC, _text(what), _col(what))
            return self.make(_CALL[CallKind.KFUNC], ref=ref)
        if what.data not in ("plain_int", "relative"):
            raise self.read.fail(f"call {word}: expected a number", what)
        kind = CallKind.HELPER if word == "helper" else CallKind.KFUNC
        return self.make(_CALL[kind], imm=self.read.imm32(what))

    def kfunc_call(self, node: Tree[Token]) -> tuple[OpenSlot, ...]:
        """`call kfunc(N) + M`: a kfunc by index, M in its `off` field."""
        func, *disp = node.children
        if str(_first(func)) != "kfunc":
            raise self.read.fail(f"unexpected {_first(func)}(...): expected kfunc(N)", node)
        (arg,) = self.args(_tree(func), "plain|word")
        ref, imm = None, 0
        if arg.data == "word":
            ref = Ref(RefKind.KFUNC, _text(arg).strip('"'), _col(arg))
        else:
            imm = self.read.imm32(arg.children[0])
        return self.make(_CALL[CallKind.KFUNC], imm=imm, off=self.read.off(disp), ref=ref)

    def by_mnemonic(self, name: Token, operands: list[Tree[Token]]) -> tuple[OpenSlot, ...]:
        mnemonic, operands = self.mnemonic(name, operands)
        rows = _MNEMONICS.get(mnemonic)
        if rows is None:
            raise self.read.fail(f"unknown mnemonic {mnemonic.replace('_', ' ')}", name)
        row = next(iter(rows.values()))
        if len(rows) == 2 and len(operands) > 1:
            row = rows[operands[1].data in ("preg", "reg")]
        roles = _OPERANDS[row.form]
        self.exactly(name, operands, *[_OPERAND_WORDS[role] for role in roles])
        fields: dict[str, int] = {}
        ref = None
        for role, node in zip(roles, operands, strict=True):
            value, found = self.operand(name, role, node)
            fields |= value
            ref = ref or found
        return self.make(
            row,
            dst=fields.get("dst", 0),
            src=fields.get("src", 0),
            off=fields.get("off", 0),
            imm=fields.get("imm", 0),
            next_imm=fields.get("next_imm", 0),
            ref=ref,
        )

    def mnemonic(self, name: Token, operands: list[Tree[Token]]) -> tuple[str, list[Tree[Token]]]:
        """Join the words of `lock fetch add` to the row's name; others are one word."""
        words, rest = [str(name)], operands
        while str(name) == "lock" and rest and rest[0].data == "label" and len(words) < 3:
            words.append(_text(rest[0]))
            rest = rest[1:]
        if words == ["lock"]:
            self.exactly(name, [], "an atomic operation")
        return "_".join(words), rest

    def operand(
        self, name: Token, role: str, node: Tree[Token]
    ) -> tuple[dict[str, int], Ref | None]:
        match role, node.data:
            case (("dst" | "src"), ("preg" | "reg")):
                return {role: self.read.full(_first(node))}, None
            case "imm", ("plain_int" | "relative"):
                return {"imm": self.read.imm32(node)}, None
            case "imm64", ("plain_int" | "relative"):
                value = self.read.imm64(node)
                return {"imm": s32(value), "next_imm": s32(hi32(value) >> 32)}, None
            case (("src+off" | "dst+off"), "memory"):
                base, off = self.read.bracket(_first(node))
                return {role[:3]: base, "off": off}, None
            case "target", ("relative" | "label"):
                distance, ref = self.target(node, 16)
                return {"off": distance}, ref
            case "long target", ("relative" | "label"):
                distance, ref = self.target(node, 32)
                return {"imm": distance}, ref
            case _:
                words = _OPERAND_WORDS[role]
        raise self.read.fail(f"{name}: expected {words}, not {_text(node)}", node)


#: Spellings of the ldimm64 kinds: by name (open reference) or by number.
_POINTERS: dict[str, tuple[LdKind, RefKind | None]] = {
    "map": (LdKind.MAP_IDX, RefKind.MAP),
    "map_value": (LdKind.MAP_IDX_VALUE, RefKind.MAP_VALUE),
    "func": (LdKind.FUNC, RefKind.FUNC),
    "map_idx": (LdKind.MAP_IDX, None),
    "map_idx_value": (LdKind.MAP_IDX_VALUE, None),
    "map_fd": (LdKind.MAP_FD, None),
    "map_fd_value": (LdKind.MAP_VALUE, None),
    "btf_id": (LdKind.BTF_ID, None),
    "func_pc": (LdKind.FUNC, None),
}
