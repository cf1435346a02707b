"""What one verification works on: the program's facts, the walk's state, findings per insn.

`Env` is handed to every step of the walk. Values that never change while walking are plain
attributes set once; the findings (`access`, `calls`, ...) become the xlated program.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bpfvm.context import CtxAccess, ProgType
from bpfvm.disasm import Names, insn_text
from bpfvm.insn import Insn
from bpfvm.isa import CallKind, InsnDef, stack_arg
from bpfvm.kernel_btf import KernelTypes
from bpfvm.maps.base import MapTypes
from bpfvm.memory import RegionKind
from bpfvm.privileges import PRIVILEGED, Privileges
from bpfvm.program import Linkage, MapFacts, Program, Subprog
from bpfvm.proto import FuncProto, Registry
from bpfvm.record import FieldKind
from bpfvm.rules import KernelRules
from verifier.cfg import Cfg
from verifier.domain import domain_of
from verifier.fastcall import Fastcalls
from verifier.liveness import StackLiveness
from verifier.log import Log, RegPrinter, Snapshot
from verifier.prototype import GlobalArg
from verifier.reasons import Reason, Reject
from verifier.state import (
    FP_REG,
    NOT_INIT_REG,
    UNKNOWN_REG,
    FuncState,
    LinkedReg,
    RegType,
    StackAccess,
    VerifierState,
)

__all__ = ["PATH_END", "Env", "Pending", "Step", "arg_name"]

#: kernel: BPF_COMPLEXITY_LIMIT_JMP_SEQ
MAX_PENDING = 8192
_CALL = 0x85
#: What a step returns in place of the next slot when its path is done.
PATH_END = -1

_LOCK_FIELDS = frozenset({FieldKind.SPIN_LOCK, FieldKind.RES_SPIN_LOCK})

Step = Callable[["Env", FuncState], int]


@dataclass(slots=True)
class Pending:
    """A branch still to be walked, and how long the log was when it forked."""

    state: VerifierState
    target: int
    origin: int
    log_length: int


class CallFacts:
    """What is known of one helper or kfunc call over all paths."""

    __slots__ = ("context", "proto")

    def __init__(self, proto: FuncProto) -> None:
        self.proto = proto
        self.context = ""


class Env:
    """One verification."""

    def __init__(
        self,
        program: Program,
        facts: Sequence[MapFacts],
        registry: Registry,
        map_types: MapTypes,
        prog_type: ProgType,
        rules: KernelRules,
        log_level: int,
        mem_size: int | None = None,
        privileges: Privileges = PRIVILEGED,
        kernel_types: KernelTypes | None = None,
    ) -> None:
        self.kernel_types = kernel_types or KernelTypes(None)
        self.program, self.registry = program, registry
        #: The program's maps, then what the elements of maps of maps are like.
        self.facts = (*facts, *(MapFacts(f.defn.inner) for f in facts if f.defn.inner))
        outer = (index for index, f in enumerate(facts) if f.defn.inner)
        #: Index of what the elements of a map of maps are like.
        self.inner_maps = {index: len(facts) + n for n, index in enumerate(outer)}
        self.map_types, self.prog_type, self.rules = map_types, prog_type, rules
        self.domain = domain_of(rules)
        self.insns: Sequence[Insn] = program.insns
        #: Maps whose values hold a lock: their pointers are told apart by id.
        self.locked_maps = frozenset(
            index
            for index, fact in enumerate(self.facts)
            if any(f.kind in _LOCK_FIELDS for f in fact.defn.record or ())
        )
        self.mem_size = mem_size
        self.privs = privileges
        #: What becomes of a pointer that ends (kernel: mark_reg_invalid).
        self.ended_reg = UNKNOWN_REG if privileges.allow_ptr_leaks else NOT_INIT_REG
        self.printer = RegPrinter(
            self.facts,
            offsets_apart=not rules.pointer_off_in_range,
            all_precise=not privileges.bpf_capable,
        )
        self.log = Log(log_level, self.printer, self.insn_text)
        #: Whether any insn passes or takes an argument on the stack.
        self.uses_stack_args = any(stack_arg(insn) is not None for insn in program.insns)
        #: What BTF tells of the subprogs, by first slot.
        self.subprogs: dict[int, Subprog] = {s.start: s for s in program.subprogs}
        #: Arguments of global subprogs, by number, once they were asked for.
        self.signatures: dict[int, tuple[GlobalArg, ...]] = {}
        #: Global subprogs that were called, by number: from contexts that can sleep, or can't.
        self.global_calls: dict[int, set[bool]] = {}
        #: Numbers of subprogs that are called back.
        self.called_back: set[int] = set()
        #: Those of them that run later, not under the program.
        self.run_apart: set[int] = set()
        #: Per bpf_loop call the one subprog it calls back, None where a plain loop can't stand
        #: for it.
        self.inline_loops: dict[int, int | None] = {}
        self.log.refs = lambda: self.cur.refs
        self._names = _names(program, registry)
        self._texts: dict[int, str] = {}
        self.cfg = Cfg([0], [])
        self.fastcalls: Fastcalls
        self.stack_live: StackLiveness
        #: Per slot, the registers (without r10) that may be read from there on.
        self.live_regs: list[tuple[int, ...]] = []
        self.cur: VerifierState
        self.insn_idx = 0
        self.prev_insn = -1
        self.pending: list[Pending] = []
        self._ids = 0
        self._forget_findings()

    def _forget_findings(self) -> None:
        size = len(self.insns)
        #: Pointer type of each memory insn, for the same-insn rule.
        self.pointer_types: list[RegType | None] = [None] * size
        self.access: list[RegionKind | None] = [None] * size
        self.mixed_access: set[int] = set()
        self.ctx_access: dict[int, CtxAccess] = {}
        #: ALU64 insns seen with and without an arena operand.
        self.with_arena: set[int] = set()
        self.without_arena: set[int] = set()
        self.calls: dict[int, CallFacts] = {}
        #: Full states before each insn, as first seen.
        self.first_seen: list[Snapshot | None] = [None] * size
        self.seen = bytearray(size)
        self.max_ctx_offset = 0
        #: Maps whose struct in the kernel is read through their pointer.
        self.shown_maps: set[int] = set()
        #: What `verifier.speculation` found: insns with a barrier before them, stores with one
        #: behind them, how insns are masked, and the maps of tail calls.
        self.barriers: set[int] = set()
        self.store_barriers: set[int] = set()
        self.masks: dict[int, tuple[str, int]] = {}
        self.tail_call_maps: dict[int, set[int]] = {}
        #: States are only equal with equal scalars: other offsets may need other masks.
        self.exact_scalars = False
        #: Bytes of stack that each subprog uses, a multiple of 8.
        self.stack_depth: list[int] = []
        #: How `verifier.precision` goes back over each insn; made when first needed.
        self.trails: list[tuple[int, int, int, int]] = []

    def start(self, cfg: Cfg) -> None:
        """Take what the passes before the walk found."""
        self.cfg = cfg
        self.insns = cfg.insns
        self.stack_depth = [0] * len(cfg.starts)
        self.fastcalls = Fastcalls(self.program, self.registry, self.rules, cfg.starts)
        self.stack_live = StackLiveness(self.insns, cfg, self.log)
        numbers = {mask: tuple(r for r in range(FP_REG) if mask >> r & 1) for mask in set(cfg.live)}
        self.live_regs = [numbers[mask] for mask in cfg.live]

    @property
    def arena(self) -> int | None:
        """Index of the program's arena among its maps."""
        return self.cfg.arena

    def row(self, idx: int) -> InsnDef:
        """Return the row of slot *idx*, which has one."""
        row = self.cfg.rows[idx]
        if row is None:
            raise Reject(Reason.UNKNOWN_OPCODE, opcode=self.insns[idx].opcode)
        return row

    def is_global_call(self, idx: int) -> bool:
        """Say whether slot *idx* calls a global subprog, which is not walked into."""
        insn = self.insns[idx]
        if insn.opcode != _CALL or insn.src != CallKind.LOCAL.value:
            return False
        subprog = self.subprogs.get(idx + 1 + insn.imm)
        return subprog is not None and subprog.linkage is Linkage.GLOBAL

    def may_tail_call(self, idx: int) -> bool:
        """Say whether call *idx* may run another program in place of its frame."""
        insn = self.insns[idx]
        if insn.src != CallKind.HELPER.value:
            return False
        proto = self.registry.helpers.get(insn.imm)
        return proto is not None and proto.tail_call

    def insn_text(self, idx: int) -> str:
        """Return the log's text of slot *idx*."""
        text = self._texts.get(idx)
        if text is None:
            next_imm = self.insns[idx + 1].imm if idx + 1 < len(self.insns) else 0
            text = self._texts[idx] = insn_text(self.insns[idx], next_imm, self._names)
        return text

    def new_id(self) -> int:
        """Return an id no register has."""
        self._ids += 1
        return self._ids

    def push(self, target: int, *, enomem: bool = False) -> VerifierState:
        """Leave a copy of the current state to be walked from *target*; return it for refinement.

        *enomem*: 6.18 has this errno, not EFAULT, for one pending branch too many.

        Raises:
            Reject: too many branches are pending.
        """
        cur = self.cur
        other = cur.copy()
        if cur.parent is not None:
            cur.parent.branches += 1
        self.pending.append(Pending(other, target, self.insn_idx, len(self.log)))
        if len(self.pending) > MAX_PENDING:
            raise Reject(
                Reason.TOO_COMPLEX_E2BIG
                if self.rules.complexity_is_e2big
                else Reason.TOO_COMPLEX_ENOMEM
                if enomem
                else Reason.TOO_COMPLEX,
                count=len(self.pending),
            )
        return other

    def push_apart(self, state: VerifierState, target: int) -> None:
        """Leave *state*, which is no path of the current one, to be walked from *target*.

        Raises:
            Reject: too many branches are pending.
        """
        self.pending.append(Pending(state, target, self.insn_idx, len(self.log)))
        if len(self.pending) > MAX_PENDING:
            raise Reject(Reason.TOO_COMPLEX_ASYNC, count=len(self.pending))

    def note_stack(self, frameno: int, spi: int) -> None:
        """Record that the current insn spills to or fills from a slot."""
        self._note((frameno, spi), None)

    def note_linked(self, linked: Sequence[LinkedReg]) -> None:
        """Record which linked scalars the current branch refines together."""
        self._note(None, tuple(linked))

    def _note(self, access: StackAccess | None, linked: tuple[LinkedReg, ...] | None) -> None:
        cur = self.cur
        before = cur.history[-1]
        if not isinstance(before, int):
            cur.history[-1] = (before[0], access or before[1], linked or before[2])
            return
        cur.history[-1] = (before, access, linked or ())
        if before not in self.cfg.jump:  # else it is recorded already
            cur.history_len += 1

    def note_access(self, idx: int, kind: RegionKind) -> None:
        """Record what the memory operand of slot *idx* points to on this path."""
        before = self.access[idx]
        if before is None:
            if idx not in self.mixed_access:
                self.access[idx] = kind
        elif before is not kind:
            self.access[idx] = None
            self.mixed_access.add(idx)

    def note_depth(self, frame: FuncState, lowest: int) -> None:
        """Record that *frame*'s stack is used down to byte *lowest*, which is negative (kernel:
        grow_stack_state)."""
        slots = (7 - lowest) // 8
        if slots > frame.slots:
            frame.slots = slots
            if 8 * slots > self.stack_depth[frame.subprog]:
                self.stack_depth[frame.subprog] = 8 * slots
        if lowest < self.fastcalls.bottom[frame.subprog]:
            self.fastcalls.check(frame.subprog, self.insn_idx)


def arg_name(env: Env, regno: int, *, spaced: bool = False) -> str:
    """Return what complaints call the kfunc argument in *regno*: R1 and on, before 7.3 arg#0 and
    on, *spaced* as arg #0."""
    if env.rules.kfunc_args_by_register:
        return f"R{regno}"
    return f"arg #{regno - 1}" if spaced else f"arg#{regno - 1}"


def _names(program: Program, registry: Registry) -> Names:
    def helper(number: int) -> str | None:
        proto = registry.helpers.get(number)
        return None if proto is None else proto.name

    def kfunc(imm: int, _off: int) -> str | None:
        return program.kfuncs[imm] if 0 <= imm < len(program.kfuncs) else None

    return Names(helper=helper, kfunc=kfunc)
