"""Fragments about memory: stack, map values, packets, contexts, the arena."""

from __future__ import annotations

from bpfvm.context import PROG_TYPES, CtxKind
from bpfvm.emit import NUMBER_FIELDS, edge_number, rows
from bpfvm.grammar.core import CTX, FP, PLAIN, Fragment, Grammar
from bpfvm.isa import AtomicOp, InsnDef, Kind

__all__ = ["ARENA", "CONTEXT", "LIMITS", "MAPS", "PACKETS", "STACK"]

_LOOKUP, _UPDATE, _DELETE = 1, 2, 3
_STORES = {1: "stxb", 2: "stxh", 4: "stxw", 8: "stxdw"}
_LOADS = {1: ("ldxb", "ldxsb"), 2: ("ldxh", "ldxsh"), 4: ("ldxw", "ldxsw"), 8: ("ldxdw",)}
_BYTES = tuple(row for row in PLAIN if row.size == 1)
_WORDS = tuple(row for row in PLAIN if row.size == 8)
_ARENA_ROWS = (
    *rows(Kind.LDX, Kind.ST, Kind.STX, Kind.LOAD_ACQ, Kind.STORE_REL),
    *(
        row
        for row in rows(Kind.ATOMIC)
        if not (row.fetch and row.op in (AtomicOp.AND, AtomicOp.OR, AtomicOp.XOR))
    ),
)

# -- stack -----------------------------------------------------------------------------------------


def spill_and_fill(g: Grammar) -> None:
    """Spill a number, maybe overwrite a part, fill a part of it, and use it as an index."""
    slot = g.rng.choice((-8, -16, -24, -64))
    g.emit(_STORES[g.rng.choice((8, 8, 4, 2, 1))], FP, g.number_reg(), slot)
    if g.maybe(0.4):
        size = g.rng.choice((1, 2, 4))
        off = slot + g.rng.randrange(0, 8, size)
        if g.maybe(0.5):
            g.emit({1: "stb", 2: "sth", 4: "stw"}[size], FP, off=off, imm=edge_number(g.rng))
        else:
            g.emit(_STORES[size], FP, g.number_reg(), off)
    size = g.rng.choice((8, 8, 4, 4, 2, 1))
    off = slot + (g.rng.randrange(0, 8, size) if g.maybe(0.4) else 0)
    reg = g.number_reg() if g.maybe(0.5) else 3
    g.emit(g.rng.choice(_LOADS[size]), reg, FP, off)
    if g.maybe(0.6):
        use_index(g, reg)


def use_index(g: Grammar, reg: int) -> None:
    """Bound the number in *reg* and use it as an index into something of a known size."""
    limit = g.rng.choice((1, 4, 8, 13, 16, 32))
    g.bound(reg, limit, 2)
    if g.maybe(0.5):
        g.map_value(4, g.rng.choice((0, 0, 8)))
        room = 64 - g.current.insns[-1].imm
        g.emit("add_reg", 4, reg)
        g.access(4, 0, room - limit + 1, *_rarely_all(g))
        return
    g.emit("mov_reg", 4, FP)
    g.emit("add_imm", 4, imm=-64)
    if g.slip(0.1):
        g.emit("sub_reg", 4, reg)
        g.access(4, -128, -1, _BYTES)
    elif limit <= 8 and g.maybe(0.5):
        g.emit("lsh_imm", reg, imm=3)
        g.emit("add_reg", 4, reg)
        g.access(4, 0, 64 - 8 * (limit - 1), _WORDS)
    else:
        g.emit("add_reg", 4, reg)
        g.access(4, 0, 64 - limit + 1, PLAIN if g.slip(0.1) else _BYTES)


def _rarely_all(g: Grammar) -> tuple[tuple[InsnDef, ...], ...]:
    """Return no kinds of access (all of them, and atomics want alignment), mostly the plain."""
    return () if g.slip(0.1) else (PLAIN,)


def spilled_pointer(g: Grammar) -> None:
    """Spill a pointer, fill it back (or a part of it) and go through it."""
    kind = g.rng.randrange(3)
    if kind == 0:
        g.map_value(3)
        low, high = 0, 64
    elif kind == 1:
        g.emit("mov_reg", 3, FP)
        low, high = -64, 0
    else:
        g.emit("mov_reg", 3, CTX)
        low, high = 0, 4
    g.emit("stxw" if g.slip(0.1) else "stxdw", FP, 3, -40)
    if g.slip(0.2):
        g.emit(g.rng.choice(("stb", "stw")), FP, off=-40 + g.rng.choice((0, 4)), imm=1)
    g.emit("ldxw" if g.slip(0.1) else "ldxdw", 4, FP, -40)
    if kind == 2:
        g.emit(*_ctx_load(g, 0, 4))
    elif kind == 1:
        g.access(4, -g.rng.choice((8, 16, 64)), 0, _WORDS)
    else:
        g.access(4, low, high, PLAIN)


