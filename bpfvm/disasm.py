"""Insns -> text: the kernel verifier's wording, and listings that `bpfvm.asm` takes back.

`insn_text` prints to the byte what the kernel's log prints (kernel: print_bpf_insn). That text
loses what a constant names: an ldimm64 of a map shows a number, a kfunc its BTF id. So `Names`
may put other words there, and listings do: `r1 = map(NAME)`, `r1 = map_value(NAME) + 8`,
`r1 = func_pc(4)`, `call NAME`, `call kfunc(2) + 1`. Internal arena accesses, which no user may
write, are printed with `probe` in front, as the kernel prints its atomic ones.

For every program whose subprogs cover its slots, assembling its listing gives it back, apart
from what only BTF tells (line info, types of subprogs). Slots that are no valid insn are listed
as bytes, `.slot 0f21000001000000`, with the kernel's wording as a comment; source lines are
comments too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

from bpfvm import isa
from bpfvm.bits import u32
from bpfvm.insn import Insn
from bpfvm.isa import TABLE, CallKind, Form, InsnDef, Kind, LdKind
from bpfvm.maps.base import MapFlags, MapType
from bpfvm.program import Linkage, LocalType, MapDef, ObjectFile, Program, Subprog
from bpfvm.record import MapField
from bpfvm.signature import words_of

__all__ = ["KERNEL", "Names", "disassemble", "insn_text", "listing_names"]


@dataclass(frozen=True, slots=True)
class Names:
    """Words for what an insn refers to; each may return None for the kernel's default.

    Attributes:
        helper: name of a helper by number.
        kfunc: name of a kfunc by its call's `imm` and `off`.
        wide: words for an ldimm64, by kind, `imm` and the next slot's imm.
        callee: the whole text after `call `, for kfuncs and helpers; before *helper*, *kfunc*.
    """

    helper: Callable[[int], str | None] = lambda _number: None
    kfunc: Callable[[int, int], str | None] = lambda _imm, _off: None
    wide: Callable[[LdKind, int, int], str | None] = lambda _kind, _imm, _next_imm: None
    callee: Callable[[Insn], str | None] = lambda _insn: None


#: No names at all: what the kernel prints when it knows none.
KERNEL = Names()


def _nearest(insn: Insn) -> InsnDef | None:
    """The row that *insn*, whose fields select none, is printed as: that of its opcode with
    which it has most in common (`/=` with off 2 is a division, a cast to space 7 a cast)."""
    rows = [row for row in TABLE if row.opcode == insn.opcode]
    return max(
        rows,
        key=lambda row: sum(getattr(insn, name) == value for name, value in row.fixed),
        default=None,
    )


def insn_text(insn: Insn, next_imm: int = 0, names: Names = KERNEL) -> str:
    """Return *insn* as the verifier's log shows it, `(61) r0 = *(u32 *)(r1 +4)`.

    Reserved fields are not looked at, as in the kernel; an insn that is none of the table's is
    `(xx) BUG_xx`. *next_imm* is the imm of an ldimm64's second slot.
    """
    row = isa.lookup(insn)
    if row is None:
        row = _nearest(insn)
        if row is None or row.kind in (Kind.ATOMIC, Kind.LOAD_ACQ, Kind.STORE_REL):
            return f"({insn.opcode:02x}) BUG_{insn.opcode:02x}"
    probe = "probe " if row.arena else ""
    return f"({insn.opcode:02x}) {probe}{_text(insn, row, next_imm, names)}"


def _text(insn: Insn, row: InsnDef, next_imm: int, names: Names) -> str:
    _, dst, src, off, imm = insn
    letter = "w" if row.width == 32 else "r"
    second = f"{letter}{src}" if row.is_reg else str(imm)
    ctype = f"{'s' if row.sx else 'u'}{row.size * 8}"
    match row.kind:
        case Kind.ALU | Kind.MOV:
            return f"{letter}{dst} {_symbol(row)} {second}"
        case Kind.NEG:
            return f"{letter}{dst} = -{letter}{dst}"
        case Kind.END:
            return f"r{dst} = {_symbol(row)}{imm} r{dst}"
        case Kind.MOVSX:
            return f"{letter}{dst} = (s{row.sx}){letter}{src}"
        case Kind.CAST_KERN | Kind.CAST_USER:
            to, of = u32(imm) >> 16, u32(imm) & 0xFFFF
            return f"r{dst} = addr_space_cast(r{src}, {to}, {of})"
        case Kind.LDIMM64:
            assert isinstance(row.op, LdKind)
            plain = f"{u32(imm) | u32(next_imm) << 32:#x}"
            return f"r{dst} = {names.wide(row.op, imm, next_imm) or plain}"
        case Kind.LDX:
            return f"r{dst} = *({ctype} *)(r{src} {off:+d})"
        case Kind.ST | Kind.STX:
            return f"*({ctype} *)(r{dst} {off:+d}) = {second}"
        case Kind.ATOMIC:
            return _atomic_text(insn, row)
        case Kind.LOAD_ACQ:
            return f"r{dst} = load_acquire(({ctype} *)(r{src} {off:+d}))"
        case Kind.STORE_REL:
            return f"store_release(({ctype} *)(r{dst} {off:+d}), r{src})"
        case Kind.JA:
            long = row.form is Form.TARGET_IMM
            return f"gotol pc{imm:+d}" if long else f"goto pc{off:+d}"
        case Kind.JCOND:
            right = second if row.is_reg else f"{u32(imm):#x}"
            return f"if {letter}{dst} {_symbol(row)} {right} goto pc{off:+d}"
        case Kind.MAY_GOTO:
            return f"may_goto pc{off:+d}"
        case Kind.CALL:
            return f"call {_callee(insn, row, names)}"
        case Kind.CALLX:
            return f"callx r{dst}"
        case Kind.EXIT:
            return "exit"
        case Kind.LD_ABS:
            return f"r0 = *({ctype} *)skb[{imm}]"
        case Kind.LD_IND:
            return f"r0 = *({ctype} *)skb[r{src} + {imm}]"
        case _:
            assert_never(row.kind)


def _symbol(row: InsnDef) -> str:
    assert isinstance(row.op, isa.AluOp | isa.JmpOp | isa.AtomicOp | isa.EndOp)
    return row.op.symbol


def _atomic_text(insn: Insn, row: InsnDef) -> str:
    assert isinstance(row.op, isa.AtomicOp)
    long = "64" if row.size == 8 else ""
    place = f"(u{row.width} *)(r{insn.dst} {insn.off:+d})"
    src = f"r{insn.src}"
    if not row.fetch:
        return f"lock *{place} {row.op.symbol} {src}"
    if row.op is isa.AtomicOp.CMPXCHG:
        return f"r0 = atomic{long}_cmpxchg({place}, r0, {src})"
    fetch = "fetch_" if row.op.symbol else ""
    return f"{src} = atomic{long}_{fetch}{row.op.mnemonic}({place}, {src})"


def _callee(insn: Insn, row: InsnDef, names: Names) -> str:
    words = names.callee(insn)
    if words is not None:
        return words
    match row.op:
        case CallKind.LOCAL:
            return f"pc{insn.imm:+d}"
        case CallKind.KFUNC:
            name = names.kfunc(insn.imm, insn.off)
        case _:
            name = names.helper(insn.imm)
    return f"{name or 'unknown'}#{insn.imm}"


# -- listings -------------------------------------------------------------------------------------

_PLAIN_NAME = re.compile(r"[A-Za-z_.$][\w.$]*\Z")


def listing_names(program: Program, helpers: Mapping[str, int]) -> Names:
    """Return the words of *program*'s listing: maps and kfuncs by name, nothing lost."""
    by_number = {number: name for name, number in helpers.items()}
    labels = {s.name for s in program.subprogs} | {"exit", "unknown"}

    def callee(insn: Insn) -> str | None:
        if insn.src == CallKind.HELPER.value:
            return f"{by_number.get(insn.imm, 'unknown')}#{insn.imm}"
        if insn.src != CallKind.KFUNC.value:
            return None
        name = program.kfuncs[insn.imm] if 0 <= insn.imm < len(program.kfuncs) else ""
        plain = _PLAIN_NAME.match(name) and program.kfuncs.index(name) == insn.imm
        if not plain or insn.off:
            return f"kfunc({insn.imm})" + (f" {_signed(insn.off)}" if insn.off else "")
        return f"kfunc {name}" if name in helpers or name in labels else name

    map_names = [m.name for m in program.maps]

    def wide(kind: LdKind, imm: int, next_imm: int) -> str | None:
        by_map = 0 <= imm < len(map_names) and map_names.index(map_names[imm]) == imm
        match kind:
            case LdKind.IMM64:
                return None
            case LdKind.MAP_IDX:
                words = f"map({_word(map_names[imm])})" if by_map else f"map_idx({imm})"
            case LdKind.MAP_IDX_VALUE:
                words = f"map_value({_word(map_names[imm])})" if by_map else f"map_idx_value({imm})"
            case LdKind.MAP_FD:
                words = f"map_fd({imm})"
            case LdKind.MAP_VALUE:
                words = f"map_fd_value({imm})"
            case LdKind.BTF_ID:
                words = f"btf_id({imm})"
            case LdKind.FUNC:
                words = f"func_pc({imm})"
            case _:
                assert_never(kind)
        return words + (f" {_signed(next_imm)}" if next_imm else "")

    return Names(wide=wide, callee=callee)


