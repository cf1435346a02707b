"""The interpreter around the operations: frames, budgets, refusals, calls, verified programs."""

from __future__ import annotations

import signal
import time
import types
from concurrent.futures import ThreadPoolExecutor

import pytest
from interp_kit import EXIT, U64, Bench, flat, lddw, op

from bpfvm import isa
from bpfvm.errors import InternalError, LoadError, RunFault
from bpfvm.insn import Insn
from bpfvm.interp import Interpreter
from bpfvm.memory import RegionKind
from bpfvm.program import LineInfo
from bpfvm.proto import ArgType, FuncProto, Registry, RetType, Variant, helper, kfunc
from bpfvm.runtime import FRAME_SIZE, MAX_FRAMES, RunContext
from bpfvm.xlated import CallSite, InsnAux

# -- structure ---------------------------------------------------------------------------------


def _outcome(row: isa.InsnDef) -> str:
    insn = op(row.mnemonic, 1 if "dst" in row.form.fields else 0)
    bench = Bench()
    try:
        bench.run(insn, Insn(0) if row.kind is isa.Kind.LDIMM64 else (), budget=100)
    except (RunFault, LoadError) as error:
        return str(error).partition(" ")[2]
    return "ran"


def test_every_row_runs_or_is_refused_in_a_known_way() -> None:
    kinds = isa.Kind
    for row in isa.TABLE:
        if row.arena:
            continue
        got = _outcome(row)
        match row.kind:
            case kinds.LDX | kinds.LOAD_ACQ:
                assert got == f"0: invalid read of {row.size} bytes at 0x0"
            case kinds.ST | kinds.STX | kinds.STORE_REL | kinds.ATOMIC:
                assert got == f"0: invalid write of {row.size} bytes at 0x0"
            case kinds.CAST_KERN | kinds.CAST_USER:
                assert got == "0: addr_space_cast without an arena"
            case kinds.LD_ABS | kinds.LD_IND:
                assert got == "0: no packet to load from"
            case kinds.CALL if row.op is isa.CallKind.LOCAL:
                assert got == "ran"  # the call's target is the exit
            case kinds.CALL | kinds.CALLX:
                assert got.startswith("0: unknown ")
            case kinds.LDIMM64 if row.op is not isa.LdKind.IMM64:
                assert got.startswith(("0: not supported", "0: no map", "0: jump into"))
            case _:
                assert got == "ran", row.mnemonic


@pytest.mark.parametrize(
    ("insns", "complaint"),
    [
        ([Insn(0xFF), EXIT], "insn 0: unknown opcode ff"),
        ([op("arena_ldxw", 0, 1), EXIT], "insn 0: unknown opcode a1"),
        ([op("ja", off=5), EXIT], "jump out of range from insn 0 to 6"),
        ([op("mov_imm", 10), EXIT], "insn 0: frame pointer is read only"),
        ([op("lock_fetch_add", 1, 10), EXIT], "insn 0: frame pointer is read only"),
        ([op("mov_imm", 0)], "last insn is not an exit or jmp"),
        ([op("lddw_map_idx", 1, imm=1), Insn(0), EXIT], "insn 0: no map number 1"),
        ([op("lddw_map_idx", 1, imm=-1), Insn(0), EXIT], "insn 0: no map number -1"),
        ([op("lddw_map_fd", 1, imm=1), Insn(0), EXIT], "insn 0: not supported: lddw_map_fd"),
    ],
)
def test_programs_without_meaning_do_not_link(insns: list[Insn], complaint: str) -> None:
    bench = Bench()
    with pytest.raises(LoadError) as error:
        Interpreter().link(bench.xlated(insns), bench.machine)
    assert str(error.value) == complaint


def test_cmpxchg_may_store_the_frame_pointer() -> None:
    bench = Bench()
    got = bench.run(op("lock_cmpxchg", 10, 10, off=-8), op("ldxdw", 0, 10, off=-8))
    assert got == bench.stack_top