def stack_bytes(g: Grammar) -> None:
    """Write and read pieces of the stack by constant offsets, also outside of it."""
    for _ in range(g.rng.randrange(1, 4)):
        if g.slip(0.15):
            off = g.rng.choice((-513, -512, -7, -3, 0, 8))
            g.emit(g.rng.choice(("ldxdw", "ldxw", "stxdw", "stxb")), *_pair(g, off))
        else:
            g.access(FP, g.rng.choice((-512, -128, -32)), 0)


def _pair(g: Grammar, off: int) -> tuple[int, int, int]:
    """Return dst, src and off of an access to the stack whichever way it goes."""
    del g
    return FP, FP, off


def variable_stack(g: Grammar) -> None:
    """Access the stack at an offset that is not known."""
    if g.maybe(0.6):
        for off in range(-64, 0, 8):
            if g.maybe(0.8):
                if g.maybe(0.5):
                    g.emit("stdw", FP, off=off, imm=g.rng.choice((0, 0, 1, -1)))
                else:
                    g.emit("stxdw", FP, g.number_reg(), off)
    reg = g.number_reg() if g.maybe(0.5) else 3
    if reg == 3:
        g.unknown(3)
    g.bound(reg, g.rng.choice((8, 16, 32)), 2)
    g.emit("mov_reg", 4, FP)
    g.emit("add_imm", 4, imm=-64)
    g.emit("add_reg", 4, reg)
    g.access(4, 0, 32, PLAIN if g.slip(0.1) else _BYTES)
    if g.maybe(0.4):
        g.emit(g.rng.choice(_LOADS[8]), 3, FP, g.rng.choice((-64, -56, -8)))
        use_index(g, 3)


def zero_slots(g: Grammar) -> None:
    """Zeros in memory are known to be zeros: read them, in pieces, as an index."""
    g.emit("mov_imm", 3, imm=0 if g.maybe(0.8) else 5)
    g.emit(g.rng.choice(("stxdw", "stxw")), FP, 3, -48)
    if g.maybe(0.5):
        g.emit("stw", FP, off=-44, imm=0)
    g.emit(g.rng.choice(("ldxdw", "ldxw", "ldxh", "ldxb")), 3, FP, -48 + g.rng.choice((0, 0, 2, 4)))
    g.map_value(4)
    g.emit("add_reg", 4, 3)
    g.access(4, 0, 48)


# -- maps ------------------------------------------------------------------------------------------


def key(g: Grammar, reg: int) -> None:
    """Make *reg* the address of a key."""
    if g.maybe(0.8):
        g.emit("stw", FP, off=-4, imm=g.rng.choice((0, 1, 3, 4)))
    else:
        g.emit("stxw", FP, g.number_reg(), -4)
    g.emit("mov_reg", reg, FP)
    g.emit("add_imm", reg, imm=-2 if g.slip(0.1) else -4)


def lookup(g: Grammar, into: int, name: str | None = None) -> None:
    """Look an element up; *into* holds it, or null."""
    g.map_ptr(1, name or g.rng.choice(("hash", "array", "array", "hash", "rdonly", "wronly")))
    key(g, 2)
    g.emit("call_helper", imm=_LOOKUP)
    if into:
        g.emit("mov_reg", into, 0)


def null_check(g: Grammar, reg: int) -> None:
    """Jump out where *reg* is null."""
    if g.slip(0.3):
        return
    kind = g.rng.randrange(4)
    if kind == 0:
        over = g.emit("jne_imm", reg)
        g.out("ja")
        g.patch(over)
    elif kind == 1 and g.slip(0.5):
        g.out("jne_imm", reg)
    else:
        g.out("jeq_imm", reg)


