"""How the verifier's words, logs and verdicts changed between kernels: for tests that were written
for an older kernel (6.12's selftests, unless told otherwise) and are judged by a newer one's rules.

`WORDINGS` is the table of messages: a pattern of a test is looked for as written, and in each
wording that replaced it up to the kernel that is asked for. `CHANGES` lists single tests that end
otherwise, each with what the kernel does now; how a row used one is always told.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, unique

from bpfvm.rules import KERNELS

__all__ = [
    "CHANGES",
    "OLDEST_TESTS",
    "WORDINGS",
    "Change",
    "What",
    "Wording",
    "changes_of",
    "wordings_of",
]

#: The oldest kernel whose selftests we know.
OLDEST_TESTS = "6.12"
_AGES = (OLDEST_TESTS, *KERNELS)


@dataclass(frozen=True, slots=True)
class Wording:
    """From kernel *since* on, what matched *old* reads *new*: a template of `re.sub`, in which
    `<1+1>` is the number in group 1 plus one, and which may have `{{regex}}` pieces as the
    patterns of tests do."""

    since: str
    old: str
    new: str


@unique
class What(Enum):
    """What a change changed."""

    VERDICT = "verdict"
    LOG = "log"
    RETVAL = "retval"


@dataclass(frozen=True, slots=True)
class Change:
    """From kernel *since* on, the test *program* of the object *stem* ends otherwise: the other
    verdict, another log, or a retval that depends on more than the program. `NAME @unpriv` is the
    test without privileges alone. *why* tells what the kernel does now."""

    since: str
    what: What
    stem: str
    program: str
    why: str


_NEGATIVE = "min value is negative, either use unsigned index or do a if (index >=0) check."
_SLEEPS_IN = (
    "{{rcu_read_lock region|non-preemptible region|IRQ-disabled region|lock region|"
    "non-sleepable prog}}"
)

WORDINGS: tuple[Wording, ...] = (
    # -- since 6.12 --
    # Marks of liveness are not printed any more.
    Wording("6.18", r"\b(R\d+|fp-\d+)_(?:rw|r|w)D?=", r"\1="),
    # What is still held or switched off at the end.
    *(
        Wording(
            "6.18",
            old,
            rf"{{{{BPF_EXIT instruction in main prog|bpf_throw|tail_call}}}} cannot be used inside "
            rf"{region}-ed region",
        )
        for old, region in (
            (r"(?:\d+ )?bpf_preempt_enable(?:\(s\) are| is) missing", "bpf_preempt_disable"),
            (r"bpf_rcu_read_unlock is missing", "bpf_rcu_read_lock"),
            (r"(?:bpf_spin_)?unlock is missing", "bpf_spin_lock"),
        )
    ),
    # Helpers' accesses to the stack read like those of insns.
    Wording(
        "6.18",
        r"invalid( (?:unbounded )?variable-offset)? indirect access to stack",
        r"invalid\1 {{read from|write to}} stack",
    ),
    Wording("6.18", r"invalid indirect (read from stack)", r"invalid \1"),
    Wording(
        "6.18",
        r"cannot be mixed with socket references",
        "would lead to reference leak",
    ),
    # -- since 6.18 --
    Wording("7.3", r"\b(iter_\w+\()ref_id=", r"\1id="),
    Wording("7.3", r"\bref_obj_id=", "id="),
    Wording("7.3", r"Unreleased reference id=\d+", r"Unreleased reference id={{\\d+}}"),
    # A recursion is found before the walk.
    Wording(
        "7.3",
        r"the call stack of \d+ frames is too deep !",
        r"recursive call from {{\\S+}}() to {{\\S+}}()",
    ),
    # Arguments are named by their register.
    Wording(
        "7.3",
        r"\barg#(\d+) arg#(\d+) memory, len pair",
        r"R<1+1> and R<2+1> memory, len pair",
    ),
    Wording("7.3", r"\barg#(\d+) expected for (bpf_\w+)_impl\(\)", r"R<1+1> expected for \2()"),
    Wording("7.3", r"\barg#(\d+)\b", "R<1+1>"),
    Wording("7.3", r"\bas arg #(\d+)", "as R<1+1>"),
    Wording("7.3", r"\bto trusted arg(\d+)", "to trusted R<1+1>"),
    Wording("7.3", r"\bto helper arg(\d+)", r"to helper R\1"),
    Wording("7.3", r"\b(kernel function \S+) args#(\d+) expected", r"\1 R<2+1> expected"),
    # What is released.
    Wording(
        "7.3",
        r"R(\d+) must be referenced when passed to release function",
        r"release helper {{\\S+}} expects referenced PTR_TO_BTF_ID passed to R\1",
    ),
    Wording(
        "7.3",
        r"release kernel function (\S+) expects(?: refcounted PTR_TO_BTF_ID)?",
        r"release kfunc \1 expects referenced PTR_TO_BTF_ID passed to R{{\\d}}",
    ),
    Wording("7.3", r"(R\d+) is not a known constant'?", r"\1 is not a const"),
    Wording(
        "7.3",
        r"(\w+ pointer in )R1( map_uid=\d+ doesn't match map pointer in )R2( map_uid=\d+)",
        r"\1R{{\\d}}\2R{{\\d}}\3",
    ),
    # Dynptrs.
    Wording(
        "7.3", r"arg (\d+) is an unacquired reference", r"Expected an initialized dynptr as R\1"
    ),
    Wording("7.3", r"potential write to dynptr at off=-?\d+", "cannot overwrite referenced dynptr"),
    # A fixed offset is part of the range.
    Wording(
        "7.3",
        r"(misaligned (?:\w+ )?access off (?:2\+)?)0\+(-?\d+\+-?\d+ size)",
        r"\1\2",
    ),
    Wording(
        "7.3",
        r"(misaligned (?:\w+ )?access off (?:2\+)?\([^)]*\))\+0(\+-?\d+ size)",
        r"\1\2",
    ),
    Wording("7.3", r"\b((?:map_value|pkt|mem|rdonly_mem)\([^)]*),off=(-?\d+)", r"\1,imm=\2"),
    Wording(
        "7.3",
        r"(R\d+) offset is outside of the packet",
        r"\1 {{min|max}} value is outside of the allowed memory range",
    ),
    Wording("7.3", r"(R\d+) offset is outside of the packet", rf"\1 {_NEGATIVE}"),
    Wording("7.3", r"invalid access to packet(?:, off=-\d+.*)?", _NEGATIVE),
    Wording("7.3", r"\bpkt\(off=(-?\d+),r=(\d+)\)", r"pkt(r=\2,imm=\1)"),
    Wording(
        "7.3",
        r"(invalid access to packet, )off=\d+ (size=\d+, R\d+\()id=.*\)",
        r"\1off={{-?\\d+}} \2id={{\\d+,off=-?\\d+,r=\\d+}})",
    ),
    Wording("7.3", r"(R\d+) min value is outside of the allowed memory range", rf"\1 {_NEGATIVE}"),
    Wording("7.3", r"invalid access to map value(, value_size=\d+ off=-\d+ size=\d+)?", _NEGATIVE),
    Wording(
        "7.3",
        r"(\w+ pointer offset )-?\d+( is not allowed)",
        r"\1{{-?\\d+}}\2",
    ),
    Wording(
        "7.3",
        r"value -?\d+ makes (\w+) pointer be out of bounds",
        r"\1 pointer offset {{-?\\d+}} is not allowed",
    ),
    Wording(
        "7.3",
        r"(R\d+) invalid (\w+) buffer access: off=(-\d+), size=\d+",
        r"\1 invalid negative \2 buffer offset: off=\3, var_off={{-?\\d+}}",
    ),
    # Where a call may not sleep.
    Wording(
        "7.3",
        r"helper call might sleep in a non-sleepable prog",
        rf"sleepable helper {{{{\\S+}}}} in {_SLEEPS_IN}",
    ),
    Wording(
        "7.3",
        r"(sleepable helper \S+) (?:in rcu_read_lock|within .*)",
        rf"\1 in {_SLEEPS_IN}",
    ),
    Wording("7.3", r"(kernel func \S+ is sleepable within) .*", rf"\1 {_SLEEPS_IN}"),
    Wording(
        "7.3",
        r"global functions that may sleep are not allowed in .*",
        rf"sleepable global function {{{{\\S+}}}}() called in {_SLEEPS_IN}",
    ),
    Wording(
        "7.3",
        r"expected an RCU CS when using (\S+)",
        r"kernel func \1 requires RCU critical section protection",
    ),
    Wording(
        "7.3",
        r"(\w+\(\)) doesn't return scalar\b",
        r"\1 return value not void or scalar",
    ),
    Wording(
        "7.3",
        r"Only fentry/fexit/fmod_ret, lsm, iter, uprobe, and struct_ops programs can be sleepable",
        r"Program of this type cannot be sleepable",
    ),
    # What a lookup in a map of maps or sockets gives has its own type before the null check.
    Wording("7.3", r"\bmap_value_or_null\b", r"{{(map_ptr|xdp_sock|sock)_or_null}}"),
)

_UNREAD = "a register that is not read any more follows no branch of the scalar it is linked to"
_CONST_KEY = "a lookup with a constant key inside an array gives no NULL"
_BARRIER = "what is wrong on a mispredicted path alone costs a speculation barrier"
_NEGATION = "the negation of a known number is known"
_SOCKMAP = "sockmaps are changed by iter, sk_reuseport and sk_lookup programs alone"
_TIMERS = "tracing programs may use maps with timers; what else is wrong is told"
_FILLED = "user space fills the map before the run"

CHANGES: tuple[Change, ...] = (
    Change(
        "6.18",
        What.LOG,
        "verifier_bounds_deduction",
        "deducing_bounds_from_const_10",
        _NEGATION,
    ),
    *(
        Change("6.18", What.LOG, "verifier_scalar_ids", name, _UNREAD)
        for name in (
            *("linked_regs_bpf_k", "linked_regs_bpf_x_src", "linked_regs_bpf_x_dst"),
            *("linked_regs_broken_link", "precision_many_frames", "precision_two_ids"),
            "linked_regs_too_many_regs",
        )
    ),
    *(
        Change("6.18", What.VERDICT, stem, program, why)
        for stem, program, why in (
            ("iters", "iter_err_too_permissive2", _CONST_KEY),
            ("iters", "iter_err_too_permissive3", _CONST_KEY),
            (
                "preempt_lock",
                "preempt_global_subprog_test",
                "global functions that can't sleep may be called with preemption off",
            ),
            ("verifier_mtu", "tc_uninit_mtu", "what a helper only writes may be uninitialised"),
        )
    ),
    Change(
        "6.18",
        What.VERDICT,
        "verifier_map_ptr",
        "read_non_existent_field_rejected",
        "a map begins with a hash, of which any byte may be read",
    ),
    Change(
        "7.3",
        What.LOG,
        "verifier_global_subprogs",
        "anon_user_mem_invalid",
        "a context is no memory, but for syscall programs",
    ),
    *(
        Change("6.18", What.LOG, "exceptions_assert", f"check_assert_{name}", _UNREAD)
        for name in (
            *("eq_int_min", "eq_int_max", "eq_zero", "eq_llong_min", "eq_llong_max", "lt_pos"),
            *("lt_zero", "lt_neg", "le_pos", "le_zero", "le_neg", "gt_pos", "gt_zero", "gt_neg"),
            *("ge_pos", "ge_zero", "ge_neg"),
        )
    ),
    *(
        Change("7.3", What.VERDICT, "verifier_sockmap_mutate", name, _SOCKMAP)
        for name in (
            *("test_sched_act", "test_sched_cls", "test_flow_dissector_delete"),
            *("test_socket_filter", "test_xdp"),
        )
    ),
    *(
        Change("7.3", What.LOG, "verifier_helper_restricted", f"in_bpf_prog_type_{name}_2", _TIMERS)
        for name in ("kprobe", "tracepoint")
    ),
    *(
        Change("7.3", What.LOG, "verifier_helper_restricted", f"bpf_prog_type_{name}_2", _TIMERS)
        for name in ("perf_event", "raw_tracepoint")
    ),
    *(
        Change("7.3", What.VERDICT, stem, program, why)
        for stem, program, why in (
            *(
                (
                    "verifier_lsm",
                    f"errno_zero_retval_test{number}",
                    "no program can be attached to the hook file_alloc_security",
                )
                for number in (1, 2)
            ),
            ("test_global_func3", "global_func3", "there are 16 frames, not 8"),
            ("test_global_func7", "global_func7", "global functions may return nothing"),
            (
                "verifier_value_illegal_alu",
                "flow_keys_illegal_variable_offset_alu",
                "what a known number divided by another gives is known",
            ),
        )
    ),
    *(
        Change("6.18", What.VERDICT, stem, f"{name} @unpriv", _BARRIER)
        for stem, name in (
            ("verifier_and", "known_subreg_with_unknown_reg"),
            ("verifier_bounds", "_32bit_and_64bit_arithmetic_test1"),
            ("verifier_bounds", "_32bit_and_64bit_arithmetic_test2"),
            ("verifier_bounds", "reg_0_reg_xor_1"),
            ("verifier_bounds", "reg32_0_reg32_xor_1"),
            ("verifier_bounds", "reg_2_reg_xor_3"),
            ("verifier_bounds", "reg_0_reg_xor_3"),
            ("verifier_bounds", "reg32_0_reg32_xor_3"),
            ("verifier_movsx", "mov64sx_s32_varoff_2"),
            ("verifier_movsx", "mov64sx_s32_varoff_3"),
            ("verifier_unpriv", "alu32_mov_u32_const"),
        )
    ),
    *(
        Change("6.18", What.VERDICT, "verifier_value_ptr_arith", f"{name} @unpriv", _NEGATION)
        for name in (
            *("ptr_unknown_vs_unknown_lt", "ptr_unknown_vs_unknown_gt"),
            "value_ptr_unknown_scalar_2_2",
        )
    ),
    *(
        Change(
            "6.18",
            What.LOG,
            "verifier_value_ptr_arith",
            f"{name} @unpriv",
            "a mispredicted path ends where it is wrong, and a real one is refused later",
        )
        for name in ("value_pointer_and_scalar_1", "value_pointer_and_scalar_2")
    ),
    Change(
        "7.3",
        What.LOG,
        "verifier_bounds",
        "bounds_deduct_two_overlaps",
        "a range that wraps in one sign prints no bounds of that sign",
    ),
    *(
        Change("6.18", What.RETVAL, "verifier_array_access", name, _FILLED)
        for name in ("a_read_only_array_1_1", "a_read_only_array_2_1")
    ),
    *(
        Change("6.18", What.RETVAL, "verifier_value_ptr_arith", name, _FILLED)
        for name in (
            *("alu_with_different_scalars_1", "value_ptr_known_scalar_5"),
            *("value_ptr_known_scalar_6", "unknown_scalar_value_ptr_2"),
            *("unknown_scalar_value_ptr_3", "value_ptr_unknown_scalar_2_1"),
        )
    ),
)


def _is_in_force(since: str, kernel: str, written_for: str) -> bool:
    return _AGES.index(written_for) < _AGES.index(since) <= _AGES.index(kernel)


def wordings_of(text: str, kernel: str, written_for: str = OLDEST_TESTS) -> tuple[str, ...]:
    """Return *text* and what replaced it after *written_for* and up to *kernel*, each once."""
    found = [text]
    for row in WORDINGS:
        if not _is_in_force(row.since, kernel, written_for):
            continue
        for known in tuple(found):
            new = _PLUS.sub(lambda m: str(int(m[1]) + 1), re.sub(row.old, _filled(row.new), known))
            if new not in found:
                found.append(new)
    return tuple(found)


_PLUS = re.compile(r"<(\d+)\+1>")


def _filled(template: str) -> str:
    return re.sub(r"<(\d)\+1>", r"<\\\1+1>", template)


def changes_of(
    stem: str, program: str, kernel: str, written_for: str = OLDEST_TESTS
) -> dict[What, Change]:
    """Return what changed for *program* of the object *stem* after *written_for* and up to
    *kernel*; a retval that depends on more than the program always does."""
    return {
        row.what: row
        for row in CHANGES
        if (row.stem, row.program) == (stem, program)
        and (row.what is What.RETVAL or _is_in_force(row.since, kernel, written_for))
    }
