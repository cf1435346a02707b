"""Programs that throw: what may be open then, who handles it, and what the run gives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import walk_kit
from walk_kit import build

from bpfvm import vm
from bpfvm.xlated import Verdict

THROW = "r1 = 64\ncall bpf_throw\n"
HANDLER = "\n.func handler global args=u64\n"


def check(text: str, **changes: Any) -> Verdict:  # noqa: ANN401
    """Return the verdict on a program of a type that may throw."""
    return walk_kit.check(text, "sched_cls", **changes)


def test_which_types_may_throw() -> None:
    refused = walk_kit.check(THROW + "exit", "socket_filter")
    assert refused.last == "calling kernel function bpf_throw is not allowed"


def handled(body: str = THROW + "exit", handler: str = "r0 = r1\nexit", head: str = HANDLER) -> str:
    """Return a program with an exception callback."""
    return f".func p ret=int exception=handler\n{body}{head}{handler}\n"


def test_a_throw_ends_the_path() -> None:
    assert check(THROW + "r0 = r9\nexit").ok
    assert check("r1 = r10\ncall bpf_throw\nexit").last == "R1 is not a scalar"
    deep = "call f\nr0 = 0\nexit\nf:\n" + THROW + "exit"
    assert check(deep).ok


def test_nothing_may_be_held() -> None:
    rcu = "call bpf_rcu_read_lock\n" + THROW + "exit"
    assert check(rcu).last == "bpf_throw cannot be used inside bpf_rcu_read_lock-ed region"
    callee = "call bpf_rcu_read_lock\ncall f\nexit\nf:\n" + THROW + "exit"
    assert check(callee).last == "bpf_throw cannot be used inside bpf_rcu_read_lock-ed region"


def test_a_global_subprog_may_throw_where_nothing_is_held() -> None:
    body = "\n.func f global\n" + THROW + "exit"
    assert check("call f\nr0 = 0\nexit" + body).ok
    held = "call bpf_rcu_read_lock\ncall f\ncall bpf_rcu_read_unlock\nr0 = 0\nexit" + body
    assert check(held).last == "bpf_throw cannot be used inside bpf_rcu_read_lock-ed region"
    assert check(held, kernel="6.18").ok


def test_callbacks_may_not_throw() -> None:
    text = "r1 = 1\nr2 = func(cb)\nr3 = 0\nr4 = 0\ncall bpf_loop\nr0 = 0\nexit\n.func cb ret=int\n"
    told = "bpf_throw kfunc (insn {}) cannot be called from callback subprog {}"
    assert check(text + THROW + "exit").last == told.format(9, 1)
    through = text + "call f\nr0 = 0\nexit\n.func f ret=int\n" + THROW + "exit"
    assert check(through).last == told.format(12, 2)


def test_who_may_handle() -> None:
    assert check(handled()).ok
    static = handled(head="\n.func handler args=u64\n")
    assert check(static).last == "exception callback 'handler' must have global linkage"
    for args in ("", "u64,u64", "mem:8"):
        wrong = handled(head=f'\n.func handler global args="{args}"\n', handler="r0 = 0\nexit")
        assert check(wrong).last == "exception cb only supports single integer argument"
    void = handled(head="\n.func handler global args=u64 ret=void\n")
    assert check(void).last == "exception cb cannot return void"
    assert check(handled(handler="r0 = r9\nexit")).last == "R9 !read_ok"
    again = check(handled(handler=THROW + "exit"))
    assert again.last.startswith("bpf_throw kfunc (insn ")
    called = check(handled("r1 = 1\ncall handler\nr0 = 0\nexit"))
    assert called.last == "insn 1 cannot call exception cb directly"


def test_more_than_one_handler() -> None:
    program = build(handled())
    main, *rest = program.subprogs
    both = replace(main, exception_callbacks=frozenset({"handler", "other"}))
    verdict = check(handled(), subprogs=(both, *rest))
    assert verdict.last == "multiple exception callback tags for main subprog"
    missing = replace(main, exception_callbacks=frozenset({"other"}))
    verdict = check(handled(), subprogs=(missing, *rest))
    assert verdict.last == "exception callback 'other' could not be found in BTF"


# -- running -----------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["interp", "jit"])
@pytest.mark.parametrize("verify", [True, False])
def test_the_thrown_value_is_the_result(engine: str, verify: bool) -> None:
    def run(text: str) -> int:
        program = vm.assemble(f".prog p type=syscall\n{text}").programs["p"]
        return program.run(engine=engine, verify=verify).r0

    assert run(THROW + "r0 = 1\nexit") == 64
    deep = "call f\nr0 = 1\nexit\n.func f ret=int\ncall g\nr0 = 2\nexit\n.func g ret=int\n"
    assert run(deep + THROW + "exit") == 64
    more = "*(u64 *)(r10 - 8) = r1\nr0 = *(u64 *)(r10 - 8)\nr0 += 1\nexit"
    assert run(handled(deep + THROW + "exit", more)) == 65
    assert run(handled("r0 = 3\nexit")) == 3
