"""The JSON interface: every request gets an answer, and the answer is what the text says."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import bpfvm
from bpfvm import json_api, vm
from bpfvm.insn import encode

Answer = dict[str, Any]

RETURN_7 = "b7000000070000009500000000000000"
ENGINES = pytest.mark.parametrize("engine", vm.ENGINES)


def ask(**request: object) -> Answer:
    """The answer, through JSON text both ways."""
    answer: Answer = json.loads(json.dumps(json_api.answer_line(json.dumps(request).encode())))
    return answer


def hex_of(text: str) -> str:
    """The insns of assembly text that names neither maps nor kfuncs."""
    (prog,) = bpfvm.assemble(text).programs.values()
    return encode(prog.program.insns).hex()


# -- the loop -----------------------------------------------------------------------------------


def test_one_answer_a_line_in_order_and_the_loop_goes_on() -> None:
    lines = [
        '{"name": "a", "insns": "' + RETURN_7 + '", "run": {}, "engine": "interp"}',
        "not json",
        "",
        "[1, 2]",
        '{"name": ["b"], "insns": "00"}',
        '{"name": "c", "frob": 1}',
        "\xff",
        "[" * 100_000,
        '{"name": "d", "insns": "' + RETURN_7 + '"}',
    ]
    done = subprocess.run(
        [sys.executable, "-m", "bpfvm", "json"],
        input="\n".join(lines).encode("latin-1"),
        capture_output=True,
        check=True,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.stderr == b""
    assert len(answers) == len(lines) - 1  # an empty line asks nothing
    assert [a.get("name") for a in answers] == ["a", None, None, ["b"], "c", None, None, "d"]
    assert [a["ok"] for a in answers] == [True] + 6 * [False] + [True]
    assert all(a["stage"] == "request" and a["error"] for a in answers[1:-1])


def test_answers_come_before_the_next_question() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "bpfvm", "json"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for name in ("one", "two"):
            process.stdin.write(json.dumps({"name": name}) + "\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["name"] == name
        process.stdin.close()
        assert process.wait(timeout=30) == 0


def test_a_bug_is_answered_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_self: vm.Prog, **_options: object) -> vm.Result:
        raise IndexError("no such thing")

    monkeypatch.setattr(vm.Prog, "run", broken)
    answer = ask(insns=RETURN_7, run={}, verify=False, name=3)
    assert (answer["ok"], answer["name"]) == (False, 3)
    assert "please report it: IndexError" in answer["error"]


def test_serve_reads_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    assert json_api.serve(io.BytesIO(b'{"name": 1}\n{"name": 2}\n')) == 0
    names = [json.loads(line)["name"] for line in capsys.readouterr().out.splitlines()]
    assert names == [1, 2]


# -- requests that are none -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"insns": "00" * 7}, "7 bytes are not a whole number of 8-byte insns"),
        ({"insns": ""}, "no insns"),
        ({"insns": "zz"}, "insns: not hex bytes"),
        ({"insns": 5}, "insns: expected hex bytes, not a number"),
        ({"insns": RETURN_7, "asm": "exit"}, "asm: there are insns too"),
        ({"asm": "r0 = = 1"}, "asm:1:6"),
        ({"asm": ".prog a\nexit\n.prog b\nexit"}, "expected one program, found a, b"),
        ({"run": {}}, "no insns and no asm"),
        ({"insns": RETURN_7, "run": {"repat": 3}}, "run: unknown key repat"),
        ({"insns": RETURN_7, "run": {"data_in": "0"}}, "data_in: not hex bytes"),
        ({"insns": RETURN_7, "run": {"repeat": True}}, "repeat: expected a number"),
        ({"insns": RETURN_7, "run": {"timeout_s": "x"}}, "timeout_s"),
        ({"insns": RETURN_7, "run": 1}, "run: expected an object"),
        ({"insns": RETURN_7, "prog_type": "kprobes"}, "'kprobes' is none of"),
        ({"insns": RETURN_7, "prog_type": 20}, "20 is not supported"),
        ({"insns": RETURN_7, "prog_type": []}, "prog_type"),
        ({"insns": RETURN_7, "engine": "kernel", "verify": False}, "verified programs only"),
        ({"insns": RETURN_7, "engine": "gpu"}, "'gpu' is none of interp, jit, kernel"),
        ({"insns": RETURN_7, "kernel": "5.4"}, "'5.4' is none of 6.18, 7.3"),
        ({"insns": RETURN_7, "log_level": 8}, "log_level: out of range"),
        ({"insns": RETURN_7, "flags": ["sleepy"]}, "flags: not a number: 'sleepy'"),
        ({"insns": RETURN_7, "budget": 0}, "budget: out of range"),
        ({"insns": RETURN_7, "verify": "no"}, "verify: expected true or false"),
        ({"insns": RETURN_7, "license": 1}, "license: expected a string"),
        ({"insns": RETURN_7, "fixups": {}}, "fixups: expected a list"),
        ({"insns": RETURN_7, "fixups": [{"kind": "map_fd"}]}, "fixups[0]: insn: missing"),
        ({"insns": RETURN_7, "fixups": [{"insn": 0, "kind": "x"}]}, "'x' is none of"),
        (
            {"insns": RETURN_7, "fixups": [{"insn": 0, "kind": "map_fd", "name": "m"}]},
            "no map 'm'",
        ),
        (
            {"insns": RETURN_7, "fixups": [{"insn": 2, "kind": "kfunc", "name": "f"}]},
            "the program has 2 slots",
        ),
        (
            {"insns": RETURN_7, "fixups": [{"insn": 1, "kind": "func", "target": 0}]},
            "the program has 2 slots",
        ),
        (
            {"insns": RETURN_7, "fixups": [{"insn": 0, "kind": "btf_var", "name": "v"}]},
            "kernel variables are not supported",
        ),
        ({"insns": RETURN_7, "funcs": [{"insn": 0, "name": "f", "args": ["u8"]}]}, "'u8'"),
        ({"maps": {"m": {}}}, "maps: m: type: missing"),
        ({"maps": {"m": {"type": "tree"}}}, "'tree' is none of"),
        ({"maps": {"m": {"type": "array", "flags": ["big"]}}}, "flags: not a number"),
        ({"maps": {"m": {"type": "array", "init": [{"key": "00"}]}}}, "init[0]: value: missing"),
        ({"maps": {"m": {"type": "array"}}, "dump": {"n": True}}, "dump: no map 'n'"),
        ({"maps": {"m": {"type": "arena"}}, "dump": {"m": [[1]]}}, "expected [offset, size]"),
        ({"maps": {"m": {"type": "arena"}}, "dump": {"m": {"page": []}}}, "unknown key page"),
        ({"info": {"tag": True}}, "info: unknown key tag"),
    ],
)
def test_bad_requests_name_the_place(request_: Answer, words: str) -> None:
    answer = ask(name="n", **request_)
    assert (answer["ok"], answer["stage"], answer["name"]) == (False, "request", "n")
    assert words in answer["error"]


def test_null_counts_as_absent() -> None:
    keys = [
        "name",
        "prog_type",
        "flags",
        "license",
        "expected_attach_type",
        "log_level",
        "fixups",
        "funcs",
        "lines",
        "maps",
        "run",
        "dump",
        "info",
        "asm",
        "engine",
        "verify",
        "kernel",
        "budget",
    ]
    answer = ask(insns=RETURN_7, **dict.fromkeys(keys))
    assert (answer["ok"], answer["stage"], answer["name"]) == (True, "load", None)


# -- load ---------------------------------------------------------------------------------------


def test_accepted() -> None:
    answer = ask(insns=RETURN_7, prog_type="xdp")
    load = answer["load"]
    assert (answer["ok"], answer["stage"]) == (True, "load")
    assert (load["ok"], load["errno"], load["last"]) == (True, 0, "")
    assert "processed 2 insns" in load["log"]
    assert load["stats"]["processed"] == 2
    assert set(load["stats"]) == {
        "processed",
        "limit",
        "max_states_per_insn",
        "total_states",
        "peak_states",
        "mark_read",
    }
    assert load["load_ns"] > 0
    assert "run" not in answer


def test_rejected_is_a_normal_answer() -> None:
    answer = ask(insns="9500000000000000", run={})
    assert (answer["ok"], answer["stage"]) == (False, "load")
    assert answer["load"]["errno"] == 13
    assert answer["load"]["last"] == "R0 !read_ok"
    assert "run" not in answer


def test_log_level_0_has_no_log() -> None:
    assert ask(insns="9500000000000000", log_level=0)["load"]["log"] == ""


@pytest.mark.parametrize("sleepable", [["sleepable"], "sleepable", 16, "0x10"])
def test_flags_as_names_or_number(sleepable: object) -> None:
    assert ask(insns=RETURN_7, prog_type="syscall", flags=sleepable)["ok"]
    without = ask(insns=RETURN_7, prog_type=31)
    assert without["load"]["last"] == "Syscall programs can only be sleepable"


def test_kernel_rules() -> None:
    request = {
        "asm": ".map a type=arena entries=1 flags=mmapable\n"
        "r1 = map(a)\nr2 = 0\nr3 = 1\nr4 = -1\nr5 = 0\ncall bpf_arena_alloc_pages\nr0 = 0\nexit",
    }
    assert ask(kernel="7.3", **request)["ok"]
    assert not ask(kernel="6.18", **request)["ok"]


def test_sandbox_refuses_what_has_no_meaning() -> None:
    answer = ask(insns="ff00000000000000" + RETURN_7, verify=False, run={})
    assert (answer["ok"], answer["stage"]) == (False, "load")
    assert answer["load"]["errno"] == 22
    assert "unknown opcode ff" in answer["load"]["last"]


# -- run ----------------------------------------------------------------------------------------


@ENGINES
def test_run(engine: str) -> None:
    answer = ask(insns=hex_of("r0 = -2 ll\nexit"), run={"repeat": 3, "times": 2}, engine=engine)
    run = answer["run"]
    assert (answer["ok"], answer["stage"], run["ok"]) == (True, "run", True)
    assert (run["r0"], run["retval"]) == ("0xfffffffffffffffe", 0xFFFFFFFE)
    assert run["retvals"] == [0xFFFFFFFE]
    assert run["duration_ns"] <= run["wall_ns"]
    assert (run["stdout"], run["stderr"], run["faults"]) == ("", "", [])


@ENGINES
def test_memory_entry_state(engine: str) -> None:
    text = "r0 = *(u8 *)(r1 + 1)\nr0 <<= 8\nr0 += r2\n*(u8 *)(r1 + 0) = 9\nexit"
    answer = ask(insns=hex_of(text), prog_type="mem", run={"data_in": "aabbcc"}, engine=engine)
    assert answer["run"]["r0"] == "0xbb03"
    assert answer["run"]["data_out"] == "09bbcc"
    empty = ask(insns=hex_of("r0 = r1\nr0 += r2\nexit"), prog_type="mem", run={}, engine=engine)
    assert empty["run"]["r0"] == "0x0"


@ENGINES
def test_context_of_a_syscall_program(engine: str) -> None:
    text = "r0 = *(u64 *)(r1 + 0)\nr2 = 5\n*(u64 *)(r1 + 8) = r2\nexit"
    request = {"insns": hex_of(text), "prog_type": "syscall", "flags": "sleepable"}
    answer = ask(run={"ctx_in": "01" * 16}, engine=engine, **request)
    assert answer["run"]["r0"] == "0x101010101010101"
    assert answer["run"]["ctx"] == "01" * 8 + "0500000000000000"
    short = ask(run={"ctx_in": "01"}, engine=engine, **request)
    assert (short["ok"], short["stage"], short["run"]["errno"]) == (False, "run", 22)


@ENGINES
def test_a_sandbox_run_that_ends_early_tells_why(engine: str) -> None:
    answer = ask(insns=hex_of("r0 = *(u64 *)(r10 + 0)\nexit"), verify=False, run={}, engine=engine)
    assert (answer["ok"], answer["stage"], answer["run"]["ok"]) == (False, "run", False)
    assert answer["run"]["error"].startswith("pc 0: invalid read of 8 bytes at 0x")


@ENGINES
def test_budget(engine: str) -> None:
    text = "r0 = 0\nl: r0 += 1\ngoto l\nexit"
    answer = ask(insns=hex_of(text), verify=False, run={}, budget=1000, engine=engine)
    assert "budget of insns exceeded" in answer["run"]["error"]


def test_repetitions_stop_in_time() -> None:
    answer = ask(insns=RETURN_7, run={"repeat": 10_000_000, "timeout_s": 0.05}, engine="interp")
    assert answer["run"]["ok"]
    assert answer["run"]["wall_ns"] < 5e9


# -- maps, fixups, dumps --------------------------------------------------------------------------


@ENGINES
def test_maps_fixups_and_dumps(engine: str) -> None:
    code = hex_of(
        "r1 = 0 ll\nr0 = *(u64 *)(r1 + 0)\n*(u64 *)(r1 + 0) = 77\nr2 = 0 ll\nr0 += 1\nexit"
    )
    answer = ask(
        insns=code,
        prog_type="socket_filter",
        maps={
            "arr": {
                "type": "array",
                "value_size": 16,
                "init": [{"key": "00000000", "value": "01" * 16}],
            },
            "h": {
                "type": "hash",
                "max_entries": 4,
                "init": [
                    {"key": "02000000", "value": "22" * 8},
                    {"key": "01000000", "value": "11" * 8},
                ],
            },
        },
        fixups=[
            {"insn": 0, "kind": "map_value", "name": "arr", "off": 8},
            {"insn": 4, "kind": "map_fd", "name": "h"},
        ],
        run={},
        dump={"arr": True, "h": True},
        engine=engine,
    )
    assert answer["ok"], answer
    assert answer["maps"] == {"arr": {"ok": True}, "h": {"ok": True}}
    assert answer["run"]["r0"] == hex(0x0101010101010101 + 1)
    assert answer["dump"] == {
        "arr": [{"key": "00000000", "value": "01" * 8 + "4d00000000000000"}],
        "h": [
            {"key": "01000000", "value": "11" * 8},
            {"key": "02000000", "value": "22" * 8},
        ],
    }


@pytest.mark.parametrize(
    ("spec", "errno"),
    [
        ({"type": "arena", "flags": 0}, 22),
        ({"type": "arena", "max_entries": (1 << 20) + 1}, 7),
        ({"type": "arena", "map_extra": "0x1001"}, 22),
        ({"type": "array", "key_size": 8}, 22),
        ({"type": "array", "init": [{"key": "05000000", "value": "00" * 8}]}, 7),
        ({"type": "lpm_trie"}, 22),
        ({"type": 1000}, 22),
    ],
)
def test_maps_that_cannot_be_created(spec: Answer, errno: int) -> None:
    answer = ask(insns=RETURN_7, maps={"good": {"type": "array"}, "m": spec}, run={})
    assert (answer["ok"], answer["stage"]) == (False, "maps")
    assert answer["maps"]["good"] == {"ok": True}
    assert (answer["maps"]["m"]["ok"], answer["maps"]["m"]["errno"]) == (False, errno)


@ENGINES
def test_arena(engine: str) -> None:
    start = 1 << 44
    text = """
    r1 = 0 ll
    r2 = 0
    r3 = 2
    r4 = -1
    r5 = 0
    call 0
    r6 = addr_space_cast(r0, 0, 1)
    *(u64 *)(r6 + 8) = 5
    r7 = *(u64 *)(r6 + 12288)
    *(u64 *)(r6 + 12288) = 5
    r0 += r7
    exit
    """
    request = {
        "insns": hex_of(text),
        "prog_type": "syscall",
        "flags": "sleepable",
        "maps": {"a": {"type": "arena", "max_entries": 8, "map_extra": hex(start)}},
        "fixups": [
            {"insn": 0, "kind": "map_fd", "name": "a"},
            {"insn": 6, "kind": "kfunc", "name": "bpf_arena_alloc_pages"},
        ],
        "run": {},
        "engine": engine,
    }
    answer = ask(dump={"a": {"pages": ["0x0", "0x1000", "0x2000"]}}, **request)
    assert answer["ok"], answer
    assert answer["maps"] == {"a": {"ok": True, "user_vm_start": hex(start)}}
    assert answer["run"]["r0"] == hex(start)
    assert answer["run"]["faults"] == [
        {"insn": 9, "addr": hex(start + 12288), "write": False},
        {"insn": 10, "addr": hex(start + 12288), "write": True},
    ]
    assert "ERROR: Arena READ access at unmapped address" in answer["run"]["stderr"]
    pages = answer["dump"]["a"]
    assert [(p["page"], p["present"]) for p in pages] == [
        ("0x0", True),
        ("0x1000", True),
        ("0x2000", False),
    ]
    assert pages[0]["bytes"] == ("00" * 8 + "05" + "00" * 4087)
    assert pages[2]["bytes"] is None
    # The same address again: the arena of the request before is gone. Ranges fault pages in.
    answer = ask(dump={"a": [[8, 2], [0x2000, 4]]}, **request)
    assert answer["dump"]["a"] == [
        {"off": 8, "bytes": "0500"},
        {"off": 0x2000, "bytes": "00000000"},
    ]
    outside = ask(dump={"a": [[0x7FFF, 2]]}, **request)
    assert "not inside the arena" in outside["dump"]["a"]["error"]


def test_mapping_a_map() -> None:
    """Where user space sees a map, and what can't be mapped."""
    maps = {
        "arr": {"type": "array", "flags": "mmapable", "mmap": True},
        "plain": {"type": "array", "flags": "mmapable"},
    }
    made = ask(maps=maps)["maps"]
    assert int(made["arr"]["user_vm_start"], 16) > 0
    assert made["plain"] == {"ok": True}
    assert ask(maps={"m": {"type": "array", "mmap": True}})["maps"]["m"]["errno"] == 22
    assert ask(maps={"m": {"type": "hash", "mmap": True}})["maps"]["m"]["errno"] == 524


