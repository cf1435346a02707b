"""Privileges: which of the kernel's capabilities a program is loaded with, and what follows.

The verifier asks the derived answers by name (`allow_ptr_leaks`, ...) and never a capability;
nothing else knows what an unprivileged user is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, unique

from bpfvm.errors import BpfError

__all__ = ["PRIVILEGED", "UNPRIVILEGED", "Capability", "Privileges"]


@unique
class Capability(Enum):
    """The capabilities that matter to BPF, by their number in capability.h."""

    NET_ADMIN = 12
    SYS_ADMIN = 21
    PERFMON = 38
    BPF = 39


@dataclass(frozen=True, slots=True, kw_only=True)
class Privileges:
    """What the user who loads a program may do.

    Attributes:
        allow_ptr_leaks: addresses may become numbers, be stored and returned.
        allow_uninit_stack: stack bytes that were never written may be read.
        bypass_spec_v1: what a CPU may do on a mispredicted path needs no proof.
        bypass_spec_v4: nor what it may do on a mispredicted store.
        bpf_capable: loops, subprogs and most helpers are there; programs may be long.
        net_admin, perfmon: program types of networks, and of tracing, may be loaded.
    """

    allow_ptr_leaks: bool = True
    allow_uninit_stack: bool = True
    bypass_spec_v1: bool = True
    bypass_spec_v4: bool = True
    bpf_capable: bool = True
    net_admin: bool = True
    perfmon: bool = True

    @classmethod
    def of(cls, capabilities: Iterable[Capability]) -> Privileges:
        """Return what *capabilities* give (kernel: bpf_token_capable and its users; CPU
        mitigations are on)."""
        held = frozenset(capabilities)
        if Capability.SYS_ADMIN in held:
            return PRIVILEGED
        perfmon = Capability.PERFMON in held
        return cls(
            allow_ptr_leaks=perfmon,
            allow_uninit_stack=perfmon,
            bypass_spec_v1=perfmon,
            bypass_spec_v4=perfmon,
            bpf_capable=Capability.BPF in held,
            net_admin=Capability.NET_ADMIN in held,
            perfmon=perfmon,
        )

    @classmethod
    def named(cls, names: Iterable[str]) -> Privileges:
        """Return what the capabilities called *names* give: "CAP_BPF", "bpf" or "39".

        Raises:
            BpfError: there is no such capability, or it has nothing to do with BPF.
        """
        return cls.of(_capability(name) for name in names)


#: Root: everything is allowed.
PRIVILEGED = Privileges()
#: A user with no capability at all.
UNPRIVILEGED = Privileges.of(())


def _capability(name: str) -> Capability:
    short = name.strip().upper().removeprefix("CAP_")
    for capability in Capability:
        if short in (capability.name, str(capability.value)):
            return capability
    known = ", ".join(f"CAP_{c.name}" for c in Capability)
    raise BpfError(f"unknown capability {name!r}: expected one of {known}")