def element(g: Grammar) -> None:
    """Look up, check, access the element."""
    name = g.rng.choice(("hash", "array", "rdonly", "wronly"))
    lookup(g, g.rng.choice((0, 3, 9)), name)
    reg = g.current.insns[-1].dst if g.current.insns[-1].opcode == 0xBF else 0
    checked = reg
    if g.maybe(0.3):
        checked = g.rng.choice([r for r in (0, 3, 9) if r != reg])
        if checked == 0 and reg != 0:
            pass  # r0 has it still
        else:
            g.emit("mov_reg", checked, reg)
    if g.maybe(0.2):
        g.emit("stxdw", FP, reg, -72)
    null_check(g, checked)
    if g.maybe(0.2):
        reg = checked
    kinds = PLAIN
    if name == "rdonly" and not g.slip(0.3):
        kinds = rows(Kind.LDX)
    elif name == "wronly" and not g.slip(0.3):
        kinds = rows(Kind.ST)
    for _ in range(g.rng.randrange(1, 3)):
        g.access(reg, 0, 16, kinds)
        if reg == 0:
            break


def element_index(g: Grammar) -> None:
    """Look up and go into the element by an index."""
    lookup(g, 9, g.rng.choice(("hash", "array")))
    null_check(g, 9)
    reg = g.number_reg() if g.maybe(0.5) else 3
    if reg == 3:
        g.some_number(3)
    limit = g.rng.choice((4, 8, 12, 13, 16))
    g.bound(reg, limit, 2)
    g.emit("add_reg", 9, reg)
    g.access(9, 0, 16 - limit + 1, *_rarely_all(g))


def spilled_element(g: Grammar) -> None:
    """Spill what may be null, check one copy, use another."""
    lookup(g, 0, g.rng.choice(("hash", "array")))
    g.emit("stxdw", FP, 0, -80)
    if g.maybe(0.4):
        lookup(g, 0, "hash")
    if g.slip(0.2):
        g.emit("stb", FP, off=-79, imm=0)
    if g.maybe(0.5):
        g.emit("ldxdw", 9, FP, -80)
        null_check(g, g.rng.choice((9, 9, 9, 0)) if g.slips else 9)
    else:
        g.emit("ldxdw", 9, FP, -80)
        null_check(g, 9)
        g.emit("ldxdw", 9, FP, -80)
    g.access(9, 0, 16)


def change(g: Grammar) -> None:
    """Update or delete an element, with key and value in different places."""
    name = g.rng.choice(("hash", "array", "hash", "rdonly", "wronly"))
    for off in (-24, -16):
        if not g.maybe(0.1):
            g.emit("stdw", FP, off=off, imm=edge_number(g.rng))
    if g.maybe(0.3):
        g.map_value(9, g.rng.choice((0, 48, 56 if g.slip() else 48)))
        g.emit("mov_reg", 3, 9)
    else:
        g.emit("mov_reg", 3, FP)
        g.emit("add_imm", 3, imm=-8 if g.slip(0.2) else -24)
    key(g, 2)
    g.map_ptr(1, name)
    if g.maybe(0.7):
        g.emit("mov_imm", 4, imm=g.rng.randrange(4))
        if g.slip(0.1):
            g.emit("mov_reg", 4, FP)
        g.emit("call_helper", imm=_UPDATE)
    else:
        g.emit("call_helper", imm=_DELETE)
    if g.maybe(0.3):
        g.emit("mov_reg", 7, 0)
    if g.slip(0.1):
        g.emit("mov_reg", 0, g.rng.choice((1, 2, 3)))


def direct_value(g: Grammar) -> None:
    """Use the map value that needs no lookup, with an index or at constant offsets."""
    if g.maybe(0.5):
        g.map_value(3, g.rng.choice((0, 8, 60)))
        room = 64 - g.current.insns[-1].imm
        for _ in range(g.rng.randrange(1, 3)):
            g.access(3, 0, room)
    else:
        reg = g.number_reg()
        use_index(g, reg)


# -- packets and contexts --------------------------------------------------------------------------


def packet(g: Grammar) -> None:
    """Prove some bytes of the packet and use them, or a few too many."""
    fields = {f.kind: f.off for f in PROG_TYPES[g.prog_type].fields or ()}
    if CtxKind.PACKET not in fields:
        g.emit("mov_imm", 0)
        return
    start = CtxKind.PACKET
    if CtxKind.PACKET_META in fields and g.maybe(0.15):
        start = CtxKind.PACKET_META
    end = CtxKind.PACKET if start is CtxKind.PACKET_META and g.maybe(0.8) else CtxKind.PACKET_END
    g.emit("ldxw", 2, CTX, fields[start])
    g.emit("ldxw", 3, CTX, fields[end])
    variable = 0
    if g.maybe(0.4):
        reg = g.number_reg()
        variable = g.rng.choice((4, 16, 256))
        g.bound(reg, variable, 4)
        g.emit("add_reg", 2, reg)
    proven = g.rng.choice((1, 4, 8, 14, 34))
    before = g.rng.choice((0, 0, 4)) if not variable else 0
    if before:
        g.emit("add_imm", 2, imm=before)
        proven += before
    g.emit("mov_reg", 4, 2)
    g.emit("add_imm", 4, imm=proven - before)
    _prove(g)
    low = -before
    kinds = PLAIN if start is CtxKind.PACKET else rows(Kind.LDX)
    for _ in range(g.rng.randrange(1, 3)):
        g.access(2, low, proven - before, kinds)
    if g.maybe(0.3):
        g.emit("ldxb" if proven - before < 2 else g.rng.choice(("ldxb", "ldxh")), 7, 2, 0)


