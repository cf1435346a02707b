"""The instruction table: one row for each semantic operation, everything else is derived from it.

A row (`InsnDef`) says *what* an insn is; assembler, disassembler, validity checks, verifier,
interpreter, JIT, docs and the random generator say *how*, each from the same rows. The opcode
byte alone is no key: signed division, sign-extending moves and casts share opcodes by `off`,
atomics by `imm`, calls and ldimm64 kinds by `src`; `lookup` is the only decoder of meaning.

Source: RFC 9669 (instruction set and conformance groups); Linux for load-acquire/store-release,
`may_goto`, `addr_space_cast` and the internal probe modes of arena accesses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, IntEnum, unique

from bpfvm.insn import Insn

__all__ = [
    "MAX_REG",
    "MAX_STACK_ARGS",
    "PARAMS_REG",
    "TABLE",
    "AluOp",
    "AtomicOp",
    "CallKind",
    "EndOp",
    "Form",
    "Group",
    "InsnClass",
    "InsnDef",
    "JmpOp",
    "Kind",
    "LdKind",
    "has_reserved_bits",
    "is_known_opcode",
    "lookup",
    "stack_arg",
    "to_arena",
    "writes_dst",
]

#: The highest register a program may name: r10, the read-only frame pointer.
MAX_REG = 10
#: No register, but the base of arguments that lie on the stack: `*(u64 *)(r11 - 8) = x` passes the
#: sixth, `x = *(u64 *)(r11 + 8)` takes it (Linux 7.3).
PARAMS_REG = 11
MAX_STACK_ARGS = 7


class InsnClass(IntEnum):
    """The low three bits of an opcode (RFC 9669 section 3)."""

    LD = 0x00
    LDX = 0x01
    ST = 0x02
    STX = 0x03
    ALU = 0x04
    JMP = 0x05
    JMP32 = 0x06
    ALU64 = 0x07


class Mode(IntEnum):
    """The mode bits of a load or store opcode (RFC 9669 section 5); PROBE_* are internal."""

    IMM = 0x00
    ABS = 0x20
    IND = 0x40
    MEM = 0x60
    MEMSX = 0x80
    ATOMIC = 0xC0
    PROBE_MEM32 = 0xA0
    PROBE_MEM32SX = 0xC0  # the bits of ATOMIC, in the other class (LDX)
    PROBE_ATOMIC = 0xE0


#: Size bits of a memory opcode by access width in bytes.
SIZE_BITS = {4: 0x00, 2: 0x08, 1: 0x10, 8: 0x18}


@unique
class AluOp(Enum):
    """Binary and unary arithmetic: (opcode bits, mnemonic, assignment operator, `off`)."""

    ADD = (0x00, "add", "+=", 0)
    SUB = (0x10, "sub", "-=", 0)
    MUL = (0x20, "mul", "*=", 0)
    DIV = (0x30, "div", "/=", 0)
    SDIV = (0x30, "sdiv", "s/=", 1)
    OR = (0x40, "or", "|=", 0)
    AND = (0x50, "and", "&=", 0)
    LSH = (0x60, "lsh", "<<=", 0)
    RSH = (0x70, "rsh", ">>=", 0)
    NEG = (0x80, "neg", "-", 0)
    MOD = (0x90, "mod", "%=", 0)
    SMOD = (0x90, "smod", "s%=", 1)
    XOR = (0xA0, "xor", "^=", 0)
    MOV = (0xB0, "mov", "=", 0)
    ARSH = (0xC0, "arsh", "s>>=", 0)

    def __init__(self, code: int, mnemonic: str, symbol: str, off: int) -> None:
        self.code, self.mnemonic, self.symbol, self.off = code, mnemonic, symbol, off


@unique
class EndOp(Enum):
    """Byte order operations: (opcode, mnemonic in LLVM syntax, mnemonic in bpf_conformance)."""

    LE = (0xD4, "le", "le")
    BE = (0xDC, "be", "be")
    SWAP = (0xD7, "bswap", "swap")

    def __init__(self, opcode: int, symbol: str, mnemonic: str) -> None:
        self.opcode, self.symbol, self.mnemonic = opcode, symbol, mnemonic


@unique
class JmpOp(Enum):
    """Conditions: (opcode bits, mnemonic, comparison operator)."""

    JEQ = (0x10, "jeq", "==")
    JGT = (0x20, "jgt", ">")
    JGE = (0x30, "jge", ">=")
    JSET = (0x40, "jset", "&")
    JNE = (0x50, "jne", "!=")
    JSGT = (0x60, "jsgt", "s>")
    JSGE = (0x70, "jsge", "s>=")
    JLT = (0xA0, "jlt", "<")
    JLE = (0xB0, "jle", "<=")
    JSLT = (0xC0, "jslt", "s<")
    JSLE = (0xD0, "jsle", "s<=")

    def __init__(self, code: int, mnemonic: str, symbol: str) -> None:
        self.code, self.mnemonic, self.symbol = code, mnemonic, symbol


#: The `imm` bit that makes an atomic return the old value.
FETCH = 0x01


@unique
class AtomicOp(Enum):
    """Read-modify-write operations: (`imm` without FETCH, mnemonic, assignment operator)."""

    ADD = (0x00, "add", "+=")
    OR = (0x40, "or", "|=")
    AND = (0x50, "and", "&=")
    XOR = (0xA0, "xor", "^=")
    XCHG = (0xE0, "xchg", "")
    CMPXCHG = (0xF0, "cmpxchg", "")

    def __init__(self, code: int, mnemonic: str, symbol: str) -> None:
        self.code, self.mnemonic, self.symbol = code, mnemonic, symbol


@unique
class LdKind(Enum):
    """What the 64-bit immediate of an ldimm64 names: its `src` field (RFC 9669 section 5.4)."""

    IMM64 = 0
    MAP_FD = 1
    MAP_VALUE = 2
    BTF_ID = 3
    FUNC = 4
    MAP_IDX = 5
    MAP_IDX_VALUE = 6


@unique
class CallKind(Enum):
    """What a call's `imm` names: its `src` field (RFC 9669 section 4.3)."""

    HELPER = 0
    LOCAL = 1
    KFUNC = 2