@pytest.mark.parametrize("extra", [0, 1 << 44])
def test_an_arena_that_nobody_mapped(extra: int) -> None:
    answer = ask(
        insns=hex_of("r1 = 0 ll\nr0 = 0\nexit"),
        maps={"a": {"type": "arena", "mmap": False, "map_extra": extra}},
        fixups=[{"insn": 0, "kind": "map_fd", "name": "a"}],
    )
    complaint = "arena's user address must be set via map_extra or mmap()"
    assert answer["load"]["last"] == ("" if extra else complaint)
    assert "user_vm_start" not in answer["maps"]["a"]


@pytest.mark.parametrize("engine", ["interp", "jit"])
def test_a_verified_mem_program_knows_its_length(engine: str) -> None:
    request = {"prog_type": "mem", "verify": True, "engine": engine, "run": {"data_in": "01" * 8}}
    read = "r0 = *(u64 *)(r1 + {})\nr0 += r2\nexit"
    assert ask(asm=read.format(0), **request)["run"]["r0"] == "0x101010101010109"
    refused = ask(asm=read.format(1), **request)
    assert (refused["stage"], refused["load"]["errno"]) == ("load", 13)
    assert "R1 min value is outside of the allowed memory range" in refused["load"]["last"]
    assert "mem_size=8 off=1 size=8" in refused["load"]["log"]
    assert ask(asm="r0 = r1\nexit", prog_type="mem", verify=True, run={})["run"]["r0"] == "0x0"


