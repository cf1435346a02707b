"""What leaves a frame in the middle: failed packet loads and tail calls; stack limits."""

from __future__ import annotations

import pytest
from walk_kit import check

from bpfvm import vm

LOAD = "r6 = r1\nr0 = *(u8 *)skb[12]\nexit"


def test_which_programs_may_load_from_packets() -> None:
    assert check(LOAD).ok
    assert check(LOAD, "sched_cls").ok
    assert check(LOAD, "xdp").last == (
        "BPF_LD_[ABS|IND] instructions not allowed for this program type"
    )


def test_r6_is_the_context() -> None:
    assert check("r0 = *(u8 *)skb[12]\nexit").last == "R6 !read_ok"
    wrong = check("r6 = 1\nr0 = *(u8 *)skb[12]\nexit")
    assert wrong.last == "at the time of BPF_LD_ABS|IND R6 != pointer to skb"
    assert not check("r6 = r1\nr6 += 4\nr0 = *(u8 *)skb[12]\nexit").ok


def test_what_a_load_leaves() -> None:
    assert check("r6 = r1\nr0 = *(u8 *)skb[0]\nr0 = r1\nexit").last == "R1 !read_ok"
    assert check("r6 = r1\nr0 = *(u8 *)skb[r7 + 0]\nexit").last == "R7 !read_ok"
    used = "r6 = r1\nr0 = *(u8 *)skb[0]\nr1 = r10\nr1 += r0\nr0 = *(u8 *)(r1 - 8)\nexit"
    assert not check(used).ok
    upper = "r6 = r1\nr0 = *(u8 *)skb[0]\nr0 >>= 32\nif r0 == 0 goto +1\nr0 = r9\nexit"
    assert check(upper).last == "R9 !read_ok"


def in_subprog(declared: str, after: str = "r0 = 0") -> str:
    return f"call f\n{after}\nexit\n{declared}\nr6 = r1\nr0 = *(u8 *)skb[0]\nr0 = 7\nexit\n"


def test_subprogs_that_load_return_numbers() -> None:
    assert check(in_subprog(".func f")).last == "LD_ABS is not allowed in subprogs without BTF"
    assert check(in_subprog(".func f ret=int")).ok
    void = check(in_subprog(".func f ret=void"))
    assert void.last == "LD_ABS is only allowed in functions that return 'int'."


def test_a_failed_load_in_a_subprog_returns_zero() -> None:
    text = in_subprog(".func f ret=int", "if r0 != 0 goto +1\nr0 = r9\nr0 = 0")
    assert check(text).last == "R9 !read_ok"
    relied = in_subprog(".func f ret=int", "r1 = r10\nr1 += r0\n*(u8 *)(r1 - 16) = 1\nr0 = 0")
    assert check(relied).ok


TAIL = "r2 = map(progs)\nr3 = 0\ncall bpf_tail_call\n"
PROGS = ".map progs type=prog_array key=4 value=4 entries=2\n"


def tail(text: str, prog_type: str = "socket_filter", kernel: str = "7.3") -> str:
    program = vm.assemble(f"{PROGS}.prog p type={prog_type}\n{text}").programs["p"]
    return program.verify(kernel=kernel).last


def test_tail_calls() -> None:
    assert tail(TAIL + "r0 = 0\nexit") == ""
    assert tail("r1 = 0\n" + TAIL + "r0 = 0\nexit") == "R1 type=scalar expected=ctx"
    assert tail(TAIL + "exit") == "R0 !read_ok"
    other = ".map a type=array key=4 value=4 entries=1\n.prog p\nr2 = map(a)\nr3 = 0\n"
    verdict = vm.assemble(other + "call bpf_tail_call\nr0 = 0\nexit").programs["p"].verify()
    assert verdict.last == "expected prog array map for tail call"


def test_tail_calls_of_subprogs() -> None:
    text = "call f\n{}\nexit\n{}\n" + TAIL + "r0 = 7\nexit"
    assert tail(text.format("", ".func f")) == "tail_call is not allowed in subprogs without BTF"
    assert tail(text.format("", ".func f ret=int")) == ""
    assert tail(text.format("", ".func f ret=void")) == (
        "tail_call is only allowed in functions that return 'int'."
    )
    # What another program returned is in r0 then.
    seven = text.format("if r0 == 7 goto +1\nr0 = r9\nr0 = 0", ".func f ret=int")
    assert tail(seven) == "R9 !read_ok"
    deep = "*(u64 *)(r10 - {}) = 0\n" + text.format("", ".func f ret=int")
    assert tail(deep.format(240)) == ""
    assert tail(deep.format(256)) == (
        "tail_calls are not allowed when call stack of previous frames is 256 bytes. Too large"
    )