def _prove(g: Grammar) -> None:
    """Compare r4 with the packet's end in r3, and jump out where it is beyond."""
    if g.slip(0.25):
        if g.maybe(0.5):
            return
        g.out(g.rng.choice(("jge_reg", "jlt_reg", "jle_reg")), *g.rng.choice(((4, 3), (3, 4))))
        return
    ways = (
        ("jgt_reg", 4, 3, False),
        ("jlt_reg", 3, 4, False),
        ("jle_reg", 4, 3, True),
        ("jge_reg", 3, 4, True),
        ("jge_reg", 4, 3, False),
        ("jle_reg", 3, 4, False),
        ("jlt_reg", 4, 3, True),
        ("jgt_reg", 3, 4, True),
    )
    row, a, b, is_over = g.rng.choice(ways)
    if is_over:
        over = g.emit(row, a, b)
        g.out("ja")
        g.patch(over)
    else:
        g.out(row, a, b)


def _ctx_load(g: Grammar, reg: int, base: int) -> tuple[str, int, int, int]:
    known = NUMBER_FIELDS.get(g.prog_type)
    if known is None:
        off = g.rng.choice((0, 8, 16, 3 if g.slip(0.2) else 8))
        return g.rng.choice(("ldxdw", "ldxw", "ldxb")), reg, base, off
    off = g.rng.choice(known)
    if g.slip(0.2):
        off = g.rng.choice((off + 2, 1024, -4, 79, 177, 96))
    row = "ldxw"
    if g.prog_type != "xdp" or g.slip(0.1):
        row = g.rng.choice(("ldxw", "ldxw", "ldxh", "ldxb"))
    return row, reg, base, off


def context(g: Grammar) -> None:
    """Read a field of the context, now and then write one."""
    row, reg, base, off = _ctx_load(g, g.number_reg(), CTX)
    if g.maybe(0.1):
        g.emit("mov_reg", 3, CTX)
        if g.slip(0.5):
            g.emit("add_imm", 3, imm=8)
        base = 3
    g.emit(row, reg, base, off)
    if g.slip(0.1):
        g.emit("stxw", CTX, reg, off)
    elif g.prog_type == "syscall" and g.maybe(0.3):
        g.emit("stxdw", CTX, reg, g.rng.choice((0, 8, 24)))
    elif g.prog_type == "sched_cls" and g.maybe(0.2):
        g.emit("stxw", CTX, 7, 8)  # mark


# -- the arena -------------------------------------------------------------------------------------


def arena_access(g: Grammar) -> None:
    """Cast, compute, go through the result; or forget the cast."""
    if g.prog_type == "syscall" and g.maybe(0.4):
        g.map_ptr(1, "arena")
        g.emit("mov_imm", 2)
        g.emit("mov_imm", 3, imm=g.rng.randrange(1, 4))
        g.emit("mov_imm", 4, imm=-1)
        g.emit("mov_imm", 5)
        g.kfunc("bpf_arena_alloc_pages")
        g.emit("mov_reg", 3, 0)
    elif g.maybe(0.5):
        g.map_ptr(3, "arena")
    else:
        g.map_ptr(3, "arena")
        g.emit("mov_reg", 3, g.number_reg())
    if not g.slip(0.2):
        g.emit("cast_kern", 3, 3)
    for _ in range(g.rng.randrange(3)):
        arena_alu(g, 3)
    g.access(3, -64, 4096, _ARENA_ROWS)
    if g.maybe(0.3):
        g.emit("cast_user", 3, 3)
        if g.slip(0.3):
            g.access(3, 0, 64, _ARENA_ROWS)
        else:
            g.emit("stxdw", FP, 3, -88)
            g.emit("ldxdw", 4, FP, -88)
            g.emit("cast_kern", 4, 4)
            g.access(4, 0, 64, _ARENA_ROWS)