@pytest.mark.parametrize("name", ["ldabsw", "ldindb"])
def test_packet_loads_need_a_packet(name: str) -> None:
    with pytest.raises(RunFault) as error:
        Bench().run(op("mov_imm", 0), op(name))
    assert error.value.pc == 1
    assert error.value.reason == "no packet to load from"


# -- local calls -------------------------------------------------------------------------------


def test_local_call_keeps_r6_to_r9_and_clears_the_rest() -> None:
    # main: r6 = 60, r7 = 70, r1 = 5; r0 = f(r1); r0 = r0 + r6 + r7 + r1 + r5
    insns = flat(
        op("mov_imm", 6, imm=60),
        op("mov_imm", 7, imm=70),
        op("mov_imm", 1, imm=5),
        op("mov_imm", 5, imm=1000),
        op("call_local", imm=5),
        op("add_reg", 0, 6),
        op("add_reg", 0, 7),
        op("add_reg", 0, 1),
        op("add_reg", 0, 5),
        EXIT,
        # f: r0 = r1 * 2 + r6 (0 here); r6 = 1
        op("mov_reg", 0, 1),
        op("add_reg", 0, 1),
        op("add_reg", 0, 6),
        op("mov_imm", 6, imm=1),
        op("mov_imm", 1, imm=9999),
        EXIT,
    )
    bench = Bench()
    assert bench.run_xlated(bench.xlated(insns)) == 10 + 60 + 70


def test_frames_have_their_own_zeroed_stack() -> None:
    # main stores 7 at fp-8, calls f twice; f returns what is at its own fp-8, then dirties it.
    insns = flat(
        op("stdw", 10, off=-8, imm=7),
        op("call_local", imm=4),
        op("mov_reg", 6, 0),
        op("call_local", imm=2),
        op("add_reg", 0, 6),
        EXIT,
        op("ldxdw", 0, 10, off=-8),
        op("stdw", 10, off=-8, imm=99),
        EXIT,
    )
    bench = Bench()
    bench.stack.view[:] = b"\xaa" * bench.stack.size
    assert bench.run_xlated(bench.xlated(insns)) == 0
    assert bench.stack.view[-8] == 7
    assert bench.stack.view[-FRAME_SIZE - 8] == 99


def test_callee_reaches_the_callers_stack() -> None:
    insns = flat(
        op("mov_reg", 1, 10),
        op("add_imm", 1, imm=-8),
        op("call_local", imm=2),
        op("ldxdw", 0, 10, off=-8),
        EXIT,
        op("stdw", 1, imm=42),
        EXIT,
    )
    bench = Bench()
    assert bench.run_xlated(bench.xlated(insns)) == 42


def _recursion() -> tuple[Insn, ...]:
    # r0 = 1 + f(r1 - 1) down to r1 == 0, where f is the program itself.
    return flat(
        op("jeq_imm", 1, off=4, imm=0),
        op("sub_imm", 1, imm=1),
        op("call_local", imm=-3),
        op("add_imm", 0, imm=1),
        EXIT,
        op("mov_imm", 0, imm=1),
        EXIT,
    )


def test_sixteen_frames_are_allowed_and_one_more_is_not() -> None:
    bench = Bench()
    assert bench.run_xlated(bench.xlated(_recursion()), MAX_FRAMES - 1) == MAX_FRAMES
    with pytest.raises(RunFault) as error:
        bench.run_xlated(bench.xlated(_recursion()), MAX_FRAMES)
    assert error.value.pc == 2
    assert error.value.reason == "call stack deeper than 16 frames"


def test_an_executable_can_run_again_after_a_fault() -> None:
    bench = Bench()
    xlated = bench.xlated(_recursion())
    linked = Interpreter().link(xlated, bench.machine)
    run = bench.context(xlated)
    with pytest.raises(RunFault):
        linked.run(run, 100)
    assert linked.run(run, 3) == 4
    assert run.callers == []


