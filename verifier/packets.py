"""What becomes of packet pointers when the packet may have moved."""

from __future__ import annotations

from verifier.state import UNKNOWN_REG, Base, Mod, RegState, VerifierState, replace_regs

__all__ = ["forget_packets"]

_PACKETS = frozenset({Base.PACKET, Base.PACKET_META, Base.PACKET_END})


def forget_packets(state: VerifierState) -> None:
    """Make every packet pointer a scalar, slices of dynptrs too (kernel:
    clear_all_pkt_pointers)."""

    def change(reg: RegState) -> RegState | None:
        kind = reg.type
        return UNKNOWN_REG if kind.base in _PACKETS or kind.mods & Mod.PACKET_SLICE else None

    replace_regs(state, change)