def test_info() -> None:
    answer = ask(insns=RETURN_7, info={"xlated": True, "jited": True})
    assert answer["info"]["xlated"] == RETURN_7
    assert len(bytes.fromhex(answer["info"]["jited"])) > 8
    assert "info" not in ask(insns=RETURN_7, info={"xlated": False})


# -- asm and funcs --------------------------------------------------------------------------------


@ENGINES
def test_asm_in_either_syntax(engine: str) -> None:
    linux = ask(asm="r0 = 3\nr0 *= 7\nexit", run={}, engine=engine)
    conformance = ask(asm="mov %r0, 3\nmul %r0, 7\nexit", run={}, engine=engine)
    assert linux["run"]["r0"] == conformance["run"]["r0"] == "0x15"


def test_asm_says_what_the_request_does_not() -> None:
    text = ".map m type=array key=4 value=8 entries=1\n.prog p type=syscall sleepable\nr0=0\nexit"
    answer = ask(asm=text, dump={"m": True})
    assert (answer["ok"], answer["stage"]) == (True, "load")
    assert answer["dump"]["m"] == [{"key": "00000000", "value": "00" * 8}]
    assert not ask(asm=text, prog_type="xdp")["ok"]


def test_funcs_and_lines_are_checked_as_the_kernel_does() -> None:
    line = {"insn": 0, "file": "dir/a.c", "line": 3, "source": "  return 7;"}
    load: Any = ask(insns=RETURN_7, lines=[line], log_level=2)["load"]
    assert "; return 7; @ a.c:3\n0: (b7) r0 = 7" in load["log"]
    load = ask(insns=RETURN_7, lines=[{**line, "insn": 1}])["load"]
    assert (load["errno"], load["last"]) == (22, "missing bpf_line_info for func#0")
    load = ask(insns=RETURN_7, funcs=[{"insn": 1, "name": "f"}])["load"]
    assert load["last"] == "nonzero insn_off 1 for the first func info record"


