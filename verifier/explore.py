"""The walk: every path, one insn after the other, skipping what is covered by a saved state.

Order and limits are the kernel's (do_check, is_state_visited): the jump target is left for later
and the fall-through goes on; a path that ends takes up the branch left last.
"""

from __future__ import annotations

from typing import assert_never

from bpfvm.bits import U32_MAX
from bpfvm.errors import InternalError
from bpfvm.insn import Insn
from bpfvm.isa import AtomicOp, CallKind, InsnDef, Kind, LdKind, stack_arg
from bpfvm.xlated import Stats
from verifier.branches import compile_ja, compile_jcond, compile_may_goto
from verifier.calls import compile_call
from verifier.cfg import jump_to
from verifier.env import PATH_END, Env, Step
from verifier.equal import Mode, covers, looks_same
from verifier.exceptions import check_callback
from verifier.exits import compile_exit
from verifier.fields import check_fields
from verifier.globals import entry_regs, signature
from verifier.iterators import active_depths_differ, is_active
from verifier.ldabs import compile_ld_abs
from verifier.log import ALL_REGS, take
from verifier.memory import compile_atomic, compile_load, compile_store
from verifier.precision import Wanted, mark_all_precise, mark_wanted
from verifier.reasons import Reason, Reject
from verifier.speculation import is_over, stops
from verifier.stackargs import compile_stack_arg
from verifier.state import (
    FP_REG,
    NOT_INIT_REG,
    UNKNOWN_REG,
    FuncState,
    LoopVisit,
    RegState,
    RegType,
    Role,
    StackSlot,
    VerifierState,
    const_reg,
    with_precise,
)
from verifier.subprogs import compile_local_call, fp_reg, func_reg, is_global
from verifier.transfer import compile_alu, compile_end, compile_mov, compile_neg, guard

__all__ = ["Walk"]

#: kernel: BPF_COMPLEXITY_LIMIT_INSNS, the history that forces a saved state, rounds of marks
MAX_PROCESSED = 1_000_000
MAX_HISTORY = 40
#: kernel: BPF_COMPLEXITY_LIMIT_STATES
MAX_STATES_UNPRIV = 64
MAX_ROUNDS = 64
#: kernel: BPF_F_TEST_STATE_FREQ
TEST_STATE_FREQ = 8

#: Call insns of the frames outside the loop, then the loop's number.
_SccKey = tuple[int, ...]


