"""Users without privileges: what is accepted keeps addresses to itself."""

from __future__ import annotations

import random

import pytest
from case_kit import read_cases, verdict_of

import bpfvm
from bpfvm.privileges import PRIVILEGED, UNPRIVILEGED, Capability, Privileges
from bpfvm.rules import KERNELS

_MAP = ".map hash type=hash key=4 value=16 entries=4\n"
_HEAD = """r6 = r1
r7 = *(u32 *)(r1 + 0)
r8 = 5
*(u64 *)(r10 - 8) = 0
r2 = r10
r2 += -8
r1 = map(hash)
call bpf_map_lookup_elem
if r0 != 0 goto +2
r0 = 0
exit
r9 = *(u64 *)(r0 + 0)
"""
_JUMPS = ("==", "!=", ">", "<", "s<", "s>", ">=", "&")
_ALU = ("&= 7", "&= 15", ">>= 2", "+= 1", "-= 1", "*= 2", "^= 3")


def _insn(rng: random.Random) -> str:
    reg, other = rng.choice("02345789"), rng.choice("023456789")
    slot = rng.choice((8, 16, 24))
    return rng.choice(
        (
            f"r{reg} = r{other}",
            f"r{reg} = r10",
            f"r{reg} = {rng.choice((0, 1, 4, 8, -8))}",
            f"r{reg} {rng.choice(_ALU)}",
            f"r{reg} {rng.choice(('+=', '-='))} r{other}",
            f"r{reg} += {rng.choice((1, 4, 8, -8, -16))}",
            f"r{reg} = *(u8 *)(r{other} + {rng.choice((0, 1, 8))})",
            f"*(u64 *)(r10 - {slot}) = r{other}",
            f"r{reg} = *(u64 *)(r10 - {slot})",
            f"*(u32 *)(r10 - {slot}) = 3",
            f"*(u64 *)(r0 + {rng.choice((0, 8))}) = r{other}",
            f"*(u32 *)(r6 + 48) = r{other}",
            f"w{reg} = w{other}",
        )
    )


def _program(rng: random.Random) -> str:
    """Return a program most of whose insns touch addresses; its jumps go forward."""
    lines = []
    count = rng.randint(2, 9)
    for i in range(count):
        if rng.random() < 0.2:
            target = rng.randint(0, min(3, count - 1 - i))
            lines.append(
                f"if r{rng.choice('789')} {rng.choice(_JUMPS)} {rng.randint(0, 5)} goto +{target}"
            )
        else:
            lines.append(_insn(rng))
    lines.append(rng.choice(("r0 = 0", "r0 = r9", "r0 = r8")))
    return f".prog p type=socket_filter license=GPL\n{_HEAD}" + "\n".join([*lines, "exit"]) + "\n"


def _outcome(text: str) -> tuple[object, ...]:
    """Run the program of *text*, in memory of its own, and return all it leaves behind."""
    obj = bpfvm.assemble(_MAP + text)
    obj.maps["hash"][bytes(4)] = bytes(range(16))
    result = obj.programs["p"].run(engine="interp", unpriv=True)
    return result.r0, result.ctx, result.data, bytes(obj.maps["hash"][bytes(4)])


def test_results_do_not_depend_on_addresses() -> None:
    rng = random.Random(7)
    accepted = 0
    for _ in range(1000):
        text = _program(rng)
        prog = bpfvm.assemble(_MAP + text).programs["p"]
        if not prog.verify(unpriv=True, log_level=0).ok:
            continue
        accepted += 1
        # What the unprivileged may, the privileged may too.
        assert prog.verify(log_level=0).ok, text
        assert _outcome(text) == _outcome(text), text
    assert accepted > 60


def test_every_case_of_users_has_a_twin_of_root() -> None:
    """Each rule is tested near both sides: what is refused to one user is fine for another."""
    verdicts: dict[str, set[bool]] = {}
    for case in read_cases():
        if case.family != "unpriv":
            continue
        program = case.program()
        for kernel, expected in case.expected.items():
            if not expected.ok:
                verdicts.setdefault(f"{case.name} {kernel}", set()).add(
                    verdict_of(program, kernel, privileges=PRIVILEGED).ok
                )
    refused_to_all = {name for name, oks in verdicts.items() if oks == {False}}
    assert len(refused_to_all) < len(verdicts) / 10, refused_to_all


@pytest.mark.parametrize("kernel", KERNELS)
def test_capabilities(kernel: str) -> None:
    assert Privileges.of([]) == UNPRIVILEGED
    assert Privileges.of([Capability.SYS_ADMIN]) == PRIVILEGED
    assert Privileges.of(Capability) == PRIVILEGED
    assert Privileges.named(["CAP_BPF", "38", "net_admin"]) == PRIVILEGED
    bpf = Privileges.named(["cap_bpf"])
    assert bpf.bpf_capable
    assert not any((bpf.allow_ptr_leaks, bpf.bypass_spec_v1, bpf.net_admin))
    obj = bpfvm.assemble(".prog p type=xdp license=GPL\nr0 = 0\nexit\n")
    prog = obj.programs["p"]
    with_net = Privileges.named(["CAP_BPF", "CAP_NET_ADMIN"])
    assert prog.verify(kernel=kernel, privileges=with_net).ok
    refused = prog.verify(kernel=kernel, privileges=bpf)
    assert (refused.errno, refused.reason) == (1, "prog_type_perm")


def test_a_mispredicted_path_leaves_what_is_dead_alone() -> None:
    """Only what real paths reach counts as seen, whatever else was walked."""
    obj = bpfvm.assemble(
        ".prog p type=socket_filter license=GPL\n"
        "r0 = 0\nr0 |= 0\nif r0 == 0 goto +1\nr0 = *(u64 *)(r0 + 0)\nexit\n"
    )
    verdict = obj.programs["p"].verify(unpriv=True, log_level=2)
    assert verdict.xlated is not None
    assert [aux.seen for aux in verdict.xlated.aux] == [True, True, True, False, True]
    assert "from 2 to 3 (speculative execution):" in verdict.log
    assert "R0 invalid mem access 'scalar'" in verdict.log
    assert "speculative" not in obj.programs["p"].verify(log_level=2).log
    assert obj.programs["p"].run(unpriv=True).r0 == 0
