"""The log in the kernel's format, to the byte."""

from __future__ import annotations

from walk_kit import check

from bpfvm.program import LineInfo

TAIL = "max_states_per_insn {} total_states {} peak_states {} mark_read 0\n"


def processed(insns: int, *states: int) -> str:
    return f"processed {insns} insns (limit 1000000) " + TAIL.format(*states or (0, 0, 0))


def test_level_0_is_silent_and_keeps_the_complaint() -> None:
    verdict = check("exit", log_level=0)
    assert verdict.log == ""
    assert (verdict.last, verdict.errno, verdict.reason) == ("R0 !read_ok", 13, "not_readable")


def test_level_1_of_an_accepted_program_is_the_summary() -> None:
    text = "r0 = *(u32 *)(r1 + 0)\nif r0 == 0 goto +1\nr0 = 1\nexit"
    verdict = check(text)
    assert verdict.ok
    assert verdict.log.splitlines()[-1] + "\n" == processed(5)


def test_level_1_of_a_rejected_program_is_the_failing_path() -> None:
    verdict = check("r2 = r10\nr2 += -8\n*(u64 *)(r2 + 0) = r1\nr0 = r3\nexit")
    assert verdict.log == (
        "0: R1=ctx() R10=fp0\n"
        "0: (bf) r2 = r10                      ; R2=fp0 R10=fp0\n"
        "1: (07) r2 += -8                      ; R2=fp-8\n"
        "2: (7b) *(u64 *)(r2 +0) = r1          ; R1=ctx() R2=fp-8 fp-8=ctx()\n"
        "3: (bf) r0 = r3\n"
        "R3 !read_ok\n" + processed(4)
    )


def test_level_1_goes_back_to_the_fork_and_loses_a_line_end() -> None:
    verdict = check("r0 = *(u32 *)(r1 + 0)\nif r0 == 0 goto +2\nr0 = 1\nexit\nr0 = r3\nexit")
    assert "1: (15) if r0 == 0x0 goto pc+2 4: R0=0 R1=ctx() R10=fp0\n" in verdict.log
    assert "2: (b7) r0 = 1" not in verdict.log
    assert verdict.last == "R3 !read_ok"


def test_level_2_shows_all_paths() -> None:
    verdict = check("r0 = *(u32 *)(r1 + 0)\nif r0 == 0 goto +1\nr0 = 1\nexit", log_level=2)
    assert verdict.log == (
        "func#0 @0\n"
        "Live regs before insn:\n"
        "      0: .1........ (61) r0 = *(u32 *)(r1 +0)\n"
        "      1: 0......... (15) if r0 == 0x0 goto pc+1\n"
        "      2: .......... (b7) r0 = 1\n"
        "      3: 0......... (95) exit\n"
        "0: R1=ctx() R10=fp0\n"
        "0: (61) r0 = *(u32 *)(r1 +0)          "
        "; R0=scalar(smin=0,smax=umax=0xffffffff,var_off=(0x0; 0xffffffff)) R1=ctx()\n"
        "1: (15) if r0 == 0x0 goto pc+1        "
        "; R0=scalar(smin=umin=umin32=1,smax=umax=0xffffffff,var_off=(0x0; 0xffffffff))\n"
        "2: (b7) r0 = 1                        ; R0=1\n"
        "3: (95) exit\n"
        "\n"
        "from 1 to 3: R0=0 R1=ctx() R10=fp0\n"
        "3: R0=0 R1=ctx() R10=fp0\n"
        "3: (95) exit\n" + processed(5)
    )


def test_level_4_adds_statistics() -> None:
    lines = check("*(u64 *)(r10 - 24) = 0\nr0 = 0\nexit", log_level=4).log.splitlines()
    assert lines[0].startswith("verification time ")
    assert lines[1] == "stack depth 24"
    assert lines[2].startswith("processed 3 insns")


def test_calls_show_both_frames() -> None:
    verdict = check("r6 = 7\ncall f\nr0 = r1\nexit\nf:\nr0 = 1\nexit")
    assert (
        "1: (85) call pc+2\n"
        "caller:\n R6=7 R10=fp0\n"
        "callee:\n frame1: R1=ctx() R10=fp0\n"
        "4: frame1: R1=ctx() R10=fp0\n"
        "4: (b7) r0 = 1                        ; frame1: R0=1\n"
        "5: (95) exit\n"
        "returning from callee:\n frame1: R0=1 R1=ctx() R10=fp0\n"
        "to caller at 2:\n R0=1 R6=7 R10=fp0\n"
        "2: (bf) r0 = r1\n"
        "R1 !read_ok\n"
    ) in verdict.log


def test_source_lines_stand_before_their_first_insn() -> None:
    info = (LineInfo(0, "dir/a.c", 3, 1, "\tint x = 0;"), LineInfo(2, "dir/a.c", 5, 1, "return x"))
    verdict = check("r0 = 0\nr0 += 1\nr0 += r4\nexit", line_info=info)
    assert "; int x = 0; @ a.c:3\n0: (b7) r0 = 0" in verdict.log
    assert verdict.log.count("@ a.c:3") == 1
    assert "; return x @ a.c:5\n2: (0f) r0 += r4\nR4 !read_ok\n" in verdict.log


def test_an_infinite_loop_names_its_source_line() -> None:
    info = (LineInfo(0, "a.c", 3, 1, "do"), LineInfo(1, "a.c", 4, 1, "while (x)"))
    verdict = check("call bpf_get_prandom_u32\nif r0 != 9 goto -2\nexit", line_info=info)
    assert "\n; while (x) @ a.c:4\ninfinite loop detected at insn 1\n" in verdict.log


def test_pointers_and_slots() -> None:
    verdict = check(
        "r2 = *(u32 *)(r1 + 0)\n"
        "r2 &= 7\n"
        "r2 += r10\n"
        "*(u32 *)(r10 - 8) = 5\n"
        "*(u16 *)(r10 - 4) = 0\n"
        "r3 = map_value(one) + 4\n"
        "r0 = r4\n"
        "exit",
        log_level=2,
    )
    assert "\n3: R2=fp(smin=smin32=0,smax=umax=smax32=umax32=7,var_off=(0x0; 0x7)) R10=fp0" in (
        verdict.log
    )
    assert "fp-8=????5\n" in verdict.log
    assert "fp-8=??00mmmm\n" in verdict.log
    assert "R3=map_value(map=one,ks=4,vs=16,imm=4)\n" in verdict.log
    old = check("r3 = map_value(one) + 4\nr0 = r4\nexit", kernel="6.18")
    assert "R3=map_value(map=one,ks=4,vs=16,off=4)\n" in old.log


def test_an_infinite_loop_ends_with_the_old_state() -> None:
    verdict = check("call bpf_get_prandom_u32\nif r0 != 9 goto -2\nexit")
    lines = verdict.log.splitlines()
    assert lines[-4].startswith("infinite loop detected at insn ")
    assert lines[-3].startswith("cur state: R0=")
    assert lines[-2].startswith("old state: R0=")
    assert verdict.last == lines[-2]
    assert verdict.reason == "infinite_loop"