class Walk:
    """One walk over `env.program`."""

    def __init__(self, env: Env) -> None:
        self.env = env
        self.steps: list[Step | None] = [None] * len(env.insns)
        self._mispredicted_steps: dict[int, Step] = {}
        self._saved: dict[int, list[VerifierState]] = {}
        self._visits: dict[_SccKey, LoopVisit] = {}
        self.processed = 0
        self._jumps = 0
        self._saved_at = (0, 0)  # jumps and insns processed when a state was last saved
        self._after_branch = False
        self._marks = _marks(env)
        self._always_save = bool(env.program.flags & TEST_STATE_FREQ)
        self._max_states = self._total = self._kept = self._evicted = self._peak = 0
        self._backedges = 0
        self._linfo = _line_table(env)
        self._last_line: object = None

    def stats(self) -> Stats:
        """Return the counters so far."""
        return Stats(
            processed=self.processed,
            limit=MAX_PROCESSED,
            max_states_per_insn=self._max_states,
            total_states=self._total,
            peak_states=self._peak,
        )

    def run(self) -> None:
        """Walk all paths, then those of each global subprog that was called (kernel:
        do_check_main, do_check_subprogs).

        Raises:
            Reject: the program is refused.
        """
        env = self.env
        handler = env.cfg.exception_callback
        if handler is not None:  # presumed to be always called
            number = env.cfg.subprog_at(handler)
            env.global_calls.setdefault(number, set()).add(env.program.sleepable)
        self._run_one(0, sleepable=env.program.sleepable)
        self._run_globals()

    def _run_globals(self) -> None:
        env = self.env
        done: set[tuple[int, bool]] = set()
        more = True
        while more:
            more = False
            for number in range(1, len(env.cfg.starts)):
                contexts = env.global_calls.get(number, set())
                for can_sleep in sorted(contexts, reverse=True):
                    if (number, can_sleep) not in done and is_global(env, number):
                        done.add((number, can_sleep))
                        more = True
                        self._run_global(number, sleepable=can_sleep)

    def _run_global(self, number: int, *, sleepable: bool) -> None:
        env = self.env
        name = env.subprogs[env.cfg.starts[number]].name
        env.log.line(f"Validating {name}() func#{number}...")
        self._run_one(number, sleepable=sleepable)
        env.log.line(f"Func#{number} ('{name}') is safe for any args that match its prototype")

    def _entry(self, number: int) -> list[RegState]:
        """Return the registers that subprog *number*, the main program or a global one, gets."""
        env = self.env
        if number:
            if env.cfg.starts[number] == env.cfg.exception_callback:
                check_callback(env, number, signature(env, number))
            return [*entry_regs(env, number), fp_reg(0)]
        regs = [NOT_INIT_REG] * 11
        regs[1] = RegState(RegType.CTX)
        if env.mem_size is not None:
            size = env.mem_size
            regs[1] = RegState(RegType.MEM, arg=size) if size else const_reg(0)
            regs[2] = const_reg(size)
        regs[10] = fp_reg(0)
        return regs

    def _run_one(self, number: int, *, sleepable: bool) -> None:
        """Walk all paths of the main program or of one global subprog alone (kernel:
        do_check_common)."""
        env = self.env
        frame = FuncState(0, number, -1, self._entry(number), {})
        if number and env.cfg.starts[number] == env.cfg.exception_callback:
            frame.role = Role.EXCEPTION
        env.cur = VerifierState([frame], sleepable=sleepable)
        env.prev_insn = -1
        self._saved.clear()
        self._visits.clear()
        self._last_line = None
        self._after_branch = False
        env.stack_live.forget_frame()
        env.log.touch_all()
        self._walk(env.cfg.starts[number])
        if not env.log.verbose:
            env.log.truncate(0)

    def _walk(self, idx: int) -> None:
        """Walk from slot *idx* until no path is left."""
        env = self.env
        env.cur.first_insn = idx
        steps = self.steps
        marks, log = self._marks, env.log
        while True:
            self.processed += 1
            if self.processed > MAX_PROCESSED:
                raise Reject(Reason.TOO_LARGE, count=self.processed)
            cur = env.cur
            cur.insn_idx = env.insn_idx = idx
            cur.last_insn = env.prev_insn
            mark = marks[idx]
            if mark & _PRUNE and self._is_covered(cur, idx):
                if log.on:
                    self._log_safe(idx)
                next_idx = self._pop()
                if next_idx is None:
                    return
                idx = next_idx
                continue
            if mark & _JUMP_POINT:
                cur.history_len += 1
            frame = cur.frames[-1]
            if log.on:
                self._log_insn(idx, frame)
            step = self._mispredicted if cur.speculative else steps[idx]
            if step is None:
                env.seen[idx] = 1
                env.first_seen[idx] = take(frame)
                step = steps[idx] = self._noted(idx, compile_step(env, idx))
            cur.history.append(idx)
            env.prev_insn = idx
            if mark & _IS_JUMP:
                self._jumps += 1
            idx = step(env, frame)
            if idx == PATH_END:
                next_idx = self._pop()
                if next_idx is None:
                    return
                idx = next_idx

    def _mispredicted(self, env: Env, frame: FuncState) -> int:
        """Take one step of a mispredicted path, which does not count as a visit of the insn."""
        idx = env.insn_idx
        if idx in env.barriers:
            return PATH_END
        try:
            step = self.steps[idx] or self._mispredicted_steps.get(idx)
            if step is None:
                step = self._noted(idx, compile_step(env, idx))
                self._mispredicted_steps[idx] = step
            next_idx = step(env, frame)
        except Reject as reject:
            if not stops(env, idx, reject):
                raise
            return PATH_END
        return PATH_END if is_over(env, idx) else next_idx

    # -- paths ---------------------------------------------------------------------------------

    def _pop(self) -> int | None:
        """End the current path; take up the branch left last and return its slot."""
        env = self.env
        self._finish(env.cur)
        env.stack_live.update(env.cur)
        if not env.pending:
            return None
        pending = env.pending.pop()
        env.cur = pending.state
        env.prev_insn = pending.origin
        if not env.log.verbose:
            env.log.truncate(pending.log_length)
        env.log.touch_all()
        self._after_branch = True
        return pending.target

    def _finish(self, path: VerifierState) -> None:
        state = path.parent
        while state is not None:
            state.branches -= 1
            if state.branches:
                break
            self._leave_scc(state)
            self._forget(state)
            state = state.parent

    # -- saved states --------------------------------------------------------------------------

    def _is_covered(self, cur: VerifierState, idx: int) -> bool:
        """Say whether a saved state covers *cur*; else maybe save it (kernel: is_state_visited)."""
        env = self.env
        force = self._always_save or idx in env.cfg.force or cur.history_len > MAX_HISTORY
        since_jumps = self._jumps - self._saved_at[0]
        since_insns = self.processed - self._saved_at[1]
        add = force or (since_jumps >= 2 and since_insns >= 8)
        # As the kernel hashes: states of other insns and calls may be met, and are counted.
        key = ((idx ^ cur.frames[-1].callsite) & U32_MAX) % len(env.insns)
        states = self._saved.get(key)
        if states:
            found = len(states)
            is_force, is_item = idx in env.cfg.force, idx in env.cfg.items
            calls_back = idx in env.cfg.callbacks
            for old in states:
                if not old.branches and not old.cleaned and old.insn_idx == idx:
                    self._clean(old, cur)
            for old in reversed(states):  # newest first; the current one may be removed
                if old.insn_idx != idx:
                    continue
                if old.branches:
                    if (calls_back or (is_item and is_active(cur))) and covers(
                        env, old, cur, Mode.RANGES
                    ):
                        is_loop = is_item or env.rules.callbacks_loop
                        self._hit(old, cur, idx, is_loop=is_loop)
                        return True
                    is_may_goto = env.row(idx).kind is Kind.MAY_GOTO
                    if (
                        is_may_goto
                        and old.may_goto_depth != cur.may_goto_depth
                        and covers(env, old, cur, Mode.RANGES)
                    ):
                        self._hit(old, cur, idx, is_loop=True)
                        return True
                    if (
                        not is_item
                        and not calls_back
                        and not _is_other_entry(old, cur)
                        and looks_same(old, cur)
                        and old.may_goto_depth == cur.may_goto_depth
                        and old.unroll_depth == cur.unroll_depth
                        and not active_depths_differ(old, cur)
                        and covers(env, old, cur, Mode.EXACT)
                    ):
                        self._refuse_loop(old, cur, idx)
                    if not force and since_jumps < 20 and since_insns < 100:
                        add = False
                else:
                    is_loop = old.is_incomplete
                    mode = Mode.RANGES if is_loop else Mode.ANY_IMPRECISE
                    if covers(env, old, cur, mode):
                        self._hit(old, cur, idx, is_loop=is_loop)
                        return True
                if add:
                    old.miss_cnt += 1
                n = 64 if is_force and old.branches else 3
                if old.miss_cnt > old.hit_cnt * n + n:
                    self._evict(states, old)
            # The kernel counts only where none of them covered.
            self._max_states = max(self._max_states, found)
            if found > MAX_STATES_UNPRIV and not env.privs.bpf_capable:
                return False
        if add:
            self._save(cur, idx, key)
        return False

    def _evict(self, states: list[VerifierState], old: VerifierState) -> None:
        """Drop *old*, which is compared often and never covers anything, from its list."""
        states.remove(old)
        old.evicted = True
        self._kept -= 1
        self._evicted += 1
        self._forget(old)

    def _forget(self, state: VerifierState) -> None:
        """No longer count a state that was dropped, when nothing needs it; one whose marks are
        incomplete just now is counted ever after (kernel: maybe_free_verifier_state)."""
        if state.evicted and not state.branches and not state.is_incomplete:
            self._evicted -= 1

    def _clean(self, old: VerifierState, cur: VerifierState) -> None:
        """Forget what is dead in *old*, all of whose paths are walked (kernel:
        clean_live_states)."""
        if old.is_incomplete or old.callsites != cur.callsites:
            return
        old.cleaned = True
        env = self.env
        for frame, slots in zip(old.frames, env.stack_live.live(old), strict=True):
            live = env.cfg.live[old.frame_insn(frame.frameno)]
            regs = frame.regs
            for regno in range(FP_REG):
                if not live >> regno & 1:
                    regs[regno] = NOT_INIT_REG
            if frame.stack:
                frame.stack = {i: slot for i, slot in frame.stack.items() if slots >> i & 1}

    def _hit(self, old: VerifierState, cur: VerifierState, idx: int, *, is_loop: bool) -> None:
        old.hit_cnt += 1
        if idx in self.env.cfg.jump:
            cur.history_len += 1
        self._propagate(old, cur)
        if is_loop:
            visit = old.visit
            if visit is None or visit.entry is None:
                raise InternalError(f"a loop was closed at {idx} that was never entered")
            self._log_scc("backedge", visit)
            visit.backedges.append((cur.copy(), old))
            self._backedges += 1
            self._note_peak()

    def _propagate(self, old: VerifierState, cur: VerifierState) -> bool:
        """What *old* relied on, *cur*'s ancestors now rely on too."""
        wanted = Wanted(len(old.frames))
        if any(reg.precise for frame in old.frames for reg in frame.stack_args):
            return mark_all_precise(cur)
        for frame in reversed(old.frames):
            frameno = frame.frameno
            for regno, reg in enumerate(frame.regs):
                if reg.precise and reg.type is RegType.SCALAR:
                    wanted.regs[frameno] |= 1 << regno
            for spi, slot in frame.stack.items():
                spilled = slot.spilled
                if spilled is not None and spilled.precise and spilled.type is RegType.SCALAR:
                    wanted.slots[frameno] |= 1 << spi
            if self.env.log.verbose and (names := wanted.names(frameno)):
                self.env.log.line(f"frame {frameno}: propagating {names}")
        return bool(wanted) and mark_wanted(self.env, cur, wanted, skip_first=False)

    def _save(self, cur: VerifierState, idx: int, key: int) -> None:
        for frame in cur.frames:
            _forget_marks(frame)
        saved = cur.copy()
        saved.branches = 1
        saved.insn_idx = idx
        self._enter_scc(saved)
        cur.parent = saved
        cur.first_insn = idx
        cur.history, cur.history_len = [], 0
        self._saved.setdefault(key, []).append(saved)
        self._saved_at = (self._jumps, self.processed)
        self._total += 1
        self._kept += 1
        self._note_peak()

    def _note_peak(self) -> None:
        self._peak = max(self._peak, self._kept + self._evicted + self._backedges)

    def _refuse_loop(self, old: VerifierState, cur: VerifierState, idx: int) -> None:
        printer = self.env.printer
        self._log_source(idx)
        raise Reject(
            Reason.INFINITE_LOOP,
            insn=idx,
            after=(
                "cur state:" + printer.snapshot(take(cur.frames[-1], refs=cur.refs)),
                "old state:" + printer.snapshot(take(old.frames[-1], refs=old.refs)),
            ),
        )

    # -- loops ---------------------------------------------------------------------------------

    def _enter_scc(self, state: VerifierState) -> None:
        """Find which visit of which loop saved *state* is in (kernel: compute_scc_callchain,
        maybe_enter_scc)."""
        scc = self.env.cfg.scc
        key: tuple[int, ...] = ()
        for frameno in range(len(state.frames)):
            at = state.frame_insn(frameno)
            if scc[at]:
                break
            key += (at,)
        else:
            return
        key += (scc[at],)
        visit = self._visits.get(key)
        if visit is None:
            visit = self._visits[key] = LoopVisit(f"({','.join(map(str, key))})")
        state.visit = visit
        if visit.entry is None:
            visit.entry = state
            self._log_scc("enter", visit)

    def _log_scc(self, what: str, visit: LoopVisit) -> None:
        if self.env.log.verbose:
            self.env.log.line(f"SCC {what} {visit.text}")

    def _leave_scc(self, state: VerifierState) -> None:
        """When a loop is walked to the end, complete the marks of the paths that came round."""
        visit = state.visit
        if visit is None or visit.entry is not state:
            return
        self._log_scc("exit", visit)
        visit.entry = None
        self._backedges -= len(visit.backedges)
        for _ in range(MAX_ROUNDS):
            if not sum(self._propagate(old, cur) for cur, old in visit.backedges):
                break
        else:
            for cur, _ in visit.backedges:
                mark_all_precise(cur)
        visit.backedges = []

    # -- steps ---------------------------------------------------------------------------------

    def _noted(self, idx: int, step: Step) -> Step:
        """Return *step* with what stack liveness and the log have to know around it."""
        row = self.env.cfg.rows[idx]
        live = self.env.stack_live

        def storing(env: Env, frame: FuncState) -> int:
            next_idx = step(env, frame)
            live.commit(env.cur, idx)
            return next_idx

        def maybe_leaving(env: Env, frame: FuncState) -> int:
            depth = len(env.cur.frames)
            next_idx = step(env, frame)
            if len(env.cur.frames) == depth:
                live.commit(env.cur, idx)
            else:
                env.log.regs = env.log.slots = 0
                self._after_branch = True
            return next_idx

        def calling(env: Env, frame: FuncState) -> int:
            next_idx = step(env, frame)
            live.forget_frame()
            return next_idx

        def leaving(env: Env, frame: FuncState) -> int:
            if len(env.cur.frames) == 1:
                return step(env, frame)
            live.update(env.cur)
            next_idx = step(env, frame)
            env.log.regs = env.log.slots = 0
            self._after_branch = True
            return next_idx

        if row is None:
            return step
        match row.kind:
            case Kind.ST | Kind.STX | Kind.STORE_REL | Kind.ATOMIC:
                return storing
            case Kind.CALL:
                if row.op is CallKind.LOCAL:
                    return calling
                return maybe_leaving if self.env.may_tail_call(idx) else storing
            case Kind.LD_ABS | Kind.LD_IND:
                return maybe_leaving
            case Kind.EXIT:
                return leaving
            case _:
                return step

    # -- log -----------------------------------------------------------------------------------

    def _log_safe(self, idx: int) -> None:
        if self._after_branch:
            self.env.log.line(f"\n{self._arrival(idx)}: safe")
        else:
            self.env.log.line(f"{idx}: safe")

    def _arrival(self, idx: int) -> str:
        how = " (speculative execution)" if self.env.cur.speculative else ""
        return f"from {self.env.prev_insn} to {idx}{how}"

    def _log_source(self, idx: int) -> None:
        """Show the source line of slot *idx* where it is another one than before."""
        line = self._linfo[idx] if self._linfo else None
        if line is not None and line != self._last_line:
            self._last_line = line
            self.env.log.line(f"; {line}")

    def _log_insn(self, idx: int, frame: FuncState) -> None:
        log = self.env.log
        if log.verbose and self._after_branch:
            log.full_state(f"\n{self._arrival(idx)}:", frame)
            self._after_branch = False
        log.state(idx, frame)
        self._log_source(idx)
        log.insn(idx, _touched(self.env, idx) & ALL_REGS)