Op = AluOp | EndOp | JmpOp | AtomicOp | LdKind | CallKind


@unique
class Kind(Enum):
    """Structural kinds: what every consumer dispatches on (`match` ending in `assert_never`)."""

    ALU = "alu"
    NEG = "neg"
    END = "end"
    MOV = "mov"
    MOVSX = "movsx"
    CAST_KERN = "cast_kern"
    CAST_USER = "cast_user"
    LDIMM64 = "ldimm64"
    LDX = "ldx"
    ST = "st"
    STX = "stx"
    ATOMIC = "atomic"
    LOAD_ACQ = "load_acquire"
    STORE_REL = "store_release"
    JA = "ja"
    JCOND = "jcond"
    MAY_GOTO = "may_goto"
    CALL = "call"
    CALLX = "callx"
    EXIT = "exit"
    LD_ABS = "ld_abs"
    LD_IND = "ld_ind"


@unique
class Form(Enum):
    """Operand shapes: the insn fields that carry operands; every other field must be zero
    unless the row fixes it. Words that are no field tell apart shapes with the same fields."""

    NONE = ()
    DST = ("dst",)
    DST_SRC = ("dst", "src")
    DST_IMM = ("dst", "imm")
    DST_IMM64 = ("dst", "imm", "imm64")  # imm64: the next slot's imm
    LOAD = ("dst", "src", "off")  # dst = [src + off]
    STORE_REG = ("dst", "off", "src")  # [dst + off] = src
    STORE_IMM = ("dst", "off", "imm")  # [dst + off] = imm
    TARGET_OFF = ("off",)
    TARGET_IMM = ("imm",)
    DST_SRC_TARGET = ("dst", "src", "off", "target")
    DST_IMM_TARGET = ("dst", "imm", "off", "target")
    CALLEE = ("imm", "callee")
    CALLEE_OFF = ("imm", "off")  # off: module BTF index of a kfunc
    SKB_IMM = ("imm", "skb")
    SKB_SRC_IMM = ("src", "imm", "skb")

    @property
    def fields(self) -> frozenset[str]:
        """The fields of `Insn` that this shape uses."""
        return frozenset(self.value) & frozenset(Insn._fields)


@unique
class Group(Enum):
    """Conformance groups (RFC 9669 section 2.4); EXT is Linux beyond the RFC."""

    BASE32 = "base32"
    BASE64 = "base64"
    ATOMIC32 = "atomic32"
    ATOMIC64 = "atomic64"
    DIVMUL32 = "divmul32"
    DIVMUL64 = "divmul64"
    PACKET = "packet"
    CALLX = "callx"
    EXT = "ext"