def arena_alu(g: Grammar, reg: int) -> None:
    """Compute with an arena pointer in *reg*: it stays one, mostly."""
    kind = g.rng.randrange(6)
    if kind == 0:
        g.emit("add_reg", reg, g.number_reg())
    elif kind == 1:
        g.emit(
            g.rng.choice(("add_imm", "sub_imm", "and_imm", "or_imm")), reg, imm=edge_number(g.rng)
        )
    elif kind == 2:
        g.emit("mov_reg", 4, g.number_reg())
        g.emit("add_reg", 4, reg)
        g.emit("mov_reg", reg, 4)
    elif kind == 3:
        g.out(g.rng.choice(("jeq_imm", "jgt_imm", "jslt_imm")), reg, imm=edge_number(g.rng))
    elif kind == 4:
        g.emit(g.rng.choice(("lsh_imm", "rsh_imm")), reg, imm=g.rng.choice((1, 12, 32)))
    elif g.slip(0.5):
        g.emit(g.rng.choice(("neg", "mov32_reg", "add32_imm")), reg, reg, imm=4)


def arena_helper(g: Grammar) -> None:
    """Hand an arena pointer to a helper that may not have it, or may."""
    g.map_ptr(3, "arena")
    g.emit("cast_kern", 3, 3)
    if g.slip(0.4):
        g.emit("mov_reg", 2, 3)
        g.map_ptr(1, "hash")
        g.emit("call_helper", imm=_LOOKUP)
    else:
        g.emit("stxdw", FP, 3, -96)
        g.emit("ldxdw", 9, FP, -96)
        g.access(9, 0, 64, _ARENA_ROWS)


# -- near the limits -------------------------------------------------------------------------------


def far_pointer(g: Grammar) -> None:
    """Move a pointer far, perhaps back again, and go through it."""
    is_stack = g.maybe(0.5)
    if is_stack:
        g.emit("mov_reg", 3, FP)
        low, high = -64, 0
    else:
        g.map_value(3)
        low, high = 0, 64
    far = g.rng.choice((1 << 29, (1 << 29) - 1, -(1 << 29), 4096, -4096, 0x7FFFFFFF, 32767))
    g.emit("add_imm", 3, imm=far)
    if not g.slip(0.3):
        g.emit(g.rng.choice(("sub_imm",)), 3, imm=far)
    if g.maybe(0.3):
        reg = g.number_reg()
        if not g.slip(0.4):
            g.emit("and_imm", reg, imm=7)
        g.emit(g.rng.choice(("add_reg", "sub_reg")) if g.slip() else "add_reg", 3, reg)
        high -= 8
    g.access(3, low, high, _BYTES if is_stack else PLAIN)


def pointer_alu(g: Grammar) -> None:
    """Compute with a pointer as one may, or may not."""
    if g.maybe(0.5):
        g.map_value(3)
    else:
        g.emit("mov_reg", 3, FP)
    if g.slip(0.5):
        row = g.rng.choice(
            ("mul_imm", "and_imm", "xor_reg", "lsh_imm", "add32_imm", "neg", "or_imm")
        )
        g.emit(row, 3, g.number_reg(), imm=8)
    elif g.maybe(0.5):
        g.emit("mov_reg", 4, 3)
        g.emit("add_imm", 4, imm=8)
        g.emit("sub_reg", 4, 3)
        g.emit("mov_reg", g.number_reg(), 4)
    else:
        g.emit("mov_reg", 4, g.number_reg())
        g.emit("and_imm", 4, imm=15)
        g.emit("add_reg", 4, 3)
        if g.slip(0.3):
            g.emit("add_reg", 4, 3)


STACK: list[tuple[int, Fragment]] = [
    (4, spill_and_fill),
    (3, spilled_pointer),
    (3, stack_bytes),
    (3, variable_stack),
    (2, zero_slots),
]
MAPS: list[tuple[int, Fragment]] = [
    (3, element),
    (3, element_index),
    (2, spilled_element),
    (2, change),
    (2, direct_value),
]
PACKETS: list[tuple[int, Fragment]] = [(5, packet)]
CONTEXT: list[tuple[int, Fragment]] = [(2, context)]
ARENA: list[tuple[int, Fragment]] = [(4, arena_access), (1, arena_helper)]
LIMITS: list[tuple[int, Fragment]] = [(2, far_pointer), (2, pointer_alu)]