def _is_other_entry(old: VerifierState, cur: VerifierState) -> bool:
    """Say whether an async callback was entered again: the same state is no endless loop then."""
    frame = old.frames[-1]
    return frame.role is Role.ASYNC and frame.async_entries != cur.frames[-1].async_entries


def _forget_marks(frame: FuncState) -> None:
    for regno, reg in enumerate(frame.regs):
        if reg.precise:
            frame.regs[regno] = with_precise(reg, False)
    if frame.stack_args:
        frame.stack_args = tuple(with_precise(reg, False) for reg in frame.stack_args)
    for spi, slot in frame.stack.items():
        if slot.spilled is not None and slot.spilled.precise:
            frame.stack[spi] = StackSlot(slot.types, with_precise(slot.spilled, False))


_JUMPS = frozenset({Kind.JA, Kind.JCOND, Kind.MAY_GOTO, Kind.CALL, Kind.CALLX, Kind.EXIT})
#: What the walk has to know of a slot, as bits: equal states are looked for; it is reached out of
#: line; it is a jump.
_PRUNE, _JUMP_POINT, _IS_JUMP = 1, 2, 4


def _marks(env: Env) -> bytearray:
    cfg = env.cfg
    marks = bytearray(len(env.insns) + 1)
    for idx in cfg.prune:
        marks[idx] |= _PRUNE
    for idx in cfg.jump:
        marks[idx] |= _JUMP_POINT
    for idx, row in enumerate(cfg.rows):
        if row is not None and row.kind in _JUMPS:
            marks[idx] |= _IS_JUMP
    return marks


