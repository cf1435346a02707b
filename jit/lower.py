"""Insn -> LLVM IR: one function per subprog, one LLVM block per basic block of BPF.

Registers are allocas that SROA turns into SSA values. `@sub_N` is the subprog that starts in
slot N; it gets the run state, the number of its frame, and r0..r5 (the sandbox lets it see r0). A
function holds every slot that can be reached from its entry, wherever it lies: the sandbox lets
subprogs share code.

The text holds no addresses. Where a run must end early the function stores why and returns;
every caller looks at STOP after a call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from bpfvm import isa
from bpfvm.bits import u32
from bpfvm.errors import InternalError, LoadError
from bpfvm.flow import Block, basic_blocks, jump_target
from bpfvm.insn import Insn
from bpfvm.isa import AluOp, AtomicOp, CallKind, EndOp, InsnDef, JmpOp, Kind, LdKind
from bpfvm.memory import RegionKind
from bpfvm.runtime import FRAME_SIZE, MAX_FRAMES
from bpfvm.xlated import Xlated
from jit import alu
from jit.mem import ASK, Access, Guard, PresenceCheck, Proven
from jit.sandbox import Checked, sandbox_functions
from jit.state import (
    MAY_GOTO_SLICE,
    NO_PACKET,
    PENDING,
    CallSlot,
    CallxSlot,
    Lowered,
    MayGotoSite,
    PacketSite,
    RefillSite,
    Trap,
    Word,
)
from jit.text import FunctionText, Tables

__all__ = ["lower"]

#: The most slots all functions together may hold: subprogs that share code are copied.
MAX_LOWERED = 4_000_000
_FP = isa.MAX_REG

_PRELUDE = f"""\
declare i16 @llvm.bswap.i16(i16)
declare i32 @llvm.bswap.i32(i32)
declare i64 @llvm.bswap.i64(i64)
declare void @llvm.memset.inline.p0.i64(ptr, i8, i64, i1)

define internal void @call_out(ptr %s, i64 %frame, i64 %site) noinline nounwind {{
  %frame.at = getelementptr i64, ptr %s, i64 {int(Word.FRAME)}
  store i64 %frame, ptr %frame.at
  %stop = getelementptr i64, ptr %s, i64 {int(Word.STOP)}
  store volatile i64 {PENDING}, ptr %stop
  %dispatch.at = getelementptr i64, ptr %s, i64 {int(Word.DISPATCH)}
  %dispatch = load ptr, ptr %dispatch.at
  %result = call i64 %dispatch(i64 %site)
  %result.at = getelementptr i64, ptr %s, i64 {int(Word.RESULT)}
  store i64 %result, ptr %result.at
  ret void
}}
"""
_ENTRY = """
define i64 @bpf_main(ptr %s, i64 %r1, i64 %r2) nounwind {{
{none}  %r0 = call i64 @sub_0(ptr %s, i64 0, i64 0, i64 %r1, i64 %r2, i64 0, i64 0, i64 0{more})
  ret i64 %r0
}}
"""
#: What Python enters a subprog by.
_CALLBACK = """
define i64 @bpf_callback_{slot}(ptr %s, i64 %frame, i64 %r1, i64 %r2, i64 %r3, i64 %r4, i64 %r5)
    nounwind {{
{none}  %r0 = call i64 @sub_{slot}(ptr %s, i64 %frame,
      i64 0, i64 %r1, i64 %r2, i64 %r3, i64 %r4, i64 %r5{more})
  ret i64 %r0
}}
"""
#: Room for arguments that lie on the stack, and how it is handed on.
_ARGS_SIZE = 8 * isa.MAX_STACK_ARGS
_ARGS = f"""\
  %args = alloca [{_ARGS_SIZE} x i8], align 8
  call void @llvm.memset.inline.p0.i64(ptr %args, i8 0, i64 {_ARGS_SIZE}, i1 false)