@dataclass(frozen=True, slots=True)
class InsnDef:
    """One semantic operation.

    Attributes:
        mnemonic: name in bpf_conformance's assembler, unique in the table.
        opcode: the opcode byte.
        kind, op: what it is; *op* is None where the kind says all.
        form: which insn fields carry operands.
        width: operand width in bits, 32 or 64 (ALU, jumps); for END the swapped width.
        size: bytes accessed (memory kinds), else 0.
        fixed: (field, value) pairs that tell this row from others with its opcode.
        group, version: RFC 9669 conformance group and clang's -mcpu=vN that emits it.
        doc: pseudo-semantics in one line.
        is_reg: the second operand is a register, not an immediate.
        sx: bits that are sign-extended (movsx, ldxs*), else 0.
        fetch: the atomic returns the old value.
        arena: internal form of an access through an arena pointer (kernel's BPF_PROBE_*);
            made by the verifier's rewrite, never accepted from a user.
    """

    mnemonic: str
    opcode: int
    kind: Kind
    form: Form
    doc: str
    op: Op | None = None
    width: int = 64
    size: int = 0
    fixed: tuple[tuple[str, int], ...] = ()
    group: Group = Group.BASE64
    version: int = 1
    is_reg: bool = False
    sx: int = 0
    fetch: bool = False
    arena: bool = False

    @property
    def insn_class(self) -> InsnClass:
        """The class bits of the opcode."""
        return InsnClass(self.opcode & 0x07)


def _suffix(width: int) -> str:
    return "32" if width == 32 else ""


def _base(width: int) -> Group:
    return Group.BASE32 if width == 32 else Group.BASE64


_ALU_DOC = {
    AluOp.DIV: "dst = src ? dst / src : 0, unsigned",
    AluOp.SDIV: "dst = src ? dst / src : 0, signed, towards zero",
    AluOp.MOD: "dst = src ? dst % src : dst, unsigned",
    AluOp.SMOD: "dst = src ? dst % src : dst, signed, sign of the dividend",
    AluOp.LSH: "dst <<= src & (width - 1)",
    AluOp.RSH: "dst >>= src & (width - 1), logical",
    AluOp.ARSH: "dst >>= src & (width - 1), arithmetic",
    AluOp.MOV: "dst = src",
}
_DIVMUL = {AluOp.MUL, AluOp.DIV, AluOp.SDIV, AluOp.MOD, AluOp.SMOD}


def _alu_rows() -> Iterator[InsnDef]:
    for width, cls in ((64, InsnClass.ALU64), (32, InsnClass.ALU)):
        for op in AluOp:
            name = op.mnemonic + _suffix(width)
            if op is AluOp.NEG:
                yield InsnDef(
                    name,
                    cls | op.code,
                    Kind.NEG,
                    Form.DST,
                    "dst = -dst",
                    op,
                    width,
                    group=_base(width),
                )
                continue
            group = _base(width)
            if op in _DIVMUL:
                group = Group.DIVMUL32 if width == 32 else Group.DIVMUL64
            kind = Kind.MOV if op is AluOp.MOV else Kind.ALU
            doc = _ALU_DOC.get(op, f"dst {op.symbol} src")
            # MOV with a register always needs `off` to tell it from movsx and casts, and
            # DIV/MOD to tell unsigned from signed.
            shares = op.off or op in (AluOp.DIV, AluOp.MOD)
            for is_reg in (False, True):
                fixed = (("off", op.off),) if shares or (is_reg and op is AluOp.MOV) else ()
                yield InsnDef(
                    f"{name}_{'reg' if is_reg else 'imm'}",
                    cls | op.code | (0x08 if is_reg else 0),
                    kind,
                    Form.DST_SRC if is_reg else Form.DST_IMM,
                    doc if is_reg else doc.replace("src", "imm"),
                    op,
                    width,
                    fixed=fixed,
                    group=group,
                    version=4 if op.off else 1,
                    is_reg=is_reg,
                )
        for bits in (8, 16, 32)[: 3 if width == 64 else 2]:
            yield InsnDef(
                f"movsx{bits}{width}",
                cls | AluOp.MOV.code | 0x08,
                Kind.MOVSX,
                Form.DST_SRC,
                f"dst = (s{width})(s{bits})src",
                AluOp.MOV,
                width,
                fixed=(("off", bits),),
                group=_base(width),
                version=4,
                is_reg=True,
                sx=bits,
            )
    cast = InsnClass.ALU64 | AluOp.MOV.code | 0x08
    yield InsnDef(
        "cast_kern",
        cast,
        Kind.CAST_KERN,
        Form.DST_SRC,
        "dst = arena pointer of src: (u32)src, the base is added at each access",
        fixed=(("off", 1), ("imm", 1)),
        group=Group.EXT,
        version=4,
        is_reg=True,
    )
    yield InsnDef(
        "cast_user",
        cast,
        Kind.CAST_USER,
        Form.DST_SRC,
        "dst = (u32)src ? hi(user_vm_start) | (u32)src : 0",
        fixed=(("off", 1), ("imm", 1 << 16)),
        group=Group.EXT,
        version=4,
        is_reg=True,
    )
    for end in EndOp:
        for bits in (16, 32, 64):
            yield InsnDef(
                f"{end.mnemonic}{bits}",
                end.opcode,
                Kind.END,
                Form.DST,
                f"dst = {end.symbol}{bits}(dst)",
                end,
                bits,
                fixed=(("imm", bits),),
                group=Group.BASE64 if bits == 64 else Group.BASE32,
                version=4 if end is EndOp.SWAP else 1,
            )


