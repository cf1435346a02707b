"""What becomes of packet pointers when the packet may have moved."""

from __future__ import annotations

from verifier.env import Env
from verifier.state import Base, Mod, RegState, replace_regs

__all__ = ["forget_packets"]

_PACKETS = frozenset({Base.PACKET, Base.PACKET_META, Base.PACKET_END})


def forget_packets(env: Env) -> None:
    """Lose every packet pointer, slices of dynptrs too (kernel: clear_all_pkt_pointers)."""
    gone = env.ended_reg

    def change(reg: RegState) -> RegState | None:
        kind = reg.type
        return gone if kind.base in _PACKETS or kind.mods & Mod.PACKET_SLICE else None

    replace_regs(env.cur, change)
