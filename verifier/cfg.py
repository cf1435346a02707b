"""What can be checked before the walk: subprogs, layout, opcodes and maps, reachability.

The passes run in the kernel's order, since the first complaint wins. The result tells the walk
where to look for equal states (prune points), and what is live where.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field

from bpfvm import flow, isa
from bpfvm.context import PROG_TYPES, ProgType, Sleepable
from bpfvm.insn import Insn
from bpfvm.isa import CallKind, Kind, LdKind
from bpfvm.maps.base import MapTraits, MapType, MapTypes
from bpfvm.privileges import Privileges
from bpfvm.program import MapDef, MapFacts, Program
from bpfvm.proto import Callback, IterStep, Registry
from bpfvm.record import FieldKind
from bpfvm.rules import KernelRules
from verifier.abnormal import check_abnormal_returns
from verifier.btfinfo import check_func_info, check_func_layout, check_line_info
from verifier.callgraph import callees_first
from verifier.caps import check_arena, check_back_edges, check_calls_allowed
from verifier.constfold import Knowns, find_constants, fold
from verifier.effects import Effects, effects_of
from verifier.fields import check_fields, check_regs
from verifier.graph import is_cond_jump, postorders, successors
from verifier.liveregs import live_registers
from verifier.reasons import Reason, Reject

__all__ = ["Cfg", "check_program"]

#: kernel: BPF_MAX_SUBPROGS, MAX_USED_MAPS, BPF_MAX_VAR_OFF
MAX_SUBPROGS = 256
MAX_MAPS = 64
MAX_VAR_OFF = 1 << 29

_CALL, _EXIT, _JA, _JA32, _GOTOX = 0x85, 0x95, 0x05, 0x06, 0x0D
_LDIMM64 = 0x18
_JUMP_CLASSES = (isa.InsnClass.JMP, isa.InsnClass.JMP32)


@dataclass(slots=True)
class Cfg:
    """What the passes before the walk found.

    Attributes:
        starts: first slots of the subprogs, ascending; [0] is the main program.
        rows: per slot, None for the second half of an ldimm64 and for fields without a meaning.
        insns: the program as it is walked: branches on constants are gotos (7.3).
        orders: per subprog its slots that are reached, in postorder.
        constants: per slot what registers hold before it, where that is looked for.
        callees_first: the subprogs' numbers, each after those that it calls (7.3).
        arena: index of the program's arena among its maps, or None.
        prune: slots where equal states are looked for; jump: slots reached out of line; force:
            slots where a state is always saved.
        items: slots of the calls that take an iterator's next item.
        scc: per slot the number of its loop (strongly connected component), 0 outside loops.
        live: per slot the bits of registers that may be read from there on; -1 where no insn is.
        effects: per subprog, what calling it may do.
        async_calls: slots of calls that say what is to be called later.
        exception_callback: first slot of the subprog that is run when the program throws.
        callbacks: slots of calls that call a subprog back while they run.
    """

    starts: list[int]
    rows: list[isa.InsnDef | None]
    insns: Sequence[Insn] = ()
    orders: list[list[int]] = field(default_factory=list)
    constants: list[Knowns | None] = field(default_factory=list)
    callees_first: list[int] = field(default_factory=list)
    arena: int | None = None
    prune: set[int] = field(default_factory=set)
    jump: set[int] = field(default_factory=set)
    force: set[int] = field(default_factory=set)
    items: set[int] = field(default_factory=set)
    scc: list[int] = field(default_factory=list)
    live: list[int] = field(default_factory=list)
    effects: tuple[Effects, ...] = ()
    callbacks: set[int] = field(default_factory=set)
    async_calls: set[int] = field(default_factory=set)
    exception_callback: int | None = None

    def subprog_at(self, start: int) -> int:
        """Return the number of the subprog that starts at slot *start*."""
        return self.starts.index(start)


def check_program(
    program: Program,
    facts: Sequence[MapFacts],
    registry: Registry,
    map_types: MapTypes,
    prog_type: ProgType,
    rules: KernelRules,
    privs: Privileges,
) -> Cfg:
    """Run the passes before the walk.

    Raises:
        Reject: the first complaint.
    """
    insns = program.insns
    if rules.ldimm64_last_first and insns[-1].opcode == _LDIMM64:
        raise Reject(Reason.LDIMM64_INVALID)
    check_func_info(program)
    handler = program.exception_callback
    starts = _find_subprogs(program, registry, rules, privs)
    if handler is not None and handler.start not in starts:
        starts = sorted([*starts, handler.start])
    _check_layout(insns, starts, rules)
    check_func_layout(program, starts)
    check_abnormal_returns(program, registry, starts)
    check_line_info(program, starts)
    rows: list[isa.InsnDef | None] = [None] * len(insns)
    cfg = Cfg(starts, rows)
    cfg.exception_callback = None if handler is None else handler.start
    cfg.arena = _check_insns(program, facts, map_types, rules, privs, rows)
    for idx, callback in _callback_calls(program, registry, rows):
        (cfg.async_calls if callback.is_async else cfg.callbacks).add(idx)
    check_back_edges(privs, insns, successors)
    _check_reachable(insns, cfg)
    _mark_item_calls(program, registry, cfg)
    _check_sleepable(program, prog_type, rules)
    cfg.insns = insns
    cfg.orders = postorders(insns, starts)
    if rules.branches_folded:
        cfg.constants = find_constants(insns, rows, cfg.orders, facts)
        cfg.insns = fold(insns, rows, cfg.constants)
        cfg.rows = [
            None if row is None else isa.lookup(insn)
            for insn, row in zip(cfg.insns, rows, strict=True)
        ]
        cfg.orders = postorders(cfg.insns, starts)
    if rules.recursion_checked_first:
        cfg.callees_first = callees_first(program, cfg.insns, starts, cfg.orders)
    cfg.effects = effects_of(program, registry, rules, starts)
    cfg.scc = _components(cfg.insns, cfg, cfg.callbacks if rules.callbacks_loop else ())
    cfg.live = live_registers(program, registry, cfg.insns, cfg.rows, cfg.orders)
    return cfg


def _find_subprogs(
    program: Program, registry: Registry, rules: KernelRules, privs: Privileges
) -> list[int]:
    insns = program.insns
    starts = {0}
    for idx, insn in enumerate(insns):
        is_call = insn.opcode == _CALL and insn.src == CallKind.LOCAL.value
        is_func = insn.opcode == _LDIMM64 and insn.src == LdKind.FUNC.value
        if is_call or is_func:
            check_calls_allowed(privs)
            target = idx + insn.imm + 1
            if not 0 <= target < len(insns):
                raise Reject(Reason.CALL_DESTINATION)
            if len(starts) >= MAX_SUBPROGS and target not in starts:
                raise Reject(Reason.TOO_MANY_SUBPROGS)
            starts.add(target)
        elif insn.opcode == _CALL and insn.src == CallKind.KFUNC.value:
            check_calls_allowed(privs)
            _check_kfunc(program, registry, rules, insn.imm)
    return sorted(starts)


def _check_kfunc(program: Program, registry: Registry, rules: KernelRules, index: int) -> None:
    if not program.is_gpl:
        raise Reject(Reason.KFUNC_NOT_GPL)
    if not 0 <= index < len(program.kfuncs):
        raise Reject(Reason.KFUNC_BTF_ID, id=index)
    name = program.kfuncs[index]
    if name in rules.kfuncs_without_code:
        raise Reject(Reason.KFUNC_NO_ADDRESS, name=name)
    if name not in registry.kfuncs and name not in program.weak_kfuncs:
        raise Reject(Reason.NOT_SUPPORTED, what=f"kfunc {name}")


def _callback_calls(
    program: Program, registry: Registry, rows: Sequence[isa.InsnDef | None]
) -> Iterator[tuple[int, Callback]]:
    """Yield the calls that hand a subprog over, and what it is called with."""
    for idx, (insn, row) in enumerate(zip(program.insns, rows, strict=True)):
        proto = None
        if row is not None and row.op is CallKind.HELPER:
            proto = registry.helper(insn.imm, program.prog_type)
        elif row is not None and row.op is CallKind.KFUNC:
            proto = registry.kfuncs.get(program.kfuncs[insn.imm])
        if proto is not None and proto.callback is not None:
            yield idx, proto.callback


def _check_layout(insns: Sequence[Insn], starts: list[int], rules: KernelRules) -> None:
    for start, end in zip(starts, [*starts[1:], len(insns)], strict=True):
        for idx in range(start, end):
            insn = insns[idx]
            if insn.opcode == _GOTOX and rules.gotox:
                continue
            if insn.opcode & 7 in _JUMP_CLASSES and insn.opcode & 0xF0 not in (0x80, 0x90):
                target = idx + 1 + (insn.imm if insn.opcode == _JA32 else insn.off)
                if not start <= target < end:
                    raise Reject(Reason.JUMP_RANGE, insn=idx, target=target)
            if idx == end - 1 and insn.opcode not in (_EXIT, _JA, _JA32):
                raise Reject(Reason.NO_EXIT)


def _check_insns(
    program: Program,
    facts: Sequence[MapFacts],
    map_types: MapTypes,
    rules: KernelRules,
    privs: Privileges,
    rows: list[isa.InsnDef | None],
) -> int | None:
    """Check opcodes, maps and (7.3) fields of all insns; fill *rows*; return the arena's index."""
    insns = program.insns
    arena: int | None = None
    used: set[int] = set()
    idx = 0
    while idx < len(insns):
        insn = insns[idx]
        if rules.static_reserved_checks:
            check_regs(insn)
        elif insn.opcode & 7 == isa.InsnClass.LDX and (
            insn.opcode & 0xE0 not in (0x60, 0x80) or insn.imm
        ):
            raise Reject(Reason.LDX_RESERVED)
        if insn.opcode == _LDIMM64:
            if idx + 1 == len(insns) or insns[idx + 1][:4] != (0, 0, 0, 0):
                raise Reject(Reason.LDIMM64_INVALID)
            if rules.static_reserved_checks and insn.off:
                raise Reject(Reason.LDIMM64_RESERVED)
            index = _check_ldimm64(program, facts, insn, insns[idx + 1])
            if index is not None:
                arena = _use_map(program, facts, map_types, rules, privs, index, used, arena)
                if insn.src == LdKind.MAP_IDX_VALUE.value:
                    traits = map_types.traits(facts[index].defn)
                    _check_direct_value(facts[index], traits, insns[idx + 1].imm, rules)
            rows[idx] = isa.lookup(insn)
            idx += 2
            continue
        if not isa.is_known_opcode(insn.opcode) or insn.opcode == 0x8D:
            if insn.opcode != _GOTOX or not rules.gotox:
                raise Reject(Reason.UNKNOWN_OPCODE, opcode=insn.opcode)
            if insn.src or insn.off or insn.imm:
                raise Reject(Reason.GOTOX_RESERVED)
            idx += 1
            continue
        if rules.static_reserved_checks:
            check_fields(insn)
        rows[idx] = isa.lookup(insn)
        idx += 1
    return arena