def _signed(value: int) -> str:
    return f"{'-' if value < 0 else '+'} {abs(value)}"


def _word(name: str) -> str:
    return name if _PLAIN_NAME.match(name) else f'"{name}"'


def _numbered(program: Program, start: int, end: int, names: Names) -> Iterator[str]:
    insns = program.insns
    width = len(str(len(insns)))
    lines = {info.insn_off: info for info in program.line_info}
    shown = None
    slot = start
    while slot < end:
        info = lines.get(slot)
        if info is not None and (info.file, info.line) != shown:
            shown = info.file, info.line
            source = " ".join(info.source.split())
            yield f"; {source} @ {info.file.rsplit('/', 1)[-1]}:{info.line}"
        insn = insns[slot]
        row = isa.lookup(insn)
        wide = row is not None and row.kind is Kind.LDIMM64
        second = insns[slot + 1] if wide and slot + 1 < end else None
        text = insn_text(insn, second.imm if second is not None else 0, names)
        if row is None or row.arena or isa.has_reserved_bits(insn, row):
            yield f".slot {insn.encode().hex()} ; {slot}: {text}"
        elif wide and (second is None or second[:4] != (0, 0, 0, 0)):
            yield f".slot {insn.encode().hex()} ; {slot}: half of an ldimm64"
        else:
            yield f"{slot:{width}}: {text}"
            slot += wide
        slot += 1


