"""The verifier rejects a program that uses a lookup's result untested.

Run it with `python examples/rejected.py`; `repaired.py` has the repair.
"""

from __future__ import annotations

from pathlib import Path

import bpfvm

OBJECT = Path(__file__).with_suffix(".bpf.o")


def main() -> None:
    """Show the verdict, and what the program would have done."""
    prog = bpfvm.open(OBJECT).programs["count_lengths"]

    verdict = prog.verify()
    assert not verdict.ok
    assert verdict.last == "R0 invalid mem access 'map_value_or_null'"
    print("rejected, in the kernel's words:", verdict.last)

    try:
        prog.run()
    except bpfvm.Rejected as err:
        print("it does not run:", err)
    else:
        raise AssertionError("a rejected program ran")

    # The sandbox runs it all the same, and checks each access instead: NULL is no memory.
    fault = sandbox_fault(prog)
    assert "invalid read of 8 bytes at 0x0" in fault
    print("unverified it ended at", fault)


def sandbox_fault(prog: bpfvm.Prog) -> str:
    """Return how a run of the unverified program ends."""
    try:
        prog.run(verify=False, data=bytes(64))
    except bpfvm.RunFault as fault:
        return str(fault)
    raise AssertionError("the sandbox let an access to NULL pass")


if __name__ == "__main__":
    main()