def _check_ldimm64(
    program: Program, facts: Sequence[MapFacts], insn: Insn, second: Insn
) -> int | None:
    """Check the fields of an ldimm64; return the index of the map it names."""
    if insn.src > LdKind.MAP_IDX_VALUE.value:
        raise Reject(Reason.LDIMM64_UNRECOGNIZED)
    match LdKind(insn.src):
        case LdKind.IMM64 | LdKind.FUNC:
            return None
        case LdKind.BTF_ID:
            raise Reject(Reason.NOT_SUPPORTED, what="ldimm64 of a kernel variable")
        case LdKind.MAP_FD | LdKind.MAP_IDX:
            if second.imm:
                raise Reject(Reason.LDIMM64_UNRECOGNIZED)
        case LdKind.MAP_VALUE | LdKind.MAP_IDX_VALUE:
            pass
    if insn.src in (LdKind.MAP_FD.value, LdKind.MAP_VALUE.value) or not (
        0 <= insn.imm < min(len(program.maps), len(facts))
    ):
        raise Reject(Reason.BAD_MAP_FD, fd=insn.imm)
    return insn.imm


#: Types of maps that sleepable programs may use (among those there are).
_SLEEPABLE_MAPS = frozenset(
    {
        MapType.HASH,
        MapType.LRU_HASH,
        MapType.ARRAY,
        MapType.PERCPU_HASH,
        MapType.PERCPU_ARRAY,
        MapType.ARRAY_OF_MAPS,
        MapType.HASH_OF_MAPS,
        MapType.RINGBUF,
        MapType.USER_RINGBUF,
        MapType.ARENA,
    }
)


