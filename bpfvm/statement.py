"""One statement of assembly text -> slots, some of them with a reference still open.

Both syntaxes end here: LLVM's and the kernel's (`r1 += r2`) by the shape of the statement,
bpf_conformance's (`add %r1, %r2`) by the row's mnemonic and `Form`. Which operators, widths and
names exist is read from `isa.TABLE`, through `bpfvm.spellings`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, unique

from lark import Token, Tree

from bpfvm.bits import U32_MAX, hi32, s32
from bpfvm.insn import Insn
from bpfvm.isa import CallKind, Form, InsnDef, Kind, LdKind
from bpfvm.spellings import (
    ACQUIRE,
    ASSIGN,
    CALL,
    COMPARE,
    EXTEND,
    FETCH,
    FETCH_NAMES,
    JUMP,
    LOAD,
    LOCKED,
    MNEMONICS,
    NEGATE,
    OPERAND_WORDS,
    OPERANDS,
    PACKET,
    RELEASE,
    STORE,
    UNARY,
    WIDE,
    the_row,
)
from bpfvm.syntax import Node, Place, Reader, Reg, as_tree, col_of, first_token, parse, text_of

__all__ = ["OpenSlot", "Ref", "RefKind", "statement_slots"]


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
class OpenSlot:
    """A slot as far as one statement tells."""

    insn: Insn
    place: Place
    ref: Ref | None = None


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
            f"the text is opcode {slots[0].insn.opcode:02x}, not ({opcode:02x})", col_of(tree)
        )
    return slots


class _Statement:
    def __init__(self, place: Place, opcode: int | None, call_src: int | None) -> None:
        self.place, self.opcode, self.call_src = place, opcode, call_src
        self.read = Reader(place)

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
            row = ASSIGN.get((str(operator), 32 if dst.is_word else 64, is_reg))
            if row is None:
                known = " ".join(sorted({symbol for symbol, _, _ in ASSIGN}))
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
            and self.opcode == WIDE[LdKind.IMM64].opcode
        )

    def need_full(self, dst: Reg) -> int:
        if dst.is_word:
            raise self.place.error(
                f"w{dst.number} where 64 bits are used: expected r{dst.number}", dst.col
            )
        return dst.number

    def wide(self, dst: Reg, number: Node) -> tuple[OpenSlot, ...]:
        return self.wide_value(WIDE[LdKind.IMM64], self.need_full(dst), self.read.imm64(number))

    def wide_value(self, row: InsnDef, dst: int, value: int) -> tuple[OpenSlot, ...]:
        return self.make(row, dst=dst, imm=s32(value), next_imm=s32(hi32(value) >> 32))

    def symbol(self, dst: Reg, name: Token) -> tuple[OpenSlot, ...]:
        return self.make(
            WIDE[LdKind.MAP_IDX],
            dst=self.need_full(dst),
            ref=Ref(RefKind.SYMBOL, str(name), col_of(name)),
        )

    def negate(self, dst: Reg, _minus: Token, reg: Token) -> tuple[OpenSlot, ...]:
        self.must_repeat(dst, reg)
        return self.make(NEGATE[32 if dst.is_word else 64], dst=dst.number)

    def must_repeat(self, dst: Reg, reg: Token) -> None:
        if self.read.same_width(dst, reg) != dst.number:
            raise self.read.fail(f"expected {'rw'[dst.is_word]}{dst.number} again", reg)

    def extend(self, dst: Reg, ctype: Token, reg: Token) -> tuple[OpenSlot, ...]:
        row = EXTEND.get((str(ctype), 32 if dst.is_word else 64))
        if row is None:
            raise self.read.fail(f"no sign extension ({ctype}) to this width", ctype)
        return self.make(row, dst=dst.number, src=self.read.same_width(dst, reg))

    def unary(self, dst: Reg, name: Token, reg: Token) -> tuple[OpenSlot, ...]:
        if str(name) not in UNARY:
            raise self.read.fail(f"unknown operation {name}: expected {' '.join(UNARY)}", name)
        self.need_full(dst)
        self.must_repeat(dst, reg)
        return self.make(UNARY[str(name)], dst=dst.number)

    def load(self, dst: Reg, deref: Node) -> tuple[OpenSlot, ...]:
        ctype, base, off = self.read.deref(deref)
        row = self.read.typed(LOAD, ctype)
        if row.sx or row.size == 8:
            self.need_full(dst)
        return self.make(row, dst=dst.number, src=base, off=off)

    def packet(self, kind: Kind, dst: Reg, ctype: Token, base: Token) -> InsnDef:
        if dst.number or dst.is_word:
            raise self.place.error("a packet load writes r0", dst.col)
        if str(base) != "skb":
            raise self.read.fail(f"unexpected {str(base)!r}: expected skb", base)
        rows = {size: row for (k, size), row in PACKET.items() if k is kind}
        return self.read.typed(rows, ctype)

    def packet_abs(self, dst: Reg, ctype: Token, base: Token, number: Node) -> tuple[OpenSlot, ...]:
        row = self.packet(Kind.LD_ABS, dst, ctype, base)
        return self.make(row, imm=self.read.imm32(number))

    def packet_ind(
        self, dst: Reg, ctype: Token, base: Token, src: Token, *disp: Node
    ) -> tuple[OpenSlot, ...]:
        row = self.packet(Kind.LD_IND, dst, ctype, base)
        imm = self.read.signed(disp[0], 32, "immediate") if disp else 0
        return self.make(row, src=self.read.full(src), imm=imm)

    # -- `REG = name(...)` ------------------------------------------------------------------------

    def result(self, dst: Reg, func: Tree[Token], *disp: Tree[Token]) -> tuple[OpenSlot, ...]:
        name = func.children[0]
        spelling = str(name)
        if spelling in FETCH_NAMES:
            done = self.fetch(dst, func)
        elif spelling == "addr_space_cast":
            done = self.cast(dst, func)
        elif spelling == "load_acquire":
            pointer = self.args(func, "pointer")[0]
            ctype, base, off = self.read.deref(pointer)
            row = self.read.typed(ACQUIRE, ctype)
            reg = self.need_full(dst) if row.size == 8 else dst.number
            done = self.make(row, dst=reg, src=base, off=off)
        elif spelling in _POINTERS:
            return self.pointer(dst, func, disp)
        else:
            known = ["addr_space_cast", "load_acquire", *_POINTERS, *sorted(FETCH_NAMES)]
            raise self.read.fail(f"unknown operation {name}: expected {' '.join(known)}", name)
        if disp:
            raise self.read.fail("unexpected offset after ')'", disp[0])
        return done

    def args(self, func: Tree[Token], *shapes: str) -> list[Tree[Token]]:
        """Return the arguments of *func*, which must have *shapes* ("a|b": one of these)."""
        name, *given = func.children
        args = [as_tree(a) for a in given]
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
        return first_token(reg)

    def fetch(self, dst: Reg, func: Tree[Token]) -> tuple[OpenSlot, ...]:
        name = str(func.children[0])
        swaps = "cmpxchg" in name
        where = "place" if (name, "") in FETCH else "pointer"
        args = self.args(func, where, *["place"] * (2 if swaps else 1))
        if where == "place":
            base, *disp = args[0].children
            row, reg, off = FETCH[name, ""], self.read.full(base), self.read.off(disp)
        else:
            ctype, reg, off = self.read.deref(args[0])
            rows = {t: r for (n, t), r in FETCH.items() if n == name}
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

    def cast(self, dst: Reg, func: Tree[Token]) -> tuple[OpenSlot, ...]:
        args = self.args(func, "place", "plain", "plain")
        spaces = []
        for arg in args[1:]:
            value = self.read.imm64(arg.children[0])
            if value > 0xFFFF:
                raise self.read.fail("an address space number has 16 bits", arg)
            spaces.append(value)
        src = self.read.full(self.bare_reg(args[0]))
        (slot,) = self.make(the_row(Kind.CAST_KERN), dst=self.need_full(dst), src=src)
        return (OpenSlot(slot.insn._replace(imm=s32(spaces[0] << 16 | spaces[1])), self.place),)

    def pointer(
        self, dst: Reg, func: Tree[Token], disp: tuple[Tree[Token], ...]
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
            ref = Ref(by_name, text_of(arg).strip('"'), col_of(arg))
        reg = self.need_full(dst)
        return self.make(WIDE[kind], dst=reg, imm=imm, next_imm=s32(extra), ref=ref)

    # -- the other kernel shapes ------------------------------------------------------------------

    def store(self, deref: Node, operator: Token, value: Node) -> tuple[OpenSlot, ...]:
        ctype, base, off = self.read.deref(deref)
        if str(operator) != "=":
            raise self.read.fail(f"unexpected {operator}: expected = (or lock before)", operator)
        is_reg = isinstance(value, Token)
        row = self.read.typed({t: r for (t, reg), r in STORE.items() if reg is is_reg}, ctype)
        if is_reg:
            return self.make(row, dst=base, src=self.read.sized(value, row.size), off=off)
        return self.make(row, dst=base, off=off, imm=self.read.imm32(value))

    def lock(self, deref: Node, operator: Token, value: Token) -> tuple[OpenSlot, ...]:
        ctype, base, off = self.read.deref(deref)
        rows = {t: r for (symbol, t), r in LOCKED.items() if symbol == str(operator)}
        if not rows:
            known = " ".join(sorted({symbol for symbol, _ in LOCKED}))
            raise self.read.fail(f"no atomic {operator}: expected {known}", operator)
        row = self.read.typed(rows, ctype)
        return self.make(row, dst=base, src=self.read.sized(value, row.size), off=off)

    def branch(
        self, left: Token, operator: Token, right: Node, goto: Token, where: Tree[Token]
    ) -> tuple[OpenSlot, ...]:
        a = self.read.reg(left)
        is_reg = isinstance(right, Token)
        row = COMPARE.get((str(operator), 32 if a.is_word else 64, is_reg))
        if row is None:
            known = " ".join(sorted({symbol for symbol, _, _ in COMPARE}))
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
            return 0, Ref(kind, str(name), col_of(name))
        if str(name) != "pc":
            raise self.read.fail(f"no distance is allowed after label {name}", disp[0])
        return self.read.signed(disp[0], bits, "jump"), None

    def action(self, func: Tree[Token]) -> tuple[OpenSlot, ...]:
        name = func.children[0]
        if str(name) != "store_release":
            raise self.read.fail(f"unknown operation {name}: expected store_release", name)
        pointer, value = self.args(func, "pointer", "place")
        ctype, base, off = self.read.deref(pointer)
        row = self.read.typed(RELEASE, ctype)
        src = self.read.sized(self.bare_reg(value), row.size)
        return self.make(row, dst=base, src=src, off=off)

    # -- commands: a word and its operands --------------------------------------------------------

    def command(self, name: Token, *rest: Node) -> tuple[OpenSlot, ...]:
        operands = self.without_commas(rest)
        match str(name):
            case "goto" | "gotol":
                row = JUMP[str(name)]
                (where,) = self.exactly(name, operands, "a label or +N")
                distance, ref = self.target(where, 16 if name == "goto" else 32)
                if row.form is Form.TARGET_IMM:
                    return self.make(row, imm=distance, ref=ref)
                return self.make(row, off=distance, ref=ref)
            case "call":
                return self.call(name, operands)
            case "callx":
                (reg,) = self.exactly(name, operands, "a register")
                return self.make(the_row(Kind.CALLX), dst=self.read.full(first_token(reg)))
            case _:
                return self.by_mnemonic(name, operands)

    def without_commas(self, nodes: Sequence[Node]) -> list[Tree[Token]]:
        """Return the operands alone; in bpf_conformance's syntax space follows a comma."""
        operands = []
        for i, node in enumerate(nodes):
            if isinstance(node, Tree):
                operands.append(node)
            elif i + 1 < len(nodes) and col_of(nodes[i + 1]) == node.end_column:
                raise self.read.fail("expected a space after ','", nodes[i + 1])
        return operands

    def exactly(self, name: Token, operands: list[Tree[Token]], *words: str) -> list[Tree[Token]]:
        if len(operands) < len(words):
            end = len(self.place.source.rstrip()) + 1
            raise self.place.error(f"{name}: missing operand: expected {words[len(operands)]}", end)
        if len(operands) > len(words):
            extra = operands[len(words)]
            raise self.read.fail(f"{name}: unexpected operand {text_of(extra)}", extra)
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
                return self.make(CALL[kind], imm=self.read.imm32(first))
            case "preg" | "reg":
                return self.make(the_row(Kind.CALLX), dst=self.read.full(first_token(first)))
            case "relative":
                kind = CallKind.KFUNC if self.call_src == CallKind.KFUNC.value else CallKind.LOCAL
                return self.make(CALL[kind], imm=self.read.signed(first, 32, "call"))
            case "result":
                return self.kfunc_call(first)
            case "callee":
                spelling, number = text_of(first).split("#")
                ref = Ref(RefKind.CALL, spelling, col_of(first), self.read.whole(first, number))
                return self.make(CALL[CallKind.HELPER], ref=ref)
            case "label" if len(first.children) > 1:
                distance, _ = self.target(first, 32)
                return self.make(CALL[CallKind.LOCAL], imm=distance)
            case "label":
                ref = Ref(RefKind.CALL, word, col_of(first))
                return self.make(CALL[CallKind.HELPER], ref=ref)
            case _:
                raise self.read.fail("expected a helper, a kfunc, a label or pc+N", first)

    def explicit_call(
        self, name: Token, word: str, first: Tree[Token], rest: list[Tree[Token]]
    ) -> tuple[OpenSlot, ...]:
        """bpf_conformance's `call helper N`, `call local TARGET`, `call runtime N`."""
        if len(first.children) > 1:
            rest = [Tree("relative", as_tree(first.children[1]).children), *rest]
        (what,) = self.exactly(name, rest, "a callee")
        if word == "local":
            if what.data == "label" and len(what.children) == 1:
                ref = Ref(RefKind.LOCAL, text_of(what), col_of(what))
                return self.make(CALL[CallKind.LOCAL], ref=ref)
            return self.make(CALL[CallKind.LOCAL], imm=self.target(what, 32)[0])
        if word == "helper" and what.data == "preg":
            return self.make(the_row(Kind.CALLX), dst=self.read.full(first_token(what)))
        if word == "kfunc" and what.data == "label":
            ref = Ref(RefKind.KFUNC, text_of(what), col_of(what))
            return self.make(CALL[CallKind.KFUNC], ref=ref)
        if what.data not in ("plain_int", "relative"):
            raise self.read.fail(f"call {word}: expected a number", what)
        kind = CallKind.HELPER if word == "helper" else CallKind.KFUNC
        return self.make(CALL[kind], imm=self.read.imm32(what))

    def kfunc_call(self, node: Tree[Token]) -> tuple[OpenSlot, ...]:
        """`call kfunc(N) + M`: a kfunc by index, M in its `off` field."""
        func, *disp = node.children
        if str(first_token(func)) != "kfunc":
            raise self.read.fail(f"unexpected {first_token(func)}(...): expected kfunc(N)", node)
        (arg,) = self.args(as_tree(func), "plain|word")
        ref, imm = None, 0
        if arg.data == "word":
            ref = Ref(RefKind.KFUNC, text_of(arg).strip('"'), col_of(arg))
        else:
            imm = self.read.imm32(arg.children[0])
        return self.make(CALL[CallKind.KFUNC], imm=imm, off=self.read.off(disp), ref=ref)

    def by_mnemonic(self, name: Token, operands: list[Tree[Token]]) -> tuple[OpenSlot, ...]:
        mnemonic, operands = self.mnemonic(name, operands)
        rows = MNEMONICS.get(mnemonic)
        if rows is None:
            raise self.read.fail(f"unknown mnemonic {mnemonic.replace('_', ' ')}", name)
        row = next(iter(rows.values()))
        if len(rows) == 2 and len(operands) > 1:
            row = rows[operands[1].data == "preg"]
        roles = OPERANDS[row.form]
        self.exactly(name, operands, *[OPERAND_WORDS[role] for role in roles])
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
            words.append(text_of(rest[0]))
            rest = rest[1:]
        if words == ["lock"]:
            self.exactly(name, [], "an atomic operation")
        return "_".join(words), rest

    def operand(
        self, name: Token, role: str, node: Tree[Token]
    ) -> tuple[dict[str, int], Ref | None]:
        match role, node.data:
            case (("dst" | "src"), "preg"):
                return {role: self.read.full(first_token(node))}, None
            case "imm", ("plain_int" | "relative"):
                return {"imm": self.read.imm32(node)}, None
            case "imm64", ("plain_int" | "relative"):
                value = self.read.imm64(node)
                return {"imm": s32(value), "next_imm": s32(hi32(value) >> 32)}, None
            case (("src+off" | "dst+off"), "memory"):
                base, off = self.read.bracket(first_token(node))
                return {role[:3]: base, "off": off}, None
            case "target", ("relative" | "label"):
                distance, ref = self.target(node, 16)
                return {"off": distance}, ref
            case "long target", ("relative" | "label"):
                distance, ref = self.target(node, 32)
                return {"imm": distance}, ref
            case _:
                words = OPERAND_WORDS[role]
        raise self.read.fail(f"{name}: expected {words}, not {text_of(node)}", node)


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