def test_local_calls_and_funcs() -> None:
    text = "r1 = 4\ncall f\nexit\nf: r0 = r1\nr0 += 1\nexit"
    main = {"insn": 0, "name": "main", "args": ["ctx"]}
    f = {"insn": 3, "name": "f", "args": ["u64"], "ret": "u64"}
    code = hex_of(text)
    assert ask(insns=code, run={}, engine="interp")["run"]["r0"] == "0x5"
    request = {
        "insns": code[:16] + "8510000000000000" + code[32:],
        "fixups": [{"insn": 1, "kind": "call", "target": 3}],
        "run": {},
        "engine": "interp",
    }
    assert ask(funcs=[main, f], **request)["run"]["r0"] == "0x5"
    last = ask(funcs=[main, {**f, "linkage": "global"}], **request)["load"]["last"]
    assert last in ("", "not supported yet: global subprogram f")


# -- against the running kernel -------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_",
    [
        {"insns": RETURN_7, "run": {}},
        {"insns": RETURN_7, "prog_type": "xdp", "run": {"data_in": "00" * 20}},
        {"insns": "9500000000000000"},
        {"insns": RETURN_7, "prog_type": "syscall"},
        {
            "insns": RETURN_7,
            "maps": {"a": {"type": "array", "value_size": 4, "max_entries": 3}},
            "dump": {"a": True},
        },
        {"insns": RETURN_7, "maps": {"a": {"type": "arena", "max_entries": 0}}},
        {
            "insns": RETURN_7,
            "maps": {"a": {"type": "arena", "max_entries": 4, "map_extra": "0x100000000000"}},
            "dump": {"a": {"pages": ["0x0", "0x1000"]}},
        },
    ],
)
def test_answers_agree_with_the_kernel(
    request_: Answer, oracle: Callable[[Answer], Answer]
) -> None:
    kernel = oracle(request_)
    ours = ask(kernel="6.18", **request_)
    assert (ours["ok"], ours["stage"]) == (kernel["ok"], kernel["stage"])
    for name, made in kernel.get("maps", {}).items():
        assert {k: ours["maps"][name].get(k) for k in ("ok", "errno", "user_vm_start")} == {
            k: made.get(k) for k in ("ok", "errno", "user_vm_start")
        }
    if "load" in kernel:
        for key in ("ok", "errno", "stats"):
            assert ours["load"][key] == kernel["load"][key]
        assert ours["load"]["last"] == kernel["load"].get("last", "")
    if "run" in kernel:
        for key in ("ok", "retval", "retvals", "times", "data_out", "ctx"):
            assert ours["run"][key] == kernel["run"][key]
    assert ours.get("dump") == kernel.get("dump")