#: Fields that tracing programs may not have in their maps, before 7.3 and ever.
_NOT_TRACED = {
    FieldKind.LIST_HEAD: ("bpf_{list_head,rb_root}", True),
    FieldKind.RB_ROOT: ("bpf_{list_head,rb_root}", True),
    FieldKind.SPIN_LOCK: ("bpf_spin_lock", True),
    FieldKind.RES_SPIN_LOCK: ("bpf_spin_lock", True),
    FieldKind.TIMER: ("bpf_timer", False),
    FieldKind.WORKQUEUE: ("bpf_wq", False),
}


_LOCKS = {FieldKind.SPIN_LOCK, FieldKind.RES_SPIN_LOCK}


def _check_record(program: Program, defn: MapDef, rules: KernelRules) -> None:
    """Refuse maps with special fields that the program's type may not have (kernel:
    check_map_prog_compatibility)."""
    kinds = {field.kind for field in defn.record or ()}
    if kinds & _LOCKS and program.prog_type == "socket_filter":
        raise Reject(Reason.LOCK_SOCKET_FILTER)
    prog_type = PROG_TYPES.get(program.prog_type)
    if prog_type is None or not prog_type.is_tracing:
        return
    for kind, (name, always) in _NOT_TRACED.items():
        if kind in kinds and (always or not rules.timers_in_tracing):
            raise Reject(Reason.LOCK_TRACING, field=name)


