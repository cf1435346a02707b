"""The verifier's product: a verdict, and for an accepted program the insns as engines run them.

`Xlated` is symbolic: map references stay indices, calls stay registry rows; an engine binds
addresses when it links. Rewriting never moves an insn, so slot i of `Xlated.insns` is slot i of
the program: contexts are laid out so that each access stays one insn, and an insn that can't be
reached is only marked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bpfvm.errors import BpfError
from bpfvm.insn import Insn
from bpfvm.memory import RegionKind
from bpfvm.program import Program
from bpfvm.proto import FuncProto, Variant

__all__ = ["CallSite", "InsnAux", "Rejected", "Stats", "Verdict", "Xlated", "unverified"]


@dataclass(frozen=True, slots=True)
class CallSite:
    """A call of a helper or kfunc as the verifier found it.

    Attributes:
        proto: the registry row.
        variant: which implementation runs (kernel: specialize_kfunc, arena.md section 3.7).
        sleepable: whether every path reaches the site in a sleepable context.
        context: the innermost reason why not, in the kernel's words ("non-sleepable prog"), or "".
    """

    proto: FuncProto
    variant: Variant = Variant.SLEEPABLE
    sleepable: bool = True
    context: str = ""


@dataclass(frozen=True, slots=True)
class InsnAux:
    """What the verifier found for one slot (kernel: bpf_insn_aux_data).

    Attributes:
        seen: reached on some path; an engine treats an unseen slot as a trap.
        access: what the memory operand points to, for loads, stores and atomics.
        call: the call site, for helper and kfunc calls.
        regs: register types before the insn, in the log's grammar (first path), for --types.
    """

    seen: bool = True
    access: RegionKind | None = None
    call: CallSite | None = None
    regs: str = ""


#: No map's struct is larger than this many bytes as far as programs see it.
MAP_IMAGE_SIZE = 1024


@dataclass(frozen=True, slots=True)
class Xlated:
    """A program as both engines run it.

    Attributes:
        program: what it was made from.
        insns: same length as program.insns; arena accesses have their internal forms
            (`InsnDef.arena`), casts and ALU64 on arena pointers are narrowed, context accesses
            address the internal context.
        aux: per slot.
        verified: False for the sandbox: insns are the program's own, every access is checked
            against exact region bounds, and a budget of insns is charged.
        stack_depth: bytes of stack used, per subprog (sandbox: 512 each).
        max_ctx_offset: end of the highest context byte that is accessed (syscall programs).
        map_images: what can be read through map pointers, by the map's index.
    """

    program: Program
    insns: tuple[Insn, ...]
    aux: tuple[InsnAux, ...]
    verified: bool
    stack_depth: tuple[int, ...] = ()
    max_ctx_offset: int = 0
    map_images: Mapping[int, bytes] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Stats:
    """The numbers of the log's `processed ...` line (kernel: print_verification_stats)."""

    processed: int = 0
    limit: int = 1_000_000
    max_states_per_insn: int = 0
    total_states: int = 0
    peak_states: int = 0
    mark_read: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verifier's answer about one program: a value, never an exception.

    Attributes:
        ok: accepted.
        errno: positive, 0 when accepted.
        log: the whole log in the kernel's format, for the log level asked for.
        last: the closing complaint (the last line before `processed ...`), "" when accepted.
        reason: a stable slug of the complaint (`verifier.reasons`), "" when accepted.
        stats: counters.
        xlated: what engines run, when accepted.
    """

    ok: bool
    errno: int = 0
    log: str = ""
    last: str = ""
    reason: str = ""
    stats: Stats = field(default_factory=Stats)
    xlated: Xlated | None = None


class Rejected(BpfError):
    """A run was asked for of a program that does not verify."""

    def __init__(self, name: str, verdict: Verdict) -> None:
        self.verdict = verdict
        super().__init__(f"{name}: rejected by the verifier: {verdict.last}")


def unverified(program: Program) -> Xlated:
    """Return *program* for the sandbox: nothing typed, every access checked at run time."""
    n = len(program.insns)
    return Xlated(
        program,
        program.insns,
        (InsnAux(),) * n,
        verified=False,
        stack_depth=(512,) * max(1, len(program.subprogs)),
    )
