"""Locks between runs in threads, and what map operations leave of them."""

from __future__ import annotations

import threading
import time
from errno import EDEADLK, EINVAL, ETIMEDOUT

import pytest

from bpfvm import vm
from bpfvm.errors import RunFault
from bpfvm.locktable import LockTable
from bpfvm.maps.array import ArrayMap
from bpfvm.maps.base import BPF_F_LOCK
from bpfvm.maps.hash import HashMap
from bpfvm.runtime import RunContext

COUNT = """
.map shared type=array key=4 value=16 entries=1 fields=bpf_spin_lock@8
.prog count type=sched_cls license=GPL
r8 = 0
again:
*(u32 *)(r10 - 4) = 0
r1 = map(shared)
r2 = r10
r2 += -4
call bpf_map_lookup_elem
if r0 == 0 goto out
r6 = r0
r1 = r6
r1 += 8
call bpf_spin_lock
r7 = *(u64 *)(r6 + 0)
r7 += 1
*(u64 *)(r6 + 0) = r7
r1 = r6
r1 += 8
call bpf_spin_unlock
r8 += 1
if r8 < 200 goto again
out:
r0 = 0
exit
"""
RES = """
.map shared type=array key=4 value=16 entries=2 fields=bpf_res_spin_lock@0
.prog p type=sched_cls license=GPL
*(u32 *)(r10 - 4) = 0
r1 = map(shared)
r2 = r10
r2 += -4
call bpf_map_lookup_elem
if r0 == 0 goto out
r6 = r0
{body}
out:
r0 = 0
exit
"""


@pytest.fixture(params=vm.ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_threads_take_turns(engine: str) -> None:
    obj = vm.assemble(COUNT)
    prog = obj.programs["count"]
    prog.run(engine=engine)  # links it
    threads = [threading.Thread(target=lambda: prog.run(engine=engine)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert int.from_bytes(obj.maps["shared"][0][:8], "little") == 5 * 200


def test_a_lock_keeps_others_waiting() -> None:
    table, first, second = LockTable(), object(), object()
    assert table.acquire(8, first) == 0
    done: list[int] = []
    thread = threading.Thread(target=lambda: done.append(table.acquire(8, second)))
    thread.start()
    time.sleep(0.05)
    assert not done
    assert not table.release(8, second)
    assert table.release(8, first)
    thread.join(5)
    assert done == [0]


def test_deadlocks_and_time_outs_are_found() -> None:
    table, first, second = LockTable(), object(), object()
    table.acquire(8, first)
    table.acquire(16, second)
    assert table.acquire(16, first, timeout_s=0.01) == ETIMEDOUT
    thread = threading.Thread(target=lambda: table.acquire(8, second))
    thread.start()
    time.sleep(0.05)
    assert table.acquire(16, first, timeout_s=5) == EDEADLK
    table.release(8, first)
    thread.join(5)


def test_a_resilient_lock(engine: str) -> None:
    body = """
r1 = r6
call bpf_res_spin_lock
if r0 != 0 goto out
r1 = r6
call bpf_res_spin_unlock
r0 = 5
exit
"""
    (prog,) = vm.assemble(RES.format(body=body)).programs.values()
    assert prog.run(engine=engine, repeat=3).r0 == 5


def test_a_resilient_lock_taken_twice_is_an_error_in_the_sandbox(engine: str) -> None:
    body = "r1 = r6\ncall bpf_res_spin_lock\nr1 = r6\ncall bpf_res_spin_lock\nexit"
    (prog,) = vm.assemble(RES.format(body=body)).programs.values()
    for _ in range(2):  # what the first run left locked is free for the second
        result = prog.run(engine=engine, verify=False)
        assert result.r0 == 2**64 - EDEADLK
        assert b"AA or ABBA deadlock detected for bpf_res_spin_lock" in result.stderr


def test_a_failed_lock_leaves_the_flags_slot_alone(engine: str) -> None:
    # Two lookups of one element are two locks for the verifier, and a deadlock for a run. Where
    # the lock is not had, the verifier knows what the slot held before.
    body = """
*(u32 *)(r10 - 4) = 0
r1 = map(shared)
r2 = r10
r2 += -4
call bpf_map_lookup_elem
if r0 == 0 goto out
r7 = r0
r1 = r6
call bpf_res_spin_lock
if r0 != 0 goto out
*(u64 *)(r10 - 16) = r7
r1 = r7
r2 = r10
r2 += -16
call bpf_res_spin_lock_irqsave
r8 = r0
if r0 == 0 goto taken
r3 = *(u64 *)(r10 - 16)
r4 = *(u32 *)(r3 + 8)
goto done
taken:
r1 = r7
r2 = r10
r2 += -16
call bpf_res_spin_unlock_irqrestore
done:
r1 = r6
call bpf_res_spin_unlock
r0 = r8
exit
"""
    (prog,) = vm.assemble(RES.format(body=body)).programs.values()
    assert prog.run(engine=engine).r0 == 2**64 - EDEADLK


def test_a_held_lock_ends_a_sandbox_run(engine: str) -> None:
    obj = vm.assemble(COUNT.replace("call bpf_spin_unlock", "call bpf_spin_lock"))
    seen: list[RunContext] = []
    for _ in range(2):
        with pytest.raises(RunFault, match="held by this run already"):
            obj.programs["count"].run(engine=engine, verify=False, setup=seen.append)
    assert seen[0].held == []


def test_a_lock_that_is_not_held(engine: str) -> None:
    (prog,) = vm.assemble(
        ".prog p type=sched_cls license=GPL\nr1 = 8\ncall bpf_spin_unlock\nexit"
    ).programs.values()
    with pytest.raises(RunFault, match="is not held"):
        prog.run(engine=engine, verify=False)


def test_user_space_neither_sees_nor_writes_locks() -> None:
    obj = vm.assemble(COUNT)
    shared = obj.maps["shared"]
    assert isinstance(shared, ArrayMap)
    shared.region.view[8:12] = b"\x01\0\0\0"  # as if it were locked
    shared[0] = b"\xff" * 16
    assert shared[0] == b"\xff" * 8 + b"\0" * 4 + b"\xff" * 4
    assert shared.region.view[8] == 1


@pytest.mark.parametrize(("kind", "old"), [("hash", True), ("hash", False), ("array", True)])
def test_update_under_the_values_lock(kind: str, old: bool) -> None:
    text = (
        f".map m type={kind} key=4 value=8 entries=2 fields=bpf_spin_lock@0\n"
        f".map n type={kind} key=4 value=8 entries=2\n"
        ".prog p\nr0 = 0\nexit"
    )
    obj = vm.assemble(text)
    found, plain = obj.maps["m"], obj.maps["n"]
    assert isinstance(found, ArrayMap | HashMap)
    if old:
        found[0] = 0
    value = b"\x11" * 8
    assert found.update_elem(bytes(4), value, BPF_F_LOCK) == 0
    assert found[0] == bytes(4) + b"\x11" * 4
    assert plain.update_elem(bytes(4), value, BPF_F_LOCK) == -EINVAL