def compile_step(env: Env, idx: int) -> Step:
    """Return the step of slot *idx*, now that a path has reached it.

    Raises:
        Reject: its fields are refused.
    """
    insn = env.insns[idx]
    row = env.cfg.rows[idx]
    if row is None or row.kind is not Kind.JCOND:
        check_fields(insn)
    return _compile(env, idx, insn, env.row(idx))


def _compile(env: Env, idx: int, insn: Insn, row: InsnDef) -> Step:
    match row.kind:
        case Kind.ALU:
            return compile_alu(env, idx, insn, row)
        case Kind.NEG:
            return compile_neg(env, idx, insn, row)
        case Kind.END:
            return compile_end(env, idx, insn, row)
        case Kind.MOV | Kind.MOVSX | Kind.CAST_KERN | Kind.CAST_USER:
            return compile_mov(env, idx, insn, row)
        case Kind.LDIMM64:
            return _compile_ldimm64(env, idx, insn, row)
        case Kind.LDX | Kind.ST | Kind.STX if env.rules.stack_args and stack_arg(insn) is not None:
            return compile_stack_arg(idx, insn, row)
        case Kind.LDX | Kind.LOAD_ACQ:
            return compile_load(env, idx, insn, row)
        case Kind.ST | Kind.STX | Kind.STORE_REL:
            return compile_store(env, idx, insn, row)
        case Kind.ATOMIC:
            return compile_atomic(env, idx, insn, row)
        case Kind.JA:
            return compile_ja(env, idx, jump_to(idx, insn, row))
        case Kind.JCOND:
            return compile_jcond(env, idx, insn, row, jump_to(idx, insn, row))
        case Kind.MAY_GOTO:
            return compile_may_goto(env, idx, jump_to(idx, insn, row))
        case Kind.CALL:
            if row.op is CallKind.LOCAL:
                return compile_local_call(env, idx, jump_to(idx, insn, row))
            return compile_call(env, idx, insn, row)
        case Kind.EXIT:
            return compile_exit(env, idx)
        case Kind.LD_ABS | Kind.LD_IND:
            return compile_ld_abs(env, idx, insn, row)
        case Kind.CALLX:
            raise InternalError("callx passed the opcode check")
        case _:
            assert_never(row.kind)