# -- privileges ---------------------------------------------------------------------------------

_LEAK = "r0 = r10\nexit"


@pytest.mark.parametrize(
    ("whom", "last"),
    [
        ({}, ""),
        ({"unpriv": False}, ""),
        ({"unpriv": True}, "R0 leaks addr"),
        ({"caps": []}, "R0 leaks addr"),
        ({"caps": ["CAP_BPF"]}, "R0 leaks addr"),
        ({"caps": ["bpf", "38"]}, ""),
        ({"caps": ["CAP_SYS_ADMIN"]}, ""),
    ],
)
def test_privileges(whom: dict[str, object], last: str) -> None:
    load = ask(asm=_LEAK, **whom)["load"]
    assert load["ok"] == (not last)
    assert last in load["last"]


def test_privileges_hold_for_runs_too() -> None:
    answer = ask(asm=_LEAK, unpriv=True, run={})
    assert answer["stage"] == "load"
    assert "run" not in answer


@pytest.mark.parametrize(
    ("whom", "place"),
    [
        ({"unpriv": 1}, "unpriv"),
        ({"caps": "CAP_BPF"}, "caps"),
        ({"caps": ["CAP_CHOWN"]}, "CAP_CHOWN"),
        ({"caps": [39]}, "caps"),
        ({"unpriv": True, "caps": ["CAP_BPF"]}, "caps"),
        ({"unpriv": True, "engine": "kernel"}, "engine"),
    ],
)
def test_bad_privileges(whom: dict[str, object], place: str) -> None:
    answer = ask(asm=_LEAK, **whom)
    assert answer["stage"] == "request"
    assert place in answer["error"]