def test_marks_go_back_over_an_early_end() -> None:
    """The callee's own r6 is not the caller's."""
    callee = ".func f ret=int\nr6 = 1\nr6 += 1\n" + TAIL + "r0 = 7\nexit"
    text = (
        "r7 = r1\ncall bpf_get_prandom_u32\nr6 = r0\nr6 &= {}\nr1 = r7\ncall f\n"
        "r1 = r10\nr1 += -8\nr1 += r6\n*(u8 *)(r1 + 0) = 1\nr0 = 0\nexit\n" + callee
    )
    for mask in (7, 15):
        program = vm.assemble(f"{PROGS}.prog p flags=8\n" + text.format(mask)).programs["p"]
        assert program.verify().ok == (mask == 7)


def test_neither_is_for_callbacks() -> None:
    loop = "r6 = r1\nr1 = 1\nr2 = func(cb)\nr3 = r10\nr3 += -8\n*(u64 *)(r10 - 8) = r6\nr4 = 0\n"
    loop += "call bpf_loop\nr0 = 0\nexit\n.func cb ret=int\n"
    load = loop + "r6 = *(u64 *)(r2 + 0)\nr0 = *(u8 *)skb[0]\nr0 = 0\nexit"
    assert tail(load) == "cannot use BPF_LD_[ABS|IND] within callback"
    assert tail(load, kernel="6.18") == ""
    call = loop + "r1 = *(u64 *)(r2 + 0)\n" + TAIL + "r0 = 0\nexit"
    assert tail(call) == "cannot tail call within callback"


# -- running -----------------------------------------------------------------------------------

FRAME = bytes(range(64))


@pytest.mark.parametrize("engine", ["interp", "jit"])
def test_loads_run(engine: str) -> None:
    def run(load: str, prog_type: str = "sched_cls") -> int:
        text = f".prog p type={prog_type}\nr6 = r1\nr7 = 3\n{load}\nr0 += 0\nexit"
        return vm.assemble(text).programs["p"].run(engine=engine, data=FRAME).r0

    assert run("r0 = *(u8 *)skb[12]") == 12
    assert run("r0 = *(u16 *)skb[12]") == 0x0C0D
    assert run("r0 = *(u32 *)skb[r7 + 9]") == 0x0C0D0E0F
    assert run("r0 = *(u32 *)skb[60]") == 0x3C3D3E3F
    assert run("r0 = *(u32 *)skb[61]") == 0
    assert run("r0 = *(u8 *)skb[12]", "socket_filter") == 26
    assert run("r0 = *(u8 *)skb[-2097150]", "socket_filter") == 2  # SKF_LL_OFF
    assert run("r0 = *(u8 *)skb[-1048574]", "socket_filter") == 16  # SKF_NET_OFF
    assert run("r0 = *(u8 *)skb[-1]") == 0


@pytest.mark.parametrize("engine", ["interp", "jit"])
def test_a_failed_load_leaves_its_frame_only(engine: str) -> None:
    text = ".prog p type=sched_cls\ncall f\nr0 += 5\nexit\n.func f ret=int\nr6 = r1\n"
    text += "r0 = *(u8 *)skb[{}]\nr0 = 9\nexit"
    for at, result in ((1, 14), (1000, 5)):
        program = vm.assemble(text.format(at)).programs["p"]
        assert program.run(engine=engine, data=FRAME).r0 == result


@pytest.mark.parametrize("engine", ["interp", "jit"])
def test_a_tail_call_to_nothing_goes_on(engine: str) -> None:
    text = f"{PROGS}.prog p type=xdp\n{TAIL}r0 = 5\nexit"
    assert vm.assemble(text).programs["p"].run(engine=engine).r0 == 5


def test_private_stacks() -> None:
    text = (
        "*(u64 *)(r10 - 400) = 0\ncall f\nr0 = 0\nexit\nf:\n*(u64 *)(r10 - 400) = 0\nr0 = 0\nexit"
    )
    assert check(text).last == "combined stack size of 2 calls is 800. Too large"
    assert check(text, "raw_tp").ok
