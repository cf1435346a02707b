"""Reserved fields: which insns hold nonzero bits where the kernel wants zeros, and its words.

Before 7.3 the kernel looks at them when the walk reaches the insn, later in one pass over all.
"""

from __future__ import annotations

from bpfvm.insn import Insn
from bpfvm.isa import MAX_REG, PARAMS_REG, AluOp, EndOp, InsnClass, Kind, lookup, stack_arg
from verifier.reasons import Reason, Reject

__all__ = ["check_fields", "check_regs", "is_atomic"]

_OP_MASK, _X = 0xF0, 0x08
_MODE_MASK, _MEM, _ATOMIC = 0xE0, 0x60, 0xC0
_JA, _CALL, _EXIT, _JCOND = 0x00, 0x80, 0x90, 0xE0
_END = EndOp.LE.opcode & _OP_MASK
_SIGNED = (AluOp.DIV.code, AluOp.MOD.code)
_MOVSX32 = (0, 8, 16)
_MOVSX64 = (0, 8, 16, 32)
_CAST = 1
_CASTS = (1, 1 << 16)
_ACQUIRE_RELEASE = (0x100, 0x110)
_WORD_SIZES = (0x00, 0x18)  # u32 and u64 in the size bits
_SIZE_MASK = 0x18
_KFUNC = 2


def check_regs(insn: Insn) -> None:
    """Refuse register numbers that no program may name."""
    base = None if stack_arg(insn) is None else PARAMS_REG
    for reg in (insn.dst, insn.src):
        if reg > MAX_REG and reg != base:
            raise Reject(Reason.INVALID_REG, reg=reg)


def is_atomic(insn: Insn) -> bool:
    """Say whether *insn* is an atomic of any kind."""
    return insn.opcode & 7 == InsnClass.STX and insn.opcode & _MODE_MASK == _ATOMIC


def check_fields(insn: Insn) -> None:
    """Refuse nonzero reserved fields of *insn*, whose opcode is known."""
    match InsnClass(insn.opcode & 7):
        case InsnClass.ALU | InsnClass.ALU64:
            _check_alu(insn)
        case InsnClass.LDX:
            if insn.imm:
                raise Reject(Reason.LDX_RESERVED)
        case InsnClass.STX:
            if is_atomic(insn):
                _check_atomic(insn)
            elif insn.opcode & _MODE_MASK != _MEM or insn.imm:
                raise Reject(Reason.STX_RESERVED)
        case InsnClass.ST:
            if insn.opcode & _MODE_MASK != _MEM or insn.src:
                raise Reject(Reason.ST_RESERVED)
        case InsnClass.JMP | InsnClass.JMP32:
            _check_jump(insn)
        case InsnClass.LD:
            row = lookup(insn)
            if row is not None and row.kind is Kind.LDIMM64 and insn.off:
                raise Reject(Reason.LDIMM64_RESERVED)


def _check_alu(insn: Insn) -> None:
    op = insn.opcode & _OP_MASK
    is_reg = bool(insn.opcode & _X)
    is_64 = insn.opcode & 7 == InsnClass.ALU64
    if op == AluOp.NEG.code:
        if is_reg or insn.src or insn.off or insn.imm:
            raise Reject(Reason.NEG_RESERVED)
    elif op == _END:
        if insn.src or insn.off or insn.imm not in (16, 32, 64) or (is_64 and is_reg):
            raise Reject(Reason.END_RESERVED)
    elif op == AluOp.MOV.code:
        if not is_reg:
            if insn.src or insn.off:
                raise Reject(Reason.MOV_RESERVED)
        elif is_64 and insn.off == _CAST:
            if insn.imm not in _CASTS:
                raise Reject(Reason.CAST_SPACES)
        elif insn.imm or insn.off not in (_MOVSX64 if is_64 else _MOVSX32):
            raise Reject(Reason.MOV_RESERVED)
    elif (
        (insn.imm if is_reg else insn.src)
        or insn.off not in (0, 1)
        or (insn.off and op not in _SIGNED)
    ):
        raise Reject(Reason.ALU_RESERVED)


def _check_atomic(insn: Insn) -> None:
    if insn.imm in _ACQUIRE_RELEASE:
        return
    if lookup(insn._replace(opcode=insn.opcode & ~_SIZE_MASK)) is None:
        raise Reject(Reason.ATOMIC_OPCODE, imm=insn.imm & 0xFFFFFFFF)
    if insn.opcode & _SIZE_MASK not in _WORD_SIZES:
        raise Reject(Reason.ATOMIC_SIZE)


def _check_jump(insn: Insn) -> None:
    op = insn.opcode & _OP_MASK
    is_reg = bool(insn.opcode & _X)
    is_32 = insn.opcode & 7 == InsnClass.JMP32
    if op == _CALL:
        if (
            insn.src not in (0, 1, _KFUNC)
            or (insn.off and insn.src != _KFUNC)
            or insn.dst
            or is_reg
            or is_32
        ):
            raise Reject(Reason.CALL_RESERVED)
    elif op == _JA:
        if is_reg or insn.src or insn.dst or (insn.off if is_32 else insn.imm):
            raise Reject(Reason.JA_RESERVED)
    elif op == _EXIT:
        if is_reg or insn.imm or insn.src or insn.dst or is_32:
            raise Reject(Reason.EXIT_RESERVED)
    elif op == _JCOND:
        if insn.src or insn.dst or insn.imm:
            raise Reject(Reason.MAY_GOTO_FIELDS, imm=insn.imm)
    elif insn.imm if is_reg else insn.src:
        raise Reject(Reason.JMP_RESERVED)