def test_special_fields_of_maps() -> None:
    fields = [{"kind": "bpf_spin_lock", "off": 4}]
    spec = {"type": "array", "value_size": 8, "fields": fields}
    text = "r1 = 0 ll\nr0 = *(u32 *)(r1 + {off})\nexit"
    fixups = [{"insn": 0, "kind": "map_value", "name": "m", "off": 0}]
    loads = {
        off: ask(
            insns=hex_of(text.format(off=off)),
            prog_type="sched_cls",
            maps={"m": spec},
            fixups=fixups,
        )["load"]
        for off in (0, 4)
    }
    assert loads[0]["ok"]
    assert loads[4]["last"] == "bpf_spin_lock cannot be accessed directly by load/store"


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ({"kind": "lock", "off": 4}, "m: fields[0]: kind: 'lock' is none of bpf_spin_lock"),
        ({"kind": "bpf_timer", "at": 4}, "fields[0]: unknown key at"),
        ({"off": 4}, "fields[0]: kind"),
        ({"kind": ["bpf_timer"]}, "m: fields[0]: kind: ['bpf_timer'] is none of bpf_spin_lock"),
        ({"kind": {}}, "m: fields[0]: kind: {} is none of bpf_spin_lock"),
        ({"kind": "bpf_timer", "off": -1}, "m: fields[0]: off: out of range"),
        ({"kind": "bpf_timer", "off": 1 << 32}, "m: fields[0]: off: out of range"),
        ({"kind": "bpf_timer", "off": "x"}, "m: fields[0]: off: not a number: 'x'"),
        ({"kind": "bpf_timer", "off": 1.5}, "m: fields[0]: off: expected a number"),
        ([], "m: fields[0]: expected an object, not a list"),
        (None, "m: fields[0]: expected an object, not null"),
    ],
)
def test_bad_special_fields(field: object, words: str) -> None:
    answer = ask(insns=RETURN_7, maps={"m": {"type": "array", "fields": [field]}})
    assert answer["stage"] == "request"
    assert words in answer["error"]


@pytest.mark.parametrize(
    ("fields", "errno", "words"),
    [
        ([("bpf_spin_lock", 8)], 22, "a special field behind the value"),
        ([("bpf_spin_lock", 4), ("bpf_spin_lock", 0)], 7, "a special field is there twice"),
        ([("kptr", 0), ("bpf_spin_lock", 4)], 17, "special fields that overlap"),
    ],
)
def test_special_fields_that_no_map_has(
    fields: list[tuple[str, int]], errno: int, words: str
) -> None:
    items = [{"kind": kind, "off": off} for kind, off in fields]
    answer = ask(insns=RETURN_7, maps={"m": {"type": "array", "fields": items}})
    said = {"ok": False, "errno": errno, "error": f"map m: {words}"}
    assert answer["maps"] == {"m": said}