def _compile_ldimm64(env: Env, idx: int, insn: Insn, row: InsnDef) -> Step:
    second = env.insns[idx + 1].imm
    match row.op:
        case LdKind.IMM64:
            value = const_reg(insn.imm & 0xFFFFFFFF | second << 32)
        case LdKind.MAP_IDX:
            value = RegState(RegType.MAP_PTR, arg=insn.imm)
        case LdKind.MAP_IDX_VALUE if insn.imm == env.cfg.arena:
            value = UNKNOWN_REG
        case LdKind.MAP_IDX_VALUE:
            value = RegState(RegType.MAP_VALUE, off=second, arg=insn.imm)
        case LdKind.FUNC:
            value = func_reg(env, idx + 1 + insn.imm)
        case _:
            raise InternalError(f"{row.mnemonic} passed the checks before the walk")
    dst = insn.dst

    def step(_env: Env, frame: FuncState) -> int:
        frame.regs[dst] = value
        return idx + 2

    return guard((), dst) or step


def _touched(env: Env, idx: int) -> int:
    """Return the bits of the registers that the log shows after slot *idx*."""
    insn, row = env.insns[idx], env.cfg.rows[idx]
    dst, src = 1 << insn.dst, 1 << insn.src
    if row is None:
        return 0
    match row.kind:
        case Kind.ALU | Kind.MOV | Kind.MOVSX | Kind.JCOND:
            return dst | src if row.is_reg else dst
        case Kind.CAST_KERN | Kind.CAST_USER | Kind.LDX | Kind.LOAD_ACQ:
            return dst | src
        case Kind.STX | Kind.STORE_REL:
            return dst | src
        case Kind.ATOMIC:
            return dst | src | (row.op is AtomicOp.CMPXCHG)
        case Kind.NEG | Kind.END | Kind.LDIMM64 | Kind.ST:
            return dst
        case Kind.CALL:
            return 0 if row.op is CallKind.LOCAL else 0b111111
        case Kind.EXIT:
            return 1
        case Kind.JA | Kind.MAY_GOTO:
            return 0
        case Kind.CALLX | Kind.LD_ABS | Kind.LD_IND:
            return 0b111111
        case _:
            assert_never(row.kind)


def _line_table(env: Env) -> list[str | None]:
    """Return each slot's source line as the log shows it; empty without line info."""
    infos = env.program.line_info
    if not infos or not env.log.on:
        return []
    table: list[str | None] = [None] * len(env.insns)
    starts = [*(i.insn_off for i in infos[1:]), len(env.insns)]
    for info, end in zip(infos, starts, strict=True):
        text = f"{info.source.lstrip()} @ {info.file.rsplit('/', 1)[-1]}:{info.line}"
        for idx in range(max(0, info.insn_off), min(end, len(table))):
            table[idx] = text
    return table