_SIZE_NAME = {1: "b", 2: "h", 4: "w", 8: "dw"}


def _mem_rows(arena: bool) -> Iterator[InsnDef]:
    mem = Mode.PROBE_MEM32 if arena else Mode.MEM
    memsx = Mode.PROBE_MEM32SX if arena else Mode.MEMSX
    pre = "arena_" if arena else ""

    def row(
        name: str,
        cls: InsnClass,
        mode: int,
        size: int,
        kind: Kind,
        form: Form,
        doc: str,
        *,
        sx: int = 0,
    ) -> InsnDef:
        return InsnDef(
            pre + name,
            cls | mode | SIZE_BITS[size],
            kind,
            form,
            doc,
            width=64,
            size=size,
            group=Group.EXT if arena else (Group.BASE64 if size == 8 or sx else Group.BASE32),
            version=4 if sx else 1,
            is_reg=kind is not Kind.ST,
            sx=sx,
            arena=arena,
        )

    for size in (1, 2, 4, 8):
        bits, n = size * 8, _SIZE_NAME[size]
        yield row(
            f"ldx{n}",
            InsnClass.LDX,
            mem,
            size,
            Kind.LDX,
            Form.LOAD,
            f"dst = *(u{bits} *)(src + off)",
        )
        if size < 8:
            yield row(
                f"ldxs{n}",
                InsnClass.LDX,
                memsx,
                size,
                Kind.LDX,
                Form.LOAD,
                f"dst = *(s{bits} *)(src + off)",
                sx=bits,
            )
        yield row(
            f"st{n}",
            InsnClass.ST,
            mem,
            size,
            Kind.ST,
            Form.STORE_IMM,
            f"*(u{bits} *)(dst + off) = imm",
        )
        yield row(
            f"stx{n}",
            InsnClass.STX,
            mem,
            size,
            Kind.STX,
            Form.STORE_REG,
            f"*(u{bits} *)(dst + off) = src",
        )
    yield from _atomic_rows(arena)


#: `imm` of the acquire load and the release store (Linux; not in RFC 9669).
LOAD_ACQ_IMM = 0x100
STORE_REL_IMM = 0x110


