"""Exceptions: the program's exception callback, and the kfunc that ends all frames at once.

Rules: Linux 6.18 (bpf_find_exception_callback_insn_off, check_kfunc_call) and 7.3.
"""

from __future__ import annotations

from bpfvm.program import Linkage, Program
from verifier.env import PATH_END, Env
from verifier.exits import check_thrown
from verifier.prototype import ArgKind, GlobalArg
from verifier.reasons import Reason, Reject
from verifier.resources import check_resource_leak

__all__ = ["check_callback", "find_callback", "throw"]


def find_callback(program: Program) -> int | None:
    """Return the first slot of the exception callback, or None.

    Raises:
        Reject: what the program names can't be one.
    """
    names = program.subprogs[0].exception_callbacks if program.subprogs else frozenset()
    if not names:
        return None
    if len(names) > 1:
        raise Reject(Reason.EXCEPTION_MULTIPLE)
    (name,) = names
    callback = program.exception_callback
    if callback is None:
        raise Reject(Reason.EXCEPTION_NOT_FOUND, name=name)
    if callback.linkage is not Linkage.GLOBAL:
        raise Reject(Reason.EXCEPTION_NOT_GLOBAL, name=name)
    return callback.start


def check_callback(env: Env, number: int, args: tuple[GlobalArg, ...]) -> None:
    """Check the prototype of the exception callback."""
    if env.rules.void_globals and env.subprogs[env.cfg.starts[number]].ret is None:
        raise Reject(Reason.EXCEPTION_VOID)
    if [arg.kind for arg in args] != [ArgKind.SCALAR]:
        raise Reject(Reason.EXCEPTION_ARGS)


def throw(env: Env, idx: int) -> int:
    """End the path at a throw, whose arguments are checked."""
    if env.cfg.exception_callback is None:
        check_thrown(env)
    check_resource_leak(env, "bpf_throw", is_throw=True)
    env.stack_live.commit(env.cur, idx)
    env.stack_live.update(env.cur)
    return PATH_END