def test_one_linked_program_runs_on_several_threads() -> None:
    bench = Bench()
    xlated = bench.xlated(_recursion())
    linked = Interpreter().link(xlated, bench.machine)

    def run(depth: int) -> int:
        stack = bench.space.add(FRAME_SIZE * MAX_FRAMES, RegionKind.STACK)
        own = RunContext(bench.machine, xlated.program, stack.base + stack.size)
        return sum(linked.run(own, depth) for _ in range(200))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(run, range(8))) == [200 * (n + 1) for n in range(8)]


# -- budget ------------------------------------------------------------------------------------


def test_budget_is_charged_by_basic_block() -> None:
    insns = flat(
        op("mov_imm", 0, imm=0),  # block of 3 insns: an ldimm64 is one
        lddw(2, 1 << 40),
        op("ja", off=0),
        op("add_imm", 0, imm=1),  # block of 2
        op("jlt_imm", 0, off=-2, imm=4),
        EXIT,
    )
    bench = Bench()
    assert bench.run_xlated(bench.xlated(insns), budget=3 + 4 * 2 + 1) == 4
    assert bench.last is not None
    assert bench.last.budget == 0
    with pytest.raises(RunFault) as error:
        bench.run_xlated(bench.xlated(insns), budget=3 + 4 * 2)
    assert (error.value.pc, error.value.reason) == (6, "budget of insns exceeded")
    with pytest.raises(RunFault) as error:
        bench.run_xlated(bench.xlated(insns), budget=3 + 2 * 2 + 1)
    assert error.value.pc == 4
    assert bench.last.budget == 1


def test_an_endless_loop_ends_with_its_budget() -> None:
    with pytest.raises(RunFault, match="budget of insns exceeded"):
        Bench().run(op("ja", off=-1), budget=10_000)