def _use_map(
    program: Program,
    facts: Sequence[MapFacts],
    map_types: MapTypes,
    rules: KernelRules,
    privs: Privileges,
    index: int,
    used: set[int],
    arena: int | None,
) -> int | None:
    """Account for a reference to map *index* (kernel: add_used_map); return the arena's index."""
    if index in used:
        return arena
    if len(used) >= MAX_MAPS:
        raise Reject(Reason.TOO_MANY_MAPS, limit=MAX_MAPS)
    defn = facts[index].defn
    map_type = next((t for t in map_types.types if t == defn.map_type), None)
    if map_type is None:
        raise Reject(Reason.NOT_SUPPORTED, what=f"map type {defn.map_type}")
    _check_record(program, defn, rules)
    allowed = _SLEEPABLE_MAPS | (rules.more_sleepable_maps or frozenset())
    if program.sleepable and map_type not in allowed:
        raise Reject(Reason.SLEEPABLE_MAP)
    used.add(index)
    if map_type is not MapType.ARENA:
        return arena
    if arena is not None:
        raise Reject(Reason.ONE_ARENA)
    check_arena(privs)
    if not facts[index].user_vm_start:
        raise Reject(Reason.ARENA_NO_ADDRESS)
    return index


def _check_direct_value(facts: MapFacts, traits: MapTraits, off: int, rules: KernelRules) -> None:
    off &= 0xFFFFFFFF
    defn = facts.defn
    if off >= MAX_VAR_OFF and not rules.full_range_value_offsets:
        raise Reject(Reason.DIRECT_VALUE_OFF, off=off)
    if not traits.direct_value:
        raise Reject(Reason.NO_DIRECT_VALUE)
    if defn.map_type == MapType.ARENA:
        size = facts.user_vm_end - facts.user_vm_start
        if off > size or (off == size and rules.arena_value_end_excluded):
            raise Reject(Reason.DIRECT_VALUE_ARENA, off=off)
    elif defn.max_entries != 1:
        raise Reject(Reason.DIRECT_VALUE_ENTRIES, size=defn.value_size, off=off)
    elif off >= defn.value_size:
        raise Reject(Reason.DIRECT_VALUE_RANGE, size=defn.value_size, off=off)


def _check_sleepable(program: Program, prog_type: ProgType, rules: KernelRules) -> None:
    match prog_type.sleepable:
        case Sleepable.MUST if not program.sleepable:
            raise Reject(Reason.SYSCALL_SLEEPABLE)
        case Sleepable.NEVER if program.sleepable:
            pass
        case Sleepable.LATER if program.sleepable and not rules.sleepable_tracepoints:
            pass
        case _:
            return
    if rules.sleepable_tracepoints:
        raise Reject(Reason.TYPE_CANNOT_SLEEP)
    raise Reject(Reason.CANNOT_SLEEP)


