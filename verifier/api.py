"""`verify`: a program and what is known of its maps in, a verdict out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from bpfvm.context import PROG_TYPES, ProgType, Sleepable
from bpfvm.isa import Kind
from bpfvm.kernel_btf import KernelTypes
from bpfvm.maps.base import MapTypes
from bpfvm.privileges import PRIVILEGED, Privileges
from bpfvm.program import MapFacts, Program
from bpfvm.proto import Registry
from bpfvm.rules import KernelRules
from bpfvm.xlated import Stats, Verdict
from verifier.bounds import contradictions
from verifier.caps import check_attributes
from verifier.cfg import check_program
from verifier.collector import rare_collections
from verifier.depth import check_stack_depth
from verifier.env import Env
from verifier.exceptions import find_callback
from verifier.explore import Walk
from verifier.hooks import check_hook
from verifier.log import STATS, live_table
from verifier.reasons import Reason, Reject
from verifier.speculation import check_tail_calls
from verifier.xlate import xlate

__all__ = ["contradicts", "verify"]


def verify(
    program: Program,
    facts: Sequence[MapFacts],
    registry: Registry,
    *,
    map_types: MapTypes,
    prog_types: Mapping[str, ProgType] = PROG_TYPES,
    rules: KernelRules,
    log_level: int = 1,
    mem_size: int | None = None,
    privileges: Privileges = PRIVILEGED,
    kernel_types: KernelTypes | None = None,
) -> Verdict:
    """Verify *program* as a kernel with *rules* would for a user with *privileges*; `facts[i]` is
    of `program.maps[i]`.

    A program the kernel may accept but this verifier can't follow yet is rejected with a last
    line `not supported yet: ...`. *log_level* has the kernel's bits: 1 the failing path, 2 all,
    4 statistics. With *mem_size* the program gets no context: r1 points to that many bytes of
    memory (0: is 0) and r2 is their number, whatever the program's type is called.
    *kernel_types* tell of hooks and structs of the kernel; without, programs that need them are
    not supported.
    """
    prog_type = prog_types.get(program.prog_type)
    if mem_size is not None and prog_type is None:
        prog_type = ProgType(program.prog_type, 0, (), Sleepable.MAY)
    refused = _check_attributes(program, prog_type, privileges)
    if refused is not None or prog_type is None:
        refused = refused or Reject(Reason.BAD_PROG_TYPE, name=program.prog_type)
        return Verdict(
            False,
            refused.reason.errno,
            refused.message + "\n" if log_level else "",
            refused.message,
            refused.reason.slug,
        )
    started = time.perf_counter_ns()
    env = Env(
        program,
        facts,
        registry,
        map_types,
        prog_type,
        rules,
        log_level,
        mem_size,
        privileges,
        kernel_types,
    )
    walk: Walk | None = None
    try:
        with rare_collections():
            find_callback(program)
            env.start(
                check_program(program, facts, registry, map_types, prog_type, rules, privileges)
            )
            check_hook(env)
            _log_head(env)
            walk = Walk(env)
            walk.run()
            check_stack_depth(env)
            check_tail_calls(env)
    except Reject as e:
        for line in e.lines:
            env.log.line(line)
        stats = walk.stats() if walk is not None else Stats()
        log = _finished(env, stats, started, env.stack_depth)
        return Verdict(False, e.reason.errno, log, e.lines[-1], e.reason.slug, stats)
    stats = walk.stats()
    return Verdict(
        True, log=_finished(env, stats, started, _final_depths(env)), stats=stats, xlated=xlate(env)
    )


def contradicts(
    program: Program,
    facts: Sequence[MapFacts],
    registry: Registry,
    *,
    map_types: MapTypes,
    prog_types: Mapping[str, ProgType] = PROG_TYPES,
    rules: KernelRules,
) -> bool:
    """Say whether on some path of *program*, one that cannot run, what is known of a number
    contradicts itself. Kernels up to 7.2 warn of that, once, and are tainted from then on."""
    with contradictions() as found:
        verify(
            program,
            facts,
            registry,
            map_types=map_types,
            prog_types=prog_types,
            rules=rules,
            log_level=0,
        )
    return bool(found)


def _check_attributes(
    program: Program, prog_type: ProgType | None, privileges: Privileges
) -> Reject | None:
    refused = check_attributes(privileges, program.prog_type, len(program.insns))
    if refused is None and prog_type is None:
        return Reject(Reason.BAD_PROG_TYPE, name=program.prog_type)
    if refused is None and prog_type is not None and prog_type.missing:
        what = f"programs of type {prog_type.name}, which need {prog_type.missing}"
        return Reject(Reason.NOT_SUPPORTED, what=what)
    return refused


def _log_head(env: Env) -> None:
    """Log at level 2 what was found before the walk."""
    if not env.log.verbose:
        return
    for number, start in enumerate(env.cfg.starts):
        env.log.line(f"func#{number} @{start}")
    table = live_table(env.cfg.live, env.cfg.scc, env.insn_text)
    env.log.line(table.rstrip("\n"))


def _final_depths(env: Env) -> list[int]:
    """Return the subprogs' stack depths once the program is rewritten: with room for what an
    expanded may_goto keeps (kernel: do_misc_fixups)."""
    ends = [*env.cfg.starts[1:], len(env.insns)]
    return [
        depth
        + 16 * any(row is not None and row.kind is Kind.MAY_GOTO for row in env.cfg.rows[start:end])
        for depth, start, end in zip(
            env.fastcalls.depths(env.stack_depth), env.cfg.starts, ends, strict=True
        )
    ]


def _finished(env: Env, stats: Stats, started: int, depths: Sequence[int]) -> str:
    """Return the whole log, its closing lines added."""
    if not env.log.level:
        return ""
    if env.log.level & STATS:
        micros = (time.perf_counter_ns() - started) // 1000
        env.log.line(f"verification time {micros} usec")
        env.log.line("stack depth " + "+".join(map(str, depths)))
    env.log.line(
        f"processed {stats.processed} insns (limit {stats.limit}) "
        f"max_states_per_insn {stats.max_states_per_insn} total_states {stats.total_states} "
        f"peak_states {stats.peak_states} mark_read {stats.mark_read}"
    )
    return env.log.text()