def disassemble(what: ObjectFile | Program, helpers: Mapping[str, int]) -> str:
    """Return the listing of an object or of one program: text that `asm.assemble` takes back,
    given the same *helpers* (numbers by name)."""
    programs = [what] if isinstance(what, Program) else list(what.programs.values())
    types = {kind.id: kind for program in programs for kind in program.types}
    lines = [_type_line(kind) for kind in types.values()]
    lines += [_map_line(defn) for defn in what.maps]
    for program in programs:
        if lines:
            lines.append("")
        lines += _program_lines(program, helpers)
    return "\n".join(lines) + "\n"


def _program_lines(program: Program, helpers: Mapping[str, int]) -> Iterator[str]:
    attrs = [f"type={program.prog_type}", f"sleepable={int(program.sleepable)}"]
    if program.license != "GPL":
        attrs.append(f'license="{program.license}"')
    if program.expected_attach_type:
        attrs.append(f"attach={program.expected_attach_type}")
    if program.flags:
        attrs.append(f"flags={program.flags:#x}")
    yield f".prog {_word(program.name)} {' '.join(attrs)}"
    for name in program.kfuncs:
        yield f".kfunc {_word(name)}{' weak' if name in program.weak_kfuncs else ''}"
    names = listing_names(program, helpers)
    for subprog in program.subprogs:
        linkage = " global" if subprog.linkage is Linkage.GLOBAL else ""
        if subprog.start or subprog.name != program.name or linkage:
            yield f".func {_word(subprog.name)}{linkage}{_signature(subprog)}"
        yield from _numbered(program, subprog.start, subprog.end, names)
    if not program.subprogs:
        yield from _numbered(program, 0, len(program.insns), names)


def _signature(subprog: Subprog) -> str:
    callbacks = "".join(f" exception={name}" for name in sorted(subprog.exception_callbacks))
    if subprog.params is None:
        return callbacks
    args, ret = words_of(subprog.params, subprog.ret)
    return f' args="{args}" ret={ret}{callbacks}'


def _type_line(kind: LocalType) -> str:
    fields = f" fields={_fields(kind.fields)}" if kind.fields else ""
    return f".struct {_word(kind.name)} size={kind.size} id={kind.id}{fields}"


def _fields(fields: Sequence[MapField]) -> str:
    words = (
        f"{field.kind.label}@{field.off}"
        + (f":{field.holds.name}@{field.holds.off}" if field.holds is not None else "")
        for field in fields
    )
    return ",".join(words)


def _map_line(defn: MapDef) -> str:
    try:
        kind = MapType(defn.map_type).name.lower()
    except ValueError:
        kind = str(defn.map_type)
    words = [f.name.lower() for f in MapFlags if f & defn.flags and f.name]
    rest = defn.flags & ~sum(int(f) for f in MapFlags)
    if rest or not words:
        words.append(f"{rest:#x}")
    line = (
        f".map {_word(defn.name)} type={kind} key={defn.key_size} value={defn.value_size}"
        f" entries={defn.max_entries} flags={','.join(words)}"
    )
    if defn.map_extra:
        line += f" extra={defn.map_extra:#x}"
    if defn.image is not None:
        line += f" image={defn.image.hex()}" if defn.image else ' image=""'
    if defn.record is not None:
        line += f" fields={_fields(defn.record)}" if defn.record else ' fields=""'
    return line + (" frozen" if defn.frozen else "")