"""
_WEIGHTS = """
!0 = !{!"branch_weights", i32 1048576, i32 1}
!1 = !{!"branch_weights", i32 1, i32 1048576}
!2 = !{}
"""


def lower(xlated: Xlated, *, arena: bool, guard: Guard | None = None) -> Lowered:
    """Return *xlated* as LLVM IR. *arena*: the machine it will run on has one.

    Args:
        xlated: the program; an unverified one is structurally checked.
        arena: whether accesses may go to an arena.
        guard: how a verified program's arena accesses are made safe.

    Raises:
        LoadError: subprogs share so much code that it can't be copied for each.
    """
    tables = Tables()
    blocks = {block.start: block for block in basic_blocks(xlated.insns)}
    texts = [_PRELUDE, ASK] if arena else [_PRELUDE]
    if not xlated.verified:
        texts.append(sandbox_functions(arena=arena))
    waiting, known, total = [0], {0}, 0
    callbacks: set[int] = set()
    handler = xlated.program.exception_callback
    if handler is not None:
        callbacks.add(handler.start)
        known.add(handler.start)
        waiting.append(handler.start)
    while waiting:
        entry = waiting.pop()
        function = _Function(xlated, tables, blocks, entry, arena, guard or PresenceCheck())
        texts.append(function.lower())
        total += function.slots
        if total > MAX_LOWERED:
            raise LoadError(f"subprogs share too much code: more than {MAX_LOWERED} insns in all")
        waiting += function.callees - known
        known |= function.callees
        callbacks |= function.callbacks
    passing = {"none": "", "more": ""}
    if has_stack_args(xlated.insns):
        passing = {"none": _ARGS, "more": ", ptr %args"}
    texts += [_CALLBACK.format(slot=slot, **passing) for slot in sorted(callbacks)]
    texts += [_ENTRY.format(**passing), _WEIGHTS]
    return tables.finish("".join(texts), sorted(callbacks))


def has_stack_args(insns: Sequence[Insn]) -> bool:
    """Say whether any of *insns* passes or takes an argument on the stack."""
    return any(isa.stack_arg(insn) is not None for insn in insns)


class _Function:
    """The lowering of one subprog."""

    def __init__(
        self,
        xlated: Xlated,
        tables: Tables,
        blocks: dict[int, Block],
        entry: int,
        arena: bool,
        guard: Guard,
    ) -> None:
        self.xlated, self.tables, self.blocks = xlated, tables, blocks
        self.entry, self.arena, self.arena_guard = entry, arena, guard
        self.insns = xlated.insns
        #: Whether functions are given the arguments that lie on the stack.
        self.has_stack_args = has_stack_args(xlated.insns)
        self.fn = FunctionText(tables)
        self.callees: set[int] = set()
        self.callbacks: set[int] = set()
        self.slots = 0
        #: The value each register is known to have in the LLVM block being written.
        self.known: dict[int, str] = {}
        self.known_in = ""
        self.uses_may_goto = False
        self.reach = self._reachable()
        #: Pieces of the frame that are LLVM's to keep; None: the frame lies in the run's memory.
        self.own_stack = self._own_stack() if xlated.verified else None

    # -- shape ------------------------------------------------------------------------------

    def _row(self, slot: int) -> InsnDef:
        row = isa.lookup(self.insns[slot])
        if row is None:
            raise InternalError(f"insn {slot}: opcode {self.insns[slot].opcode:#x} has no row")
        return row

    def _seen(self, slot: int) -> bool:
        return not self.xlated.verified or self.xlated.aux[slot].seen

    def _successors(self, block: Block) -> list[int]:
        slot = block.start
        while True:
            if not self._seen(slot):
                return []
            row = self._row(slot)
            after = slot + (2 if row.kind is Kind.LDIMM64 else 1)
            if after >= block.end:
                break
            slot = after
        if row.kind is Kind.EXIT:
            return []
        target = jump_target(slot, self.insns[slot], row)
        if row.kind is Kind.JA and target is not None:
            return [target]
        if target is not None and row.kind is not Kind.CALL:
            return [target, after]
        return [after]

    def _reachable(self) -> list[Block]:
        waiting, found = [self.entry], {self.entry}
        while waiting:
            for slot in self._successors(self.blocks[waiting.pop()]):
                if slot not in found:
                    found.add(slot)
                    waiting.append(slot)
        return [self.blocks[slot] for slot in sorted(found)]

    def _slots_of(self, block: Block) -> list[int]:
        out = []
        slot = block.start
        while slot < block.end:
            out.append(slot)
            slot += 2 if self._row(slot).kind is Kind.LDIMM64 else 1
        return out

    def _own_stack(self) -> list[tuple[int, int]] | None:
        """Return the pieces [low, high) of the frame that are used, as offsets from r10, where no
        more is done with r10 than to access fixed offsets; else None."""
        used: list[tuple[int, int]] = []
        for block in self.reach:
            for slot in self._slots_of(block):
                insn, row = self.insns[slot], self._row(slot)
                loads = row.kind in (Kind.LDX, Kind.LOAD_ACQ)
                stores = row.kind in (Kind.ST, Kind.STX, Kind.ATOMIC, Kind.STORE_REL)
                if insn.src == _FP and "src" in row.form.fields and not loads:
                    return None
                if insn.dst == _FP and "dst" in row.form.fields and not stores:
                    return None
                if (insn.src if loads else insn.dst) == _FP and (loads or stores):
                    if not -FRAME_SIZE <= insn.off <= -row.size and self._seen(slot):
                        raise InternalError(f"insn {slot}: verified, but outside the stack")
                    used.append((insn.off & ~7, (insn.off + row.size + 7) & ~7))
        pieces: list[tuple[int, int]] = []
        for low, high in sorted(used):
            if pieces and low < pieces[-1][1]:
                pieces[-1] = (pieces[-1][0], max(high, pieces[-1][1]))
            else:
                pieces.append((low, high))
        return pieces

    # -- the function -----------------------------------------------------------------------

    def lower(self) -> str:
        """Return the function's text."""
        for block in self.reach:
            self._block(block)
        given = ", ptr %args.in" if self.has_stack_args else ""
        head = [
            f"\ndefine internal i64 @sub_{self.entry}(ptr %s, i64 %frame,"
            f" i64 %a0, i64 %a1, i64 %a2, i64 %a3, i64 %a4, i64 %a5{given}) nounwind {{",
            "entry:",
            *(f"  %r{i} = alloca i64" for i in range(_FP)),
            *(f"  store i64 {f'%a{i}' if i <= 5 else '0'}, ptr %r{i}" for i in range(_FP)),
        ]
        # The entry is written last: it loads just those words of the state that are used.
        setup = self._stack() + (_ARGS.splitlines() if self.has_stack_args else [])
        setup += self._loops() if self.uses_may_goto else []
        start = [f"  br label %b{self.entry}"]
        tail = ["stop:", "  ret i64 0", "}", ""]
        return "\n".join([*head, *self.fn.entry_lines(), *setup, *start, *self.fn.lines, *tail])

    def _stack(self) -> list[str]:
        zero = "  call void @llvm.memset.inline.p0.i64(ptr {}, i8 0, i64 {}, i1 false)"
        if self.own_stack is not None:
            return [
                line
                for low, high in self.own_stack
                for line in (
                    f"  %fp{low} = alloca [{high - low} x i8], align 8",
                    zero.format(f"%fp{low}", high - low),
                )
            ]
        return [
            f"  %fp.down = mul i64 %frame, {FRAME_SIZE}",
            f"  %fp = sub i64 {self.fn.constant(Word.STACK_TOP)}, %fp.down",
            f"  %fp.low = sub i64 %fp, {FRAME_SIZE}",
            "  %fp.frame = inttoptr i64 %fp.low to ptr",
            zero.format("%fp.frame", FRAME_SIZE),
        ]

    def _loops(self) -> list[str]:
        limit = self.fn.constant(Word.MAY_GOTO)
        return [
            "  %loops = alloca i64",
            "  %loops.rest = alloca i64",
            f"  %loops.few = icmp ult i64 {limit}, {MAY_GOTO_SLICE}",
            f"  %loops.first = select i1 %loops.few, i64 {limit}, i64 {MAY_GOTO_SLICE}",
            f"  %loops.later = sub i64 {limit}, %loops.first",
            "  store i64 %loops.first, ptr %loops",
            "  store i64 %loops.later, ptr %loops.rest",
        ]

    def _block(self, block: Block) -> None:
        self.fn.label(f"b{block.start}")
        if not self.xlated.verified:
            self._charge(block)
        for slot in self._slots_of(block):
            self.slots += 1
            if not self._seen(slot):
                self.fn.stop_at(Trap(slot, "runs, but the verifier never saw it", is_bug=True))
                return
            if self._insn(slot):
                return
        self.fn.goto(f"b{block.end}")

    def _charge(self, block: Block) -> None:
        fn = self.fn
        left = fn.value(f"sub i64 {fn.get(Word.BUDGET)}, {block.cost}")
        fn.put(Word.BUDGET, left)
        refill, go = fn.name("refill"), fn.name("charged")
        fn.branch(fn.value(f"icmp slt i64 {left}, 0"), refill, go, expect=False)
        fn.label(refill)
        fn.call_out(RefillSite(block.start, block.cost))
        fn.goto(go)
        fn.label(go)

    # -- registers --------------------------------------------------------------------------

    def _get(self, reg: int) -> str:
        if reg == _FP:
            return "%fp"
        known = self._known()
        if reg not in known:
            known[reg] = self.fn.value(f"load i64, ptr %r{reg}")
        return known[reg]

    def _known(self) -> dict[int, str]:
        if self.known_in != self.fn.block:
            self.known.clear()
            self.known_in = self.fn.block
        return self.known

    def _set(self, reg: int, value: str) -> None:
        self._known()[reg] = value
        self.fn.do(f"store i64 {value}, ptr %r{reg}")

    def _get_width(self, reg: int, width: int) -> str:
        value = self._get(reg)
        return value if width == 64 else self.fn.value(f"trunc i64 {value} to i{width}")

    def _set_width(self, reg: int, value: str, width: int) -> None:
        self._set(reg, value if width == 64 else self.fn.value(f"zext i{width} {value} to i64"))

    def _second(self, insn: Insn, row: InsnDef) -> str:
        return self._get_width(insn.src, row.width) if row.is_reg else str(insn.imm)

    # -- insns ------------------------------------------------------------------------------

    def _insn(self, slot: int) -> bool:
        """Write the insn in *slot*; say whether it ends the block."""
        insn, row = self.insns[slot], self._row(slot)
        self.fn.remark(f"insn {slot}: {row.mnemonic}")
        match row.kind:
            case Kind.ALU | Kind.NEG | Kind.END | Kind.MOV | Kind.MOVSX:
                self._arithmetic(insn, row)
            case Kind.CAST_KERN | Kind.CAST_USER:
                return self._cast(slot, insn, row)
            case Kind.LDIMM64:
                self._ldimm64(slot, insn, row)
            case Kind.LDX | Kind.ST | Kind.STX if (arg := isa.stack_arg(insn)) is not None:
                self._stack_arg(arg, insn, row)
            case Kind.LDX | Kind.LOAD_ACQ | Kind.ST | Kind.STX | Kind.STORE_REL | Kind.ATOMIC:
                self._memory(slot, insn, row)
            case Kind.JA | Kind.JCOND | Kind.MAY_GOTO:
                self._jump(slot, insn, row)
                return True
            case Kind.CALL:
                self._call(slot, insn, row)
            case Kind.CALLX:
                self.fn.put(Word.ADDR, self._get(insn.dst))
                self._call_out(CallxSlot(slot), 5)
            case Kind.EXIT:
                self.fn.do(f"ret i64 {self._get(0)}")
                return True
            case Kind.LD_ABS | Kind.LD_IND:
                self._load_packet(slot, insn, row)
            case _:
                assert_never(row.kind)
        return False

    def _load_packet(self, slot: int, insn: Insn, row: InsnDef) -> None:
        fn = self.fn
        offset = str(insn.imm)
        if row.kind is Kind.LD_IND:
            offset = fn.value(f"add i64 {self._get(insn.src)}, {insn.imm}")
        fn.put(Word.ARG, offset)
        fn.call_out(PacketSite(slot, row.size))
        value = fn.get(Word.RESULT)
        found, absent = fn.name("found"), fn.name("absent")
        fn.branch(fn.value(f"icmp ult i64 {value}, {NO_PACKET}"), found, absent, expect=True)
        fn.label(absent)
        fn.do("ret i64 0")
        fn.label(found)
        self._returned(fn.get(Word.RESULT))

    def _arithmetic(self, insn: Insn, row: InsnDef) -> None:
        fn, width = self.fn, row.width
        if isinstance(row.op, EndOp):
            self._set(insn.dst, alu.byte_order(fn, row.op, width, self._get(insn.dst)))
        elif row.kind is Kind.NEG:
            value = fn.value(f"sub i{width} 0, {self._get_width(insn.dst, width)}")
            self._set_width(insn.dst, value, width)
        elif row.kind is Kind.MOVSX:
            low = fn.value(f"trunc i64 {self._get(insn.src)} to i{row.sx}")
            self._set_width(insn.dst, fn.value(f"sext i{row.sx} {low} to i{width}"), width)
        elif row.kind is Kind.MOV and not row.is_reg:
            self._set(insn.dst, str(insn.imm if width == 64 else u32(insn.imm)))
        elif row.kind is Kind.MOV:
            self._set_width(insn.dst, self._second(insn, row), width)
        elif isinstance(row.op, AluOp):
            first = self._get_width(insn.dst, width)
            value = alu.alu(fn, row.op, width, first, self._second(insn, row))
            self._set_width(insn.dst, value, width)
        else:
            raise InternalError(f"{row.mnemonic} is no arithmetic")

    def _cast(self, slot: int, insn: Insn, row: InsnDef) -> bool:
        fn = self.fn
        if not self.arena:
            fn.stop_at(Trap(slot, "addr_space_cast without an arena"))
            return True
        low = fn.value(f"and i64 {self._get(insn.src)}, {(1 << 32) - 1}")
        if row.kind is Kind.CAST_USER:
            full = fn.value(f"or i64 {fn.constant(Word.CAST_HIGH)}, {low}")
            null = fn.value(f"icmp eq i64 {low}, 0")
            self._set(insn.dst, fn.value(f"select i1 {null}, i64 0, i64 {full}"))
        elif self.xlated.verified:
            self._set(insn.dst, low)
        else:
            self._set(insn.dst, fn.value(f"add i64 {fn.constant(Word.KERN)}, {low}"))
        return False

    def _ldimm64(self, slot: int, insn: Insn, row: InsnDef) -> None:
        fn = self.fn
        if row.op is LdKind.IMM64:
            self._set(insn.dst, str(self.insns[slot + 1].imm << 32 | u32(insn.imm)))
            return
        if row.op is LdKind.FUNC:
            target = slot + 1 + insn.imm
            self.callees.add(target)
            self.callbacks.add(target)
        pool = fn.pointer(fn.constant(Word.POOL))
        at = fn.value(f"getelementptr i64, ptr {pool}, i64 {self.tables.pool(slot)}")
        self._set(insn.dst, fn.value(f"load i64, ptr {at}, !invariant.load !2"))

    def _memory(self, slot: int, insn: Insn, row: InsnDef) -> None:
        loads = row.kind in (Kind.LDX, Kind.LOAD_ACQ)
        base = insn.src if loads else insn.dst
        own = self.own_stack is not None and base == _FP
        result: int | None = None
        if loads:
            result = insn.dst
        elif row.fetch:
            result = 0 if row.op is AtomicOp.CMPXCHG else insn.src
        access = Access(
            slot,
            row,
            insn.off,
            base=lambda: self._get(base),
            value=lambda: str(insn.imm) if row.kind is Kind.ST else self._get(insn.src),
            expected=lambda: self._get(0),
            result=None if result is None else lambda value: self._set(result, value),
            pointer=(lambda: self._own_slot(insn.off)) if own else None,
        )
        self._guard(slot, row).access(self.fn, access)

    def _stack_arg(self, arg: int, insn: Insn, row: InsnDef) -> None:
        fn = self.fn
        args = "%args.in" if row.kind is Kind.LDX else "%args"
        at = fn.value(f"getelementptr i64, ptr {args}, i64 {arg}")
        if row.kind is Kind.LDX:
            self._set(insn.dst, fn.value(f"load i64, ptr {at}"))
        else:
            value = self._get(insn.src) if row.is_reg else str(insn.imm)
            fn.do(f"store i64 {value}, ptr {at}")

    def _own_slot(self, off: int) -> str:
        low = next(low for low, high in self.own_stack or () if low <= off < high)
        return self.fn.value(f"getelementptr i8, ptr %fp{low}, i64 {off - low}")

    def _guard(self, slot: int, row: InsnDef) -> Guard:
        if row.arena:
            return self.arena_guard
        if not self.xlated.verified:
            return Checked(self.arena)
        private = (RegionKind.STACK, RegionKind.CTX, RegionKind.PACKET)
        return Proven(volatile=self.xlated.aux[slot].access not in private)

    def _jump(self, slot: int, insn: Insn, row: InsnDef) -> None:
        fn = self.fn
        target = jump_target(slot, insn, row)
        if row.kind is Kind.JA:
            fn.goto(f"b{target}")
        elif isinstance(row.op, JmpOp):
            first = self._get_width(insn.dst, row.width)
            holds = alu.condition(fn, row.op, row.width, first, self._second(insn, row))
            fn.branch(holds, f"b{target}", f"b{slot + 1}")
        else:
            self._may_goto(slot, target)

    def _may_goto(self, slot: int, target: int | None) -> None:
        fn = self.fn
        self.uses_may_goto = True
        again, ask = fn.name("again"), fn.name("ask")
        left = fn.value("load i64, ptr %loops")
        fn.branch(fn.value(f"icmp eq i64 {left}, 0"), ask, again, expect=False)
        fn.label(ask)
        fn.put(Word.ARG, fn.value("load i64, ptr %loops.rest"))
        fn.call_out(MayGotoSite(slot))
        slice_ = fn.get(Word.RESULT)
        rest = fn.value(f"sub i64 {fn.value('load i64, ptr %loops.rest')}, {slice_}")
        fn.do(f"store i64 {rest}, ptr %loops.rest")
        fn.do(f"store i64 {slice_}, ptr %loops")
        fn.branch(fn.value(f"icmp eq i64 {slice_}, 0"), f"b{target}", again)
        fn.label(again)
        left = fn.value("load i64, ptr %loops")
        fn.do(f"store i64 {fn.value(f'sub i64 {left}, 1')}, ptr %loops")
        fn.goto(f"b{slot + 1}")

    # -- calls ------------------------------------------------------------------------------

    def _call(self, slot: int, insn: Insn, row: InsnDef) -> None:
        if row.op is CallKind.LOCAL:
            self._call_local(slot, slot + 1 + insn.imm)
            return
        call = self.xlated.aux[slot].call
        self._call_out(CallSlot(slot), call.proto.arg_count if call else 5)
        if call is not None and call.proto.tail_call:
            self._leave_if_jumped()

    def _call_out(self, site: CallSlot | CallxSlot, args: int) -> None:
        for i in range(args):
            self.fn.do(f"store i64 {self._get(1 + i)}, ptr {self.fn.item(Word.ARG, str(i))}")
        self.fn.call_out(site)
        self._returned(self.fn.get(Word.RESULT))

    def _leave_if_jumped(self) -> None:
        fn = self.fn
        left, go = fn.name("left"), fn.name("go")
        fn.branch(fn.value(f"icmp eq i64 {fn.get(Word.LEFT)}, 0"), go, left, expect=True)
        fn.label(left)
        fn.put(Word.LEFT, "0")
        fn.do(f"ret i64 {fn.get(Word.RESULT)}")
        fn.label(go)

    def _call_local(self, slot: int, callee: int) -> None:
        fn = self.fn
        self.callees.add(callee)
        go, deep = fn.name("call"), fn.name("deep")
        fn.branch(fn.value(f"icmp ult i64 %frame, {MAX_FRAMES - 1}"), go, deep, expect=True)
        fn.label(deep)
        fn.stop_at(Trap(slot, f"call stack deeper than {MAX_FRAMES} frames"))
        fn.label(go)
        fn.do(f"store i64 {slot}, ptr {fn.item(Word.CALLER, '%frame')}")
        frame = fn.value("add i64 %frame, 1")
        first = "0" if self.xlated.verified else self._get(0)
        args = ", ".join(f"i64 {value}" for value in (first, *map(self._get, range(1, 6))))
        args += ", ptr %args" if self.has_stack_args else ""
        self._returned(fn.value(f"call i64 @sub_{callee}(ptr %s, i64 {frame}, {args})"))
        fn.check_stop()

    def _returned(self, result: str) -> None:
        self._set(0, result)
        for reg in range(1, 6):
            self._set(reg, "0")