def _atomic_rows(arena: bool) -> Iterator[InsnDef]:
    mode = Mode.PROBE_ATOMIC if arena else Mode.ATOMIC
    pre = "arena_" if arena else ""
    for size, width in ((8, 64), (4, 32)):
        opcode = InsnClass.STX | mode | SIZE_BITS[size]
        group = Group.EXT if arena else (Group.ATOMIC32 if size == 4 else Group.ATOMIC64)
        place = f"*(u{width} *)(dst + off)"
        for op in AtomicOp:
            always = op in (AtomicOp.XCHG, AtomicOp.CMPXCHG)
            for fetch in (True,) if always else (False, True):
                if op is AtomicOp.CMPXCHG:
                    doc = f"old = {place}; if old == r0: {place} = src; r0 = old"
                elif op is AtomicOp.XCHG:
                    doc = f"src, {place} = {place}, src"
                else:
                    doc = f"{place} {op.symbol} src" + ("; src = old" if fetch else "")
                yield InsnDef(
                    f"{pre}lock_{'fetch_' if fetch and not always else ''}{op.mnemonic}"
                    + _suffix(width),
                    opcode,
                    Kind.ATOMIC,
                    Form.STORE_REG,
                    doc,
                    op,
                    width,
                    size,
                    fixed=(("imm", op.code | (FETCH if fetch else 0)),),
                    group=group,
                    version=3,
                    is_reg=True,
                    fetch=fetch,
                    arena=arena,
                )
    for size in (1, 2, 4, 8):
        opcode = InsnClass.STX | mode | SIZE_BITS[size]
        for kind, imm, form, doc in (
            (Kind.LOAD_ACQ, LOAD_ACQ_IMM, Form.LOAD, f"dst = load_acquire(u{size * 8}, src + off)"),
            (
                Kind.STORE_REL,
                STORE_REL_IMM,
                Form.STORE_REG,
                f"store_release(u{size * 8}, dst + off, src)",
            ),
        ):
            yield InsnDef(
                f"{pre}{kind.value}{size * 8}",
                opcode,
                kind,
                form,
                doc,
                None,
                64,
                size,
                fixed=(("imm", imm),),
                group=Group.EXT,
                version=4,
                is_reg=True,
                arena=arena,
            )


_LD_DOC = {
    LdKind.IMM64: "dst = imm64",
    LdKind.MAP_FD: "dst = the map of file descriptor imm",
    LdKind.MAP_VALUE: "dst = address of value byte next_imm of the map of file descriptor imm",
    LdKind.BTF_ID: "dst = address of the kernel variable with BTF id imm",
    LdKind.FUNC: "dst = address of the subprog at this slot + 1 + imm",
    LdKind.MAP_IDX: "dst = map number imm of the program",
    LdKind.MAP_IDX_VALUE: "dst = address of value byte next_imm of map number imm",
}


def _ld_rows() -> Iterator[InsnDef]:
    for ld in LdKind:
        yield InsnDef(
            "lddw" if ld is LdKind.IMM64 else f"lddw_{ld.name.lower()}",
            0x18,
            Kind.LDIMM64,
            Form.DST_IMM64,
            _LD_DOC[ld],
            ld,
            fixed=(("src", ld.value),),
        )
    for size in (1, 2, 4):
        bits = size * 8
        for name, mode, kind, form, place in (
            ("ldabs", Mode.ABS, Kind.LD_ABS, Form.SKB_IMM, "imm"),
            ("ldind", Mode.IND, Kind.LD_IND, Form.SKB_SRC_IMM, "src + imm"),
        ):
            yield InsnDef(
                f"{name}{_SIZE_NAME[size]}",
                InsnClass.LD | mode | SIZE_BITS[size],
                kind,
                form,
                f"r0 = ntoh{bits}(packet[{place}]) (legacy)",
                size=size,
                group=Group.PACKET,
            )


def _jmp_rows() -> Iterator[InsnDef]:
    yield InsnDef("ja", 0x05, Kind.JA, Form.TARGET_OFF, "pc += off", group=Group.BASE32)
    yield InsnDef(
        "ja32",
        0x06,
        Kind.JA,
        Form.TARGET_IMM,
        "pc += imm",
        width=32,
        group=Group.BASE32,
        version=4,
    )
    for width, cls in ((64, InsnClass.JMP), (32, InsnClass.JMP32)):
        for op in JmpOp:
            for is_reg in (False, True):
                late = op in (JmpOp.JLT, JmpOp.JLE, JmpOp.JSLT, JmpOp.JSLE)
                yield InsnDef(
                    f"{op.mnemonic}{_suffix(width)}_{'reg' if is_reg else 'imm'}",
                    cls | op.code | (0x08 if is_reg else 0),
                    Kind.JCOND,
                    Form.DST_SRC_TARGET if is_reg else Form.DST_IMM_TARGET,
                    f"if dst {op.symbol} {'src' if is_reg else 'imm'}: pc += off",
                    op,
                    width,
                    group=_base(width),
                    version=3 if width == 32 else 2 if late else 1,
                    is_reg=is_reg,
                )
    yield InsnDef(
        "may_goto",
        0xE5,
        Kind.MAY_GOTO,
        Form.TARGET_OFF,
        "if the loop budget of this frame is used up: pc += off",
        fixed=(("src", 0),),
        group=Group.EXT,
        version=4,
    )
    for call, form, doc, version in (
        (CallKind.HELPER, Form.CALLEE, "r0 = helper number imm (r1..r5)", 1),
        (CallKind.LOCAL, Form.CALLEE, "r0 = the subprog at pc + 1 + imm (r1..r5)", 3),
        (CallKind.KFUNC, Form.CALLEE_OFF, "r0 = kfunc imm (r1..r5)", 3),
    ):
        yield InsnDef(
            f"call_{call.name.lower()}",
            0x85,
            Kind.CALL,
            form,
            doc,
            call,
            fixed=(("src", call.value),),
            group=Group.BASE32,
            version=version,
        )
    yield InsnDef(
        "callx",
        0x8D,
        Kind.CALLX,
        Form.DST,
        "r0 = helper number dst (r1..r5)",
        group=Group.CALLX,
        is_reg=True,
    )
    yield InsnDef("exit", 0x95, Kind.EXIT, Form.NONE, "return r0", group=Group.BASE32)


