"""The command line: which commands there are, their options and help.

What a command does stands in the module named beside it, which is imported when the command
runs: `--help` stays quick. Results go to stdout, complaints to stderr, one line each
(`bpfvm: FILE: message`).
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable

import click

__all__ = ["cli"]


def _deferred(module: str, function: str) -> Callable[..., int]:
    """Return a command body that is imported at its first call."""

    def body(**options: object) -> int:
        result: int = getattr(importlib.import_module(module), function)(**options)
        return result

    return body


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    metadata = importlib.import_module("importlib.metadata")  # slow to import
    try:
        click.echo(f"bpfvm {metadata.version('bpfvm')}")
    except metadata.PackageNotFoundError:
        click.echo("bpfvm, run from source without being installed")
    ctx.exit()


class _InOrder(click.Group):
    """Commands are listed as they are declared: the main ones first."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    cls=_InOrder,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Exit codes: 0 every run came to its end, whatever r0; 1 a program was rejected, ended early
or differed; 2 bad input; 70 a bug in bpfvm.
\b
Shell completion: eval "$(_BPFVM_COMPLETE=bash_source bpfvm)"   (or zsh_source, fish_source)
""",
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """Verify, interpret and compile BPF programs in user space, arenas included.

    FILE is a BPF object (ELF), C source (.bpf.c, compiled by a clang that is at hand), assembly
    text (.s) or raw insns (.bin).
    """


class _Seconds(click.FloatRange):
    """A time: a number within its range, which to click "nan" is too."""

    def convert(
        self, value: float, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        seconds = float(super().convert(value, param, ctx))
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a number of seconds.", param, ctx)
        return seconds


def _file(required: bool = True) -> click.Argument:
    return click.Argument(["file"], type=click.Path(), required=required)


def _prog_option() -> click.Option:
    return click.Option(
        ["--prog"], metavar="NAME", help="Only this program; without it, all of the file."
    )


def _unpriv_option() -> click.Option:
    return click.Option(
        ["--unpriv"],
        is_flag=True,
        help="Verify as for a user without any capability (CAP_BPF, CAP_PERFMON, ...).",
    )


def _vmlinux_option() -> click.Option:
    return click.Option(
        ["--vmlinux"],
        metavar="FILE",
        type=click.Path(),
        help="Raw BTF of the kernel whose hooks and structs programs use. Default: the running "
        "kernel's, where it shows it.",
    )


def _add(
    name: str,
    target: tuple[str, str],
    params: list[click.Parameter],
    short: str,
    help_text: str,
    examples: str,
    **settings: bool,
) -> None:
    """Add a command; *examples* are shown as they stand."""
    body = "\n".join(f"  {line.strip()}" for line in examples.strip().splitlines())
    cli.add_command(
        click.Command(
            name,
            callback=_deferred(*target),
            params=params,
            short_help=short,
            help=help_text,
            epilog=f"\b\nExamples:\n{body}",
            context_settings=dict(settings),
        )
    )


_add(
    "run",
    ("bpfvm.commands", "run"),
    [
        _file(),
        click.Option(
            ["--engine"],
            type=click.Choice(["interp", "jit"]),
            default="jit",
            show_default=True,
            help="What executes the insns.",
        ),
        _prog_option(),
        click.Option(
            ["--ctx"],
            metavar="HEX",
            help="The context. Default: zeros, for a syscall program up to the highest offset "
            "it reads.",
        ),
        click.Option(
            ["--data"],
            metavar="FILE",
            type=click.Path(),
            help="Packet bytes, for program types that take a packet. Default: 64 zero bytes.",
        ),
        click.Option(
            ["--unverified"],
            is_flag=True,
            help="Run in the sandbox instead of verifying: every access is checked as it happens.",
        ),
        click.Option(
            ["--budget"],
            metavar="INSNS",
            type=click.IntRange(min=1),
            help="Insns an unverified run may execute. Default: 10000000.",
        ),
        _unpriv_option(),
        click.Option(
            ["--advance"],
            metavar="NS",
            type=click.IntRange(min=0),
            help="Then let so many ns of simulated time pass, and run what timers and work queues "
            "call in them. Default: nothing of theirs runs.",
        ),
    ],
    "Verify and run programs.",
    """Verify and run the programs of FILE, in file order, on the same maps and arena.

    Prints one line for each program (name, engine, r0, time), and under it what the program
    wrote to its streams. Programs that can't be linked, or that the verifier rejects, are told
    on stderr and the others still run; both make the exit code 1.
    """,
    """
    bpfvm run examples/arena_list.bpf.o
    bpfvm run prog.s --engine interp --ctx 0100000000000000
    bpfvm run xdp.bpf.o --prog count --data packet.bin
    bpfvm run fuzzed.bin --unverified --budget 1000000
    """,
)

_add(
    "verify",
    ("bpfvm.commands", "verify"),
    [
        _file(),
        _prog_option(),
        click.Option(
            ["--log-level"],
            metavar="N",
            type=click.IntRange(0, 7),
            default=1,
            show_default=True,
            help="A sum of the kernel's bits. 0: the verdict alone; 1: the log; 2: with every path "
            "and state; 4: time and stack depths.",
        ),
        click.Option(
            ["--kernel"],
            type=click.Choice(["7.3", "6.18"]),
            default="7.3",
            show_default=True,
            help="The kernel whose rules and words apply.",
        ),
        _unpriv_option(),
        _vmlinux_option(),
    ],
    "Say whether programs verify, with the log.",
    """Say whether the programs of FILE verify, in the kernel's words.

    Each program's log comes first, its verdict last. Exit code 1 when one was rejected.
    """,
    """
    bpfvm verify examples/rejected.bpf.o
    bpfvm verify prog.s --log-level 2 --kernel 6.18
    bpfvm verify filter.bpf.o --unpriv
    """,
)

_add(
    "diff",
    ("bpfvm.diff", "diff"),
    [
        _file(required=False),
        _prog_option(),
        click.Option(
            ["--random"],
            metavar="N",
            type=click.IntRange(min=1),
            help="With FILE: N rounds of random contexts and packets. Without: N random programs.",
        ),
        click.Option(
            ["--seed"],
            metavar="S",
            type=int,
            default=0,
            show_default=True,
            help="Where the random choices start; the same seed gives the same programs.",
        ),
        click.Option(
            ["--engines"],
            metavar="LIST",
            default="interp,jit",
            show_default=True,
            help="What to compare: interp, jit, and kernel (the running one; it needs root).",
        ),
    ],
    "Compare the engines.",
    """Run programs with the interpreter and with the JIT, and compare all they leave behind.

    Compared are r0, context and packet out, maps, arena pages, streams and faults; each engine
    gets fresh maps and a fresh arena. Programs that don't verify run in the sandbox, where it is
    also compared how they end. The first difference of each program is shown; exit code 1 if
    there was one.

    With "kernel" the running kernel is asked too: whether it accepts what we accept, and then
    r0 (32 bits), context and packet out, maps and arena pages. Programs are loaded and test-run,
    never attached; each is first written to ~/.local/state/bpfvm/kernel-last.json, or to where
    BPFVM_KERNEL_LAST says. The kernel's clock, random numbers and CPU are its own: programs that
    ask for them differ.
    """,
    """
    bpfvm diff examples/arena_list.bpf.o
    bpfvm diff examples/arena_kv.bpf.o --random 100 --seed 7
    bpfvm diff --random 1000
    bpfvm diff examples/arena_list.bpf.o --engines interp,jit,kernel
    """,
)

_add(
    "test",
    ("bpfvm.suite", "test"),
    [
        click.Argument(["files"], nargs=-1, type=click.Path(), required=True, metavar="FILE..."),
        click.Option(
            ["-k", "--prog", "pattern"],
            metavar="PATTERN",
            help="Only tests with this name, which may have *, ? and [...]; there must be one.",
        ),
        click.Option(
            ["--kernel"],
            type=click.Choice(["7.3", "6.18"]),
            help="The kernel whose rules and words apply. Default: 7.3, or the newest that a "
            "vector is for.",
        ),
        click.Option(
            ["--written-for"],
            type=click.Choice(["7.3", "6.18", "6.12"]),
            default="6.12",
            show_default=True,
            help="The kernel whose selftests the objects are: what has changed since is allowed.",
        ),
        click.Option(
            ["--engine"],
            type=click.Choice(["interp", "jit"]),
            help="Run accepted programs in this engine alone. Default: in both.",
        ),
        _vmlinux_option(),
        click.Option(["--no-run"], is_flag=True, help="Only verify."),
        click.Option(
            ["--timeout"],
            metavar="SECONDS",
            type=_Seconds(min=0, max=1_000_000, min_open=True),
            default=120,
            show_default=True,
            help="How long one test may take, to verify and to run.",
        ),
        click.Option(
            ["-j", "--jobs"],
            metavar="N",
            type=click.IntRange(min=1),
            default=1,
            show_default=True,
            help="How many files are judged at the same time.",
        ),
        click.Option(["--json", "as_json"], is_flag=True, help="Print the answers as JSON."),
        click.Option(["-q", "--quiet"], is_flag=True, help="List failures only."),
    ],
    "Judge programs by what is expected of them.",
    """Judge each test in the FILEs by verifier, interpreter and JIT.

    A FILE is a text vector (.data, .s: a program, and sections such as verdict, message and
    retval; bpfvm/VECTORS.md has the format), an object whose programs have the kernel selftests'
    annotations (__success, __failure, __msg, __retval, ... as BTF decl tags), or a directory of
    such files. A test that crashes or takes too long fails, and the others go on. Skipped is a
    program of which nothing is expected, or that needs what is not there yet. Exit code 1 when a
    test failed.

    With --json: a list of {object, program, section, verdict, errno, last, retval, expected,
    outcome: pass, fail or skip, why}.
    """,
    """
    bpfvm test tests/vectors
    bpfvm test verifier_and.bpf.o -k 'invalid_*' --kernel 6.18
    bpfvm test -j 4 --no-run --json *.bpf.o > report.json
    """,
)

_add(
    "disasm",
    ("bpfvm.commands", "disasm"),
    [_file(), _prog_option()],
    "Print programs as assembly text.",
    """Print the programs of FILE as assembly text, which `bpfvm asm` takes back.""",
    """
    bpfvm disasm examples/arena_list.bpf.o
    bpfvm disasm prog.bin > prog.s
    """,
)

_add(
    "asm",
    ("bpfvm.commands", "asm"),
    [
        _file(),
        click.Option(
            ["-o", "--output"],
            metavar="OUT",
            type=click.Path(),
            required=True,
            help="Where the raw insns go; - is stdout.",
        ),
        _prog_option(),
    ],
    "Assemble text to raw insns.",
    """Assemble FILE, and write the insns of its program as raw bytes, 8 a slot.

    Both the kernel's and LLVM's syntax (r0 = *(u32 *)(r1 + 4)) and bpf_conformance's
    (ldxw %r0, [%r1+4]) are taken. Raw insns can't hold maps or names of kfuncs: a text that
    uses them is refused here, and runs as it is.
    """,
    """
    bpfvm asm prog.s -o prog.bin
    bpfvm asm prog.s -o - | xxd
    """,
)

_add(
    "dump",
    ("bpfvm.dump", "dump"),
    [
        _file(),
        _prog_option(),
        click.Option(
            ["--xlated", "what"],
            flag_value="xlated",
            default="xlated",
            help="The insns as the engines run them (the default).",
        ),
        click.Option(
            ["--types", "what"],
            flag_value="types",
            help="Per insn what the verifier found: register types, what an access reaches, the "
            "variant and context of a kfunc call.",
        ),
        click.Option(["--llvm", "what"], flag_value="llvm", help="The JIT's LLVM IR, optimised."),
        click.Option(["--native", "what"], flag_value="native", help="The JIT's machine code."),
        click.Option(
            ["--unverified"],
            is_flag=True,
            help="What the sandbox runs (not with --types).",
        ),
    ],
    "Show what the engines run, insn by insn.",
    """Show what the engines run, and what the verifier found.""",
    """
    bpfvm dump examples/arena_list.bpf.o --xlated
    bpfvm dump examples/arena_nonsleepable.bpf.o --types
    bpfvm dump prog.s --native
    """,
)

_add(
    "json",
    ("bpfvm.json_api", "serve"),
    [],
    "Answer JSON requests, one a line.",
    """Answer requests: one JSON object a line on stdin, one answer a line on stdout.

    A bad request gets an answer too and never ends the loop. Keys of a request: name, prog_type,
    flags, license, expected_attach_type, log_level, insns or asm, fixups, funcs, maps, run, dump,
    info, engine, verify, kernel, unpriv or caps, budget. ARCHITECTURE.md says more.
    """,
    """
    echo '{"insns": "b7000000070000009500000000000000", "run": {}}' | bpfvm json
    echo '{"asm": "r0 = 7\\nexit", "engine": "interp", "run": {}}' | bpfvm json
    """,
)

_add(
    "plugin",
    ("bpfvm.plugin", "command"),
    [
        click.Argument(
            ["arguments"], nargs=-1, type=click.UNPROCESSED, metavar="[MEMHEX] [--jit|--interp]"
        )
    ],
    "Speak bpf_conformance's plugin protocol.",
    """Run one program by bpf_conformance's plugin protocol: insns as hex on stdin, r0 on stdout.

    MEMHEX is the memory that r1 points to. Options: --interp (the default), --jit, --elf (stdin
    holds an ELF file), --program HEX (instead of stdin). The command bpfvm-plugin does the
    same in one word, as the conformance runner wants it.
    """,
    """
    echo 'b7 00 00 00 07 00 00 00 95 00 00 00 00 00 00 00' | bpfvm plugin
    bpf_conformance_runner --test_file_directory tests --plugin_path "$(which bpfvm-plugin)"
    """,
    ignore_unknown_options=True,
)