def test_a_keyboard_interrupt_gets_through() -> None:
    def interrupt(_signum: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(KeyboardInterrupt):
            Bench().run(op("ja", off=-1))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# -- may_goto ----------------------------------------------------------------------------------


def test_may_goto_falls_through_as_often_as_allowed_then_jumps_and_reports() -> None:
    insns = flat(
        op("add_imm", 0, imm=1),
        op("may_goto", off=1),
        op("ja", off=-3),
        EXIT,
    )
    bench = Bench()
    assert bench.run_xlated(bench.xlated(insns), may_goto_limit=5) == 6
    assert bench.last is not None
    text = bench.last.stderr.data.decode()
    assert text.startswith("ERROR: Timeout detected for may_goto instruction\nCPU: 0 UID: ")
    assert "Call trace:\nmain+0x8/0x20\n\n" in text
    assert text.count("ERROR") == 1


def test_may_gotos_of_one_frame_share_a_counter_and_frames_do_not() -> None:
    # f uses up one of its two; main's own two are then both left.
    insns = flat(
        op("call_local", imm=6),
        op("may_goto", off=4),
        op("add_imm", 0, imm=1),
        op("may_goto", off=2),
        op("add_imm", 0, imm=1),
        op("may_goto", off=0),
        EXIT,
        op("mov_imm", 0, imm=0),
        op("may_goto", off=1),
        op("add_imm", 0, imm=10),
        EXIT,
    )
    bench = Bench()
    assert bench.run_xlated(bench.xlated(insns), may_goto_limit=2) == 12
    assert bench.last is not None
    assert bench.last.stderr.data.count(b"Timeout") == 1


def test_a_callee_has_a_loop_budget_of_its_own() -> None:
    insns = flat(
        op("may_goto", off=2),
        op("call_local", imm=2),
        EXIT,
        EXIT,
        op("mov_imm", 0, imm=1),  # the callee
        op("may_goto", off=1),
        op("mov_imm", 0, imm=2),
        EXIT,
    )
    bench = Bench()
    assert bench.run_xlated(bench.xlated(insns), may_goto_limit=1) == 2


# -- memory ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_regions_have_exact_bounds(size: int) -> None:
    bench = Bench()
    region = bench.space.add(40, RegionKind.CTX)
    name = {1: "b", 2: "h", 4: "w", 8: "dw"}[size]
    load, store = op(f"ldx{name}", 0, 1), op(f"stx{name}", 1, 2)
    for at in range(-9, 50):
        inside = at >= 0 and at + size <= 40
        for insn, how in ((load, "read"), (store, "write")):
            addr = region.base + at
            if inside:
                bench.run(insn, r1=addr, r2=1)
                continue
            with pytest.raises(RunFault) as error:
                bench.run(op("mov_imm", 0), insn, r1=addr)
            assert error.value.pc == 1
            assert error.value.reason == f"invalid {how} of {size} bytes at {addr:#x}"


def test_elements_of_a_strided_region() -> None:
    bench = Bench()
    region = bench.space.add(32, RegionKind.MAP_VALUE, stride=16, elem_size=12)
    assert bench.run(op("ldxw", 0, 1), r1=region.base + 8) == 0
    assert bench.run(op("ldxw", 0, 1), r1=region.base + 24) == 0
    for at in (9, 12, 14, 25):
        with pytest.raises(RunFault, match="invalid read of 4 bytes"):
            bench.run(op("ldxw", 0, 1), r1=region.base + at)


def test_read_only_regions() -> None:
    bench = Bench()
    region = bench.space.add(8, RegionKind.MAP_VALUE, writable=False)
    assert bench.run(op("ldxdw", 0, 1), r1=region.base) == 0
    assert bench.run(op("load_acquire64", 0, 1), r1=region.base) == 0
    for insn in (
        op("stdw", 1),
        op("stxdw", 1, 2),
        op("lock_add", 1, 2),
        op("lock_cmpxchg", 1, 2),
        op("store_release64", 1, 2),
    ):
        with pytest.raises(RunFault, match="invalid write of 8 bytes"):
            bench.run(insn, r1=region.base)


def test_one_permitted_access_does_not_permit_the_next() -> None:
    bench = Bench()
    read_only = bench.space.add(8, RegionKind.MAP_VALUE, writable=False)
    strided = bench.space.add(32, RegionKind.MAP_VALUE, stride=16, elem_size=8)
    for addr, refused in ((read_only.base, op("stb", 1)), (strided.base, op("ldxb", 0, 1, off=8))):
        with pytest.raises(RunFault) as error:
            bench.run(op("ldxb", 0, 1), refused, r1=addr)
        assert error.value.pc == 1


def test_a_region_removed_by_a_helper_is_gone_at_once() -> None:
    @helper(904, RetType.INTEGER, (ArgType.ANYTHING,))
    def drop(run: RunContext, addr: int) -> int:
        space = run.machine.space
        region = space.find(addr, 1, write=False)
        assert region is not None
        space.remove(region)
        return 0

    module = types.ModuleType("drop_only")
    module.__dict__["drop"] = drop
    bench = Bench(Registry([module]))
    region = bench.space.add(8, RegionKind.PACKET)
    keep = op("mov_reg", 6, 1)
    with pytest.raises(RunFault) as error:
        bench.run(keep, op("stb", 6), op("call_helper", imm=904), op("stb", 6), r1=region.base)
    assert error.value.pc == 3


def test_a_region_removed_between_runs_is_gone() -> None:
    bench = Bench()
    region = bench.space.add(8, RegionKind.PACKET)
    xlated = bench.xlated((op("ldxb", 0, 1), op("ldxb", 0, 1), EXIT))
    linked = Interpreter().link(xlated, bench.machine)
    assert linked.run(bench.context(xlated), region.base) == 0
    bench.space.remove(region)
    with pytest.raises(RunFault, match="invalid read of 1 bytes"):
        linked.run(bench.context(xlated), region.base)


def test_addresses_wrap_at_64_bits() -> None:
    bench = Bench()
    region = bench.space.add(8, RegionKind.CTX)
    base = lddw(1, (region.base + 0x8000) % U64)
    assert bench.run(base, op("ldxdw", 0, 1, off=-0x8000)) == 0
    with pytest.raises(RunFault, match="at 0xfffffffffffffff8"):
        bench.run(op("ldxdw", 0, 1, off=-8))
    with pytest.raises(RunFault, match="at 0x7"):
        bench.run(op("ldxdw", 0, 1, off=8), r1=U64 - 1)


# -- helpers and kfuncs ------------------------------------------------------------------------


@helper(900, RetType.INTEGER, (ArgType.ANYTHING,) * 5)
def five_args(run: RunContext, a: int, b: int, c: int, d: int, e: int) -> int:
    return a + 10 * b + 100 * c + 1000 * d + 10000 * e + 100000 * run.pc


@helper(901, RetType.INTEGER)
def failing(run: RunContext) -> int:
    return -22


@helper(902, RetType.INTEGER, (ArgType.ANYTHING,))
def reader(run: RunContext, addr: int) -> int:
    return run.read(addr, 4)[0]


def _atomic_variant(run: RunContext) -> int:
    return 2


@kfunc(RetType.INT32, (), non_sleepable=_atomic_variant)
def variants(run: RunContext) -> int:
    return -1


_MODULE = types.ModuleType("test_functions")
_MODULE.__dict__.update(five_args=five_args, failing=failing, reader=reader, variants=variants)
REGISTRY = Registry([_MODULE])


@pytest.fixture
def calls() -> Bench:
    return Bench(REGISTRY)


def test_helpers_take_r1_to_r5(calls: Bench) -> None:
    args = [op("mov_imm", n, imm=n) for n in range(1, 6)]
    assert calls.run(args, op("call_helper", imm=900)) == 554321


def test_registers_after_a_helper_call(calls: Bench) -> None:
    sets = [op("mov_imm", n, imm=n) for n in range(1, 10)]
    for reg in range(1, 10):
        got = calls.run(sets, op("call_helper", imm=901), op("mov_reg", 0, reg))
        assert got == (reg if reg >= 6 else 0)
    assert calls.run(op("call_helper", imm=901)) == U64 - 22


def test_callx_takes_the_helpers_number_from_a_register(calls: Bench) -> None:
    assert calls.run(op("mov_imm", 7, imm=901), op("callx", 7)) == U64 - 22
    with pytest.raises(RunFault) as error:
        calls.run(op("mov_imm", 7, imm=5000), op("callx", 7))
    assert (error.value.pc, error.value.reason) == (1, "unknown helper 5000")


def test_unknown_helpers_and_kfuncs_end_the_run_only_when_called(calls: Bench) -> None:
    assert calls.run(op("ja", off=1), op("call_helper", imm=77)) == 0
    with pytest.raises(RunFault) as error:
        calls.run(op("mov_imm", 0), op("call_helper", imm=77))
    assert (error.value.pc, error.value.reason) == (1, "unknown helper 77")
    xlated = calls.xlated((op("call_kfunc", imm=0), EXIT), kfuncs=("bpf_missing",))
    with pytest.raises(RunFault, match="unknown kfunc bpf_missing"):
        calls.run_xlated(xlated)
    with pytest.raises(RunFault, match="unknown kfunc 3"):
        calls.run_xlated(calls.xlated((op("call_kfunc", imm=3), EXIT)))


def test_kfunc_variants_follow_the_programs_context(calls: Bench) -> None:
    insns = (op("call_kfunc", imm=0), EXIT)
    for sleepable, expected in ((True, 2**32 - 1), (False, 2)):
        xlated = calls.xlated(insns, kfuncs=("variants",), sleepable=sleepable)
        assert calls.run_xlated(xlated) == expected  # an int leaves 32 bits


def test_a_helpers_memory_is_checked(calls: Bench) -> None:
    calls.stack.view[-4:] = bytes(4)
    program = (
        op("stb", 10, off=-4, imm=9),
        op("mov_reg", 1, 10),
        op("add_imm", 1, imm=-4),
        op("call_helper", imm=902),
    )
    assert calls.run(program) == 9
    with pytest.raises(RunFault) as error:
        calls.run(op("mov_imm", 1, imm=16), op("call_helper", imm=902))
    assert (error.value.pc, error.value.reason) == (1, "helper may not read 4 bytes at 0x10")


# -- verified programs -------------------------------------------------------------------------


def test_a_refused_access_of_a_verified_program_is_a_bug() -> None:
    with pytest.raises(InternalError, match="pc 1: invalid read of 8 bytes at 0x10"):
        Bench().run_verified(op("mov_imm", 1, imm=16), op("ldxdw", 0, 1))


def test_an_unseen_slot_traps() -> None:
    with pytest.raises(InternalError, match="pc 2: the verifier found no way here"):
        Bench().run_verified(
            op("jeq_imm", 1, off=1, imm=0),
            op("mov_imm", 0, imm=1),
            op("mov_imm", 0, imm=2),
            aux=lambda slot: InsnAux(seen=slot != 2),
        )


def test_running_off_the_end_is_a_bug() -> None:
    bench = Bench()
    with pytest.raises(InternalError, match="pc 1: ran off the end of the program"):
        bench.run_xlated(bench.xlated((op("mov_imm"),), verified=True))


def test_the_second_slot_of_ldimm64_needs_no_mark() -> None:
    got = Bench().run_verified(lddw(0, 5), aux=lambda slot: InsnAux(seen=slot != 1))
    assert got == 5


def test_verified_calls_run_what_the_verifier_chose() -> None:
    proto: FuncProto = REGISTRY.kfuncs["variants"]
    site = CallSite(proto, Variant.NON_SLEEPABLE, sleepable=False)
    bench = Bench()  # whose registry knows nothing
    got = bench.run_verified(op("call_kfunc"), aux=lambda slot: InsnAux(call=site))
    assert got == 2


def test_a_cast_left_by_the_verifier_is_a_bug() -> None:
    with pytest.raises(InternalError, match="pc 0: addr_space_cast without an arena"):
        Bench().run_verified(op("cast_user", 0, 1))


# -- reports -----------------------------------------------------------------------------------


def test_stack_dumps_name_the_open_calls_and_source_lines() -> None:
    seen: list[bytes] = []

    @helper(903, RetType.INTEGER)
    def dump(run: RunContext) -> int:
        seen.append(run.stack_dump(run.pc, run.callers))
        return 0

    module = types.ModuleType("dump_only")
    module.__dict__["dump"] = dump
    bench = Bench(Registry([module]))
    insns = flat(
        op("mov_imm", 0),
        op("call_local", imm=1),
        EXIT,
        op("call_local", imm=1),
        EXIT,
        op("call_helper", imm=903),
        EXIT,
    )
    lines = (LineInfo(0, "dir/a.c", 3, 1, "  int x = 0;"), LineInfo(1, "dir/a.c", 4, 1, "f();"))
    bench.run_xlated(bench.xlated(insns, line_info=lines))
    text = seen[0].decode().split("Call trace:\n")[1]
    frames = [line for line in text.splitlines() if line and not line.startswith("  ")]
    assert frames == ["subprog_5+0x0/0x10", "subprog_3+0x0/0x10", "main+0x8/0x18"]
    assert "main+0x8/0x18\n  f(); @ a.c:4\n" in text


def test_linking_a_long_program_is_quick_and_lazy() -> None:
    bench = Bench()
    body = [op("add_imm", 0, imm=1), op("jeq_imm", 0, off=0, imm=0)] * 2500
    xlated = bench.xlated(flat(op("ja", off=len(body)), body, EXIT))
    start = time.perf_counter()
    linked = Interpreter().link(xlated, bench.machine)
    assert linked.run(bench.context(xlated), 0) == 0
    assert time.perf_counter() - start < 2  # takes 0.05 s where nothing else runs