TABLE: tuple[InsnDef, ...] = (
    *_alu_rows(),
    *_mem_rows(arena=False),
    *_mem_rows(arena=True),
    *_ld_rows(),
    *_jmp_rows(),
)

#: Rows by opcode, each with its fixed fields as (index in `Insn`, value).
_BY_OPCODE: dict[int, tuple[tuple[InsnDef, tuple[tuple[int, int], ...]], ...]] = {}
#: By mnemonic, the indices of the fields that must be zero.
_RESERVED: dict[str, tuple[int, ...]] = {}
for _row in TABLE:
    _fixed = tuple((Insn._fields.index(name), value) for name, value in _row.fixed)
    _BY_OPCODE[_row.opcode] = (*_BY_OPCODE.get(_row.opcode, ()), (_row, _fixed))
    _used = {"opcode", *_row.form.fields, *(name for name, _ in _row.fixed)}
    _RESERVED[_row.mnemonic] = tuple(i for i, f in enumerate(Insn._fields) if f not in _used)

_ARENA_FORM: dict[str, InsnDef] = {
    row.mnemonic.removeprefix("arena_"): row for row in TABLE if row.arena
}


_LDXDW, _STDW, _STXDW = (
    cls | Mode.MEM | SIZE_BITS[8] for cls in (InsnClass.LDX, InsnClass.ST, InsnClass.STX)
)


def lookup(insn: Insn) -> InsnDef | None:
    """Return the row that *insn* is, or None: an unknown opcode, or fields that select no row.

    Fields that the row does not use are not looked at; see `has_reserved_bits`.
    """
    for row, fixed in _BY_OPCODE.get(insn.opcode, ()):
        for index, value in fixed:
            if insn[index] != value:
                break
        else:
            return row
    return None


def stack_arg(insn: Insn) -> int | None:
    """Return which argument on the stack *insn* passes or takes, from 0; None: it does neither."""
    if insn.opcode == _LDXDW:
        base, off = insn.src, insn.off
    elif insn.opcode in (_STDW, _STXDW):
        base, off = insn.dst, -insn.off
    else:
        return None
    return off // 8 - 1 if base == PARAMS_REG and off > 0 and off % 8 == 0 else None


def has_reserved_bits(insn: Insn, row: InsnDef) -> bool:
    """Say whether a field that *row* neither uses nor fixes is nonzero (RFC 9669 section 3)."""
    return any(insn[index] for index in _RESERVED[row.mnemonic])


def is_known_opcode(opcode: int) -> bool:
    """Say whether a user's program may hold *opcode* at all (internal arena forms: no)."""
    return any(not row.arena for row, _ in _BY_OPCODE.get(opcode, ()))


def to_arena(row: InsnDef) -> InsnDef:
    """Return the internal arena form of memory row *row* (kernel: BPF_PROBE_MEM32 and kin)."""
    return _ARENA_FORM[row.mnemonic]


_WRITES_DST = frozenset(
    {
        Kind.ALU,
        Kind.NEG,
        Kind.END,
        Kind.MOV,
        Kind.MOVSX,
        Kind.CAST_KERN,
        Kind.CAST_USER,
        Kind.LDIMM64,
        Kind.LDX,
        Kind.LOAD_ACQ,
    }
)


def writes_dst(row: InsnDef) -> bool:
    """Say whether an insn of *row* writes the register in its `dst` field."""
    return row.kind in _WRITES_DST
