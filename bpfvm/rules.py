"""KernelRules: one row for each rule or wording that differs between kernels we follow.

Nothing else in the tree knows versions: code asks a rule by name. Adding a row is one field with
its two values; `KernelRules.of` picks them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from bpfvm.errors import BpfError

__all__ = ["KERNELS", "NEWEST", "KernelRules"]

#: Supported rule sets, oldest first.
KERNELS = ("6.18", "7.3")
NEWEST = KERNELS[-1]


def _rule(before: object, after: object, doc: str, *, since: str = "7.3") -> Any:  # noqa: ANN401  # as field()
    """Declare a row: value before kernel *since*, value from it on."""
    return field(metadata={"before": before, "after": after, "since": since, "doc": doc})


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelRules:
    """The rules of one kernel. Sources: arena.h/arena.c and verifier.c of each."""

    kernel: str
    arena_kfuncs_any_context: bool = _rule(
        False, True, "arena page kfuncs may be called from non-sleepable contexts"
    )
    arena_fault_clears_result: bool = _rule(
        False, True, "a faulting fetch, cmpxchg or load-acquire zeroes its result register"
    )
    arena_alu64_mix_refused: bool = _rule(
        False, True, "one ALU64 insn may not be reached with and without an arena operand"
    )
    arena_atomic_merge_check: bool = _rule(
        False, True, "atomics join the check that one insn sees one pointer type"
    )
    arena_value_end_excluded: bool = _rule(
        False, True, "an ldimm64 may not point one past the arena's end"
    )
    static_reserved_checks: bool = _rule(
        False, True, "reserved fields and register numbers are checked in every insn, even dead"
    )
    call_frames: int = _rule(8, 16, "the most call frames")
    ldimm64_last_first: bool = _rule(
        False, True, "a program that ends in an ldimm64's first half is refused before all else"
    )
    recursion_checked_first: bool = _rule(
        False, True, "recursion is refused before the walk, by the call graph"
    )
    branches_folded: bool = _rule(
        False, True, "before the walk, branches that constants decide become gotos"
    )
    sleepable_tracepoints: bool = _rule(
        False, True, "raw_tp and tracepoint programs may be sleepable"
    )
    more_sleepable_maps: frozenset[int] = _rule(
        frozenset(), frozenset({3, 11}), "further map types that sleepable programs may use"
    )
    full_range_value_offsets: bool = _rule(
        False, True, "an ldimm64's offset into a map value may have all 32 bits"
    )
    stack_args: bool = _rule(
        False, True, "static functions may have up to 12 arguments, from the sixth on the stack"
    )
    no_percpu_strings: bool = _rule(
        False, True, "a value of an array of CPUs' values is refused as a string by its map type"
    )
    gotox: bool = _rule(False, True, "there is an indirect jump (opcode 0x0d)")
    complexity_is_e2big: bool = _rule(
        False, True, "too many pending branches are E2BIG, not EFAULT or ENOMEM"
    )
    widening_ignores_ids: bool = _rule(
        False, True, "a scalar of a loop is not forgotten because its id alone changed"
    )
    fastcalls_whole: bool = _rule(
        False, True, "nothing may jump into the spills and fills around a call that keeps registers"
    )
    callbacks_loop: bool = _rule(
        False, True, "a callback that is called again closes a loop, whose marks are completed"
    )
    loops_ignore_misc: bool = _rule(
        False, True, "inside loops too, a slot of unknown data may have become anything"
    )
    circular_ranges: bool = _rule(
        False, True, "what is known of a number is a tnum and two circular ranges, not four ranges"
    )
    linked_regs: int = _rule(6, 5, "how many linked scalars follow one branch")
    null_check_keeps_id: bool = _rule(
        False, True, "a pointer keeps its id when its null check succeeds"
    )
    pointer_off_in_range: bool = _rule(
        False, True, "a pointer's fixed offset is part of its range (messages, log)"
    )
    atomic_load_type_first: bool = _rule(
        False, True, "an acquire load's pointer type is checked before the access"
    )
    kfunc_args_by_register: bool = _rule(
        False, True, "complaints of kfuncs and global functions name R1.., not arg#0.."
    )
    sleep_context_named: bool = _rule(
        False, True, "complaints of sleeping helpers and global functions name the context"
    )
    global_by_context: bool = _rule(
        False, True, "global functions are verified for each context that they are called from"
    )
    void_globals: bool = _rule(False, True, "global functions may return nothing")
    arena_type_tags: bool = _rule(
        False, True, "the type tag arena marks arguments and results of global functions"
    )
    packet_args_by_effect: bool = _rule(
        False, True, "packet pointers are refused to a global function that may move the packet"
    )
    early_returns_in_callbacks: bool = _rule(
        True, False, "callbacks may load from packets and make tail calls"
    )
    tail_call_keeps_packets: bool = _rule(
        False, True, "where no other program was called, packet pointers are what they were"
    )
    hook_result_bounded: bool = _rule(
        False, True, "what bpf_set_retval sets must be 0 or a negative errno"
    )
    kfunc_capabilities: bool = _rule(
        False, True, "kfuncs that read memory by address, or print, are for CAP_PERFMON"
    )
    more_disabled_hooks: frozenset[str] = _rule(
        frozenset(),
        frozenset({"file_alloc_security"}),
        "further LSM hooks that no program may be attached to",
    )
    zero_flags_precise: bool = _rule(False, True, "flags that were 0 in a call must stay 0")
    ids_are_references: bool = _rule(
        False, True, "a reference is told by its holder's id; what derives from it has a parent_id"
    )
    timers_in_tracing: bool = _rule(
        False, True, "tracing programs may use maps with timers and work queues"
    )
    helpers_destroy_dynptrs: bool = _rule(
        False, True, "a helper's output may go over a dynptr that stands for no reference"
    )
    rcu_nests: bool = _rule(False, True, "RCU read sections may be nested")
    stack_objects_below_fp: bool = _rule(
        False, True, "an iterator, dynptr or IRQ flag at fp+0 and above is refused"
    )
    ctx_const_offset: bool = _rule(
        False,
        True,
        "contexts that are not rewritten may be read through ctx + constant, the one of syscall "
        "programs used through any offset, also as memory",
    )
    packet_keeps_range: bool = _rule(
        False, True, "a proven packet pointer minus a non-negative unknown keeps its range"
    )
    same_register_decided: bool = _rule(
        False, True, "a comparison of a register with itself is predicted"
    )
    null_check_by_register: bool = _rule(
        False, True, "a comparison with a register known to be 0 is a null check"
    )
    variable_zero_fill: bool = _rule(
        False, True, "a variable-offset stack read over spilled zeros gives 0"
    )
    lookup_refined_at_once: bool = _rule(
        False, True, "a lookup of maps or sockets says so before its null check"
    )
    inner_key_elision: bool = _rule(
        True, False, "a known key of an inner array gives a value that needs no null check"
    )
    sockmap_updaters: frozenset[str] = _rule(
        frozenset(
            {
                "socket_filter",
                "sched_cls",
                "sched_act",
                "xdp",
                "sk_reuseport",
                "flow_dissector",
                "sk_lookup",
            }
        ),
        frozenset({"sk_reuseport", "sk_lookup"}),
        "the program types that may update maps of sockets",
    )
    helpers_withheld: frozenset[tuple[int, str, int | None]] = _rule(
        frozenset({(49, "cgroup_sock", None), (57, "cgroup_sock", None)}),
        frozenset(
            {
                (39, "lwt_seg6local", None),
                (49, "cgroup_sock_addr", 52),
                (49, "cgroup_sock_addr", 53),
                (57, "cgroup_sock_addr", 52),
                (57, "cgroup_sock_addr", 53),
            }
        ),
        "helpers that prototypes offer to a program type, but not (with this attach type) here",
    )
    packet_region_messages: bool = _rule(
        False, True, "packet bounds errors use the min/max value lines"
    )

    kfuncs_without_code: frozenset[str] = _rule(
        frozenset(),
        frozenset({"bpf_wq_set_callback_impl"}),
        "kfuncs that BTF tells of, for the arguments that others hide, and that can't be called",
    )

    @classmethod
    def of(cls, kernel: str = NEWEST) -> KernelRules:
        """Return the rules of *kernel*, one of `KERNELS`.

        Raises:
            BpfError: *kernel* is another.
        """
        if kernel not in KERNELS:
            raise BpfError(f"unknown kernel {kernel!r}: expected one of {', '.join(KERNELS)}")
        now = KERNELS.index(kernel)
        return cls(
            kernel=kernel,
            **{
                f.name: f.metadata[
                    "after" if now >= KERNELS.index(f.metadata["since"]) else "before"
                ]
                for f in fields(cls)
                if f.metadata
            },
        )