def _check_reachable(insns: Sequence[Insn], cfg: Cfg) -> None:
    """Find every slot that some path reaches, callees included; set the marks."""
    seen = bytearray(len(insns))
    todo = [0]
    if cfg.exception_callback is not None:
        todo.append(cfg.exception_callback)
    while todo:
        idx = todo.pop()
        if idx >= len(insns) or seen[idx]:
            continue
        seen[idx] = 1
        insn = insns[idx]
        op = insn.opcode
        if op == _GOTOX:
            # Jump tables are maps of a type that we don't have.
            start = max(start for start in cfg.starts if start <= idx)
            raise Reject(Reason.NO_JUMP_TABLE, start=start)
        if op in (_JA, _JA32):
            target = idx + 1 + (insn.imm if op == _JA32 else insn.off)
            cfg.prune.add(target)
            cfg.jump.add(target)
        elif op == _CALL:
            cfg.prune.add(idx + 1)
            cfg.jump.add(idx + 1)
            if insn.src == CallKind.LOCAL.value:
                cfg.prune |= {idx, idx + 1 + insn.imm}
                cfg.jump.add(idx + 1 + insn.imm)
                todo.append(idx + 1 + insn.imm)
            if idx in cfg.async_calls:
                cfg.prune.add(idx)
            if idx in cfg.callbacks:
                cfg.prune.add(idx)
                cfg.jump.add(idx)
                cfg.force.add(idx)
        elif op == _LDIMM64 and insn.src == LdKind.FUNC.value:
            cfg.prune |= {idx, idx + 2, idx + 1 + insn.imm}
            cfg.jump |= {idx + 2, idx + 1 + insn.imm}
            todo.append(idx + 1 + insn.imm)
        elif is_cond_jump(op):
            cfg.prune |= {idx, idx + 1 + insn.off}
            cfg.jump.add(idx + 1 + insn.off)
            row = cfg.rows[idx]
            if row is not None and row.kind is Kind.MAY_GOTO:
                cfg.force.add(idx)
        todo.extend(successors(idx, insn))
    idx = 0
    while idx < len(insns):
        if not seen[idx]:
            raise Reject(Reason.UNREACHABLE, insn=idx)
        if insns[idx].opcode == _LDIMM64:
            if seen[idx + 1]:
                raise Reject(Reason.LDIMM64_MIDDLE, insn=idx)
            idx += 1
        idx += 1


def _mark_item_calls(program: Program, registry: Registry, cfg: Cfg) -> None:
    """Note the calls that take an iterator's next item: loops converge there."""
    for idx, insn in enumerate(program.insns):
        if insn.opcode != _CALL or insn.src != CallKind.KFUNC.value:
            continue
        proto = registry.kfuncs.get(program.kfuncs[insn.imm])
        if proto is not None and proto.iterates and proto.iterates[1] is IterStep.NEXT:
            cfg.items.add(idx)
    cfg.prune |= cfg.items
    cfg.force |= cfg.items


def _components(insns: Sequence[Insn], cfg: Cfg, loops: Container[int]) -> list[int]:
    """Return each slot's loop number (Tarjan's algorithm, without recursion); *loops* are slots
    that make one by themselves."""
    size = len(insns)
    scc = [0] * size
    order = [0] * size
    low = [0] * size
    on_stack = bytearray(size)
    count = found = 0
    stack: list[int] = []
    for root in range(size):
        if order[root]:
            continue
        work: list[tuple[int, Iterator[int]]] = [(root, successors(root, insns[root]))]
        count += 1
        order[root] = low[root] = count
        stack.append(root)
        on_stack[root] = 1
        while work:
            idx, succ = work[-1]
            for nxt in succ:
                if not order[nxt]:
                    count += 1
                    order[nxt] = low[nxt] = count
                    stack.append(nxt)
                    on_stack[nxt] = 1
                    work.append((nxt, successors(nxt, insns[nxt])))
                    break
                if on_stack[nxt]:
                    low[idx] = min(low[idx], order[nxt])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[idx])
                if low[idx] != order[idx]:
                    continue
                members = []
                while True:
                    member = stack.pop()
                    on_stack[member] = 0
                    members.append(member)
                    if member == idx:
                        break
                turns = idx in set(successors(idx, insns[idx])) or idx in loops
                if len(members) > 1 or turns:
                    found += 1
                    for member in members:
                        scc[member] = found
    return scc


def jump_to(idx: int, insn: Insn, row: isa.InsnDef) -> int:
    """Return the target of jump or local call *insn*, which has one."""
    target = flow.jump_target(idx, insn, row)
    assert target is not None  # narrowing: callers pass jumps and local calls only
    return target
