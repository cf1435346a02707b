"""Fragments about numbers and the ways of a program: arithmetic, branches, loops, calls."""

from __future__ import annotations

from bpfvm.emit import edge_number
from bpfvm.grammar.core import ALU, CTX, FP, JUMPS, NUMBERS, PLAIN, Fragment, Grammar
from bpfvm.grammar.memory import use_index

__all__ = ["ARITHMETIC", "BRANCHES", "CALLS", "LOOPS", "NEW_NUMBERS"]

_MAX_DEPTH = 2
_MAX_FUNCTIONS = 4

# -- arithmetic ------------------------------------------------------------------------------------


def new_number(g: Grammar) -> None:
    """Put another number into r7 or r8."""
    g.some_number(g.number_reg())


def arithmetic(g: Grammar) -> None:
    """Compute a while, and use what comes out as an index."""
    for _ in range(g.rng.randrange(1, 5)):
        g.alu(*g.rng.sample(NUMBERS, 2))
    if g.maybe(0.6):
        use_index(g, g.number_reg())


def narrow_arithmetic(g: Grammar) -> None:
    """Compute with small numbers so that the result has bounds, and rely on them."""
    g.unknown(3)
    mask = g.rng.choice((1, 3, 7, 15, 0x30))
    g.emit("and_imm", 3, imm=mask)
    high = mask
    for _ in range(g.rng.randrange(1, 3)):
        kind = g.rng.randrange(8)
        if kind == 0:
            g.emit("mul_imm", 3, imm=2)
            high *= 2
        elif kind == 1:
            g.emit(g.rng.choice(("lsh_imm", "lsh32_imm")), 3, imm=1)
            high *= 2
        elif kind == 2:
            g.emit(g.rng.choice(("rsh_imm", "rsh32_imm", "arsh_imm")), 3, imm=1)
            high //= 2
        elif kind == 3:
            g.emit(g.rng.choice(("xor_imm", "or_imm", "or32_imm")), 3, imm=1)
            high |= 1
        elif kind == 4:
            g.emit(g.rng.choice(("add_imm", "add32_imm")), 3, imm=3)
            high += 3
        elif kind == 5:
            g.emit(g.rng.choice(("div_imm", "div32_imm")), 3, imm=2)
        elif kind == 6:
            g.emit("sub_imm", 3, imm=1)
            g.emit("add_imm", 3, imm=1)
        else:
            g.emit(g.rng.choice(("movsx864", "mov32_reg", "mod_imm")), 3, 3, imm=100)
            high = min(high, 127)
    g.map_value(4)
    g.emit("add_reg", 4, 3)
    room = 64 - high
    if g.slip(0.4):
        room += g.rng.choice((1, 2, 8))
    g.emit("ldxb", 0, 4, max(0, room - 1))


# -- branches --------------------------------------------------------------------------------------


def branch(g: Grammar) -> None:
    """if / else on numbers."""
    if g.depth >= _MAX_DEPTH:
        new_number(g)
        return
    a, b = g.number_reg(), g.number_reg()
    jump = g.emit(g.rng.choice(JUMPS), a, b, imm=edge_number(g.rng))
    g.block()
    if g.maybe(0.4):
        over = g.emit(g.rng.choice(("ja", "ja32")))
        g.patch(jump)
        g.block()
        g.patch(over)
    else:
        g.patch(jump)


def ladder(g: Grammar) -> None:
    """Compare one number again and again, then use what is known of it."""
    reg = g.number_reg()
    for _ in range(g.rng.randrange(1, 4)):
        g.out(
            g.rng.choice([j.mnemonic for j in JUMPS if not j.is_reg]), reg, imm=edge_number(g.rng)
        )
    use_index(g, reg)


def linked(g: Grammar) -> None:
    """Copies of a number, moved by constants: a check of one tells of the others."""
    a, b = g.rng.sample(NUMBERS, 2)
    g.unknown(a)
    if g.maybe(0.7):
        g.out("jgt_imm", a, imm=g.rng.choice((100, 1 << 20)))
    g.emit(g.rng.choice(("mov_reg", "mov_reg", "mov32_reg")), b, a)
    moved = g.rng.choice((0, 0, 1, 4, -1))
    if moved:
        g.emit(g.rng.choice(("add_imm", "add_imm", "add32_imm")), b, imm=moved)
    if g.maybe(0.3):
        g.emit("stxdw", FP, a, -104)
    limit = g.rng.choice((8, 13, 16))
    checked, used = (a, b) if g.maybe(0.5) else (b, a)
    g.out("jge_imm", checked, imm=limit)
    if used == a and g.maybe(0.3) and moved == 0:
        g.emit("ldxdw", 3, FP, -104) if g.current.insns[-2].off == -104 else None
    reach = limit + abs(moved)
    g.map_value(4, abs(moved))
    g.emit("add_reg", 4, used)
    room = 64 - reach - abs(moved)
    if g.slip(0.3):
        room = 64
    g.emit("ldxb", 0, 4, max(0, room))


def same_number(g: Grammar) -> None:
    """Equality tells of both sides."""
    a, b = g.rng.sample(NUMBERS, 2)
    limit = g.rng.choice((8, 16))
    g.bound(a, limit, 2)
    over = g.emit(g.rng.choice(("jeq_reg", "jeq_reg", "jle_reg", "jeq32_reg")), b, a)
    g.out("ja")
    g.patch(over)
    g.map_value(4)
    g.emit("add_reg", 4, b)
    g.access(4, 0, 64 - limit + 1, PLAIN)


# -- loops -----------------------------------------------------------------------------------------


def counted_loop(g: Grammar) -> None:
    """Count up or down to a constant or an unknown bound, and index by the counter."""
    if g.depth >= _MAX_DEPTH:
        new_number(g)
        return
    turns = g.rng.choice((1, 2, 4, 8))
    is_unknown = g.maybe(0.3)
    if is_unknown:
        g.unknown(3)
        g.emit("and_imm", 3, imm=7)
        g.emit("stxdw", FP, 3, -112)
    down = not is_unknown and g.maybe(0.4)
    g.emit("mov_imm", 9, imm=turns if down else 0)
    top = g.here
    out = g.emit("may_goto") if g.maybe(0.3) else None
    if g.maybe(0.7):
        g.map_value(4)
        g.emit("add_reg", 4, 9)
        g.access(4, 0, 64 - max(turns, 8), PLAIN)
    if g.slip(0.25):
        pass  # nothing changes: it never ends
    else:
        if g.maybe(0.3):
            g.alu(7, 8)
        g.emit("add_imm", 9, imm=-1 if down else 1)
    if is_unknown:
        g.emit("ldxdw", 3, FP, -112)
        back = g.emit(g.rng.choice(("jlt_reg", "jslt_reg")), 9, 3)
    elif down:
        back = g.emit(g.rng.choice(("jne_imm", "jsgt_imm", "jne32_imm")), 9)
    else:
        back = g.emit(g.rng.choice(("jlt_imm", "jne_imm", "jslt_imm")), 9, imm=turns)
    g.patch(back, top)
    if out is not None:
        g.patch(out)


def endless_loop(g: Grammar) -> None:
    """A loop that only may_goto ends."""
    if g.depth >= _MAX_DEPTH:
        new_number(g)
        return
    if g.maybe(0.5):
        g.emit("mov_imm", 9)
    else:
        g.emit("mov_reg", 9, g.number_reg())
    top = g.here
    out = g.emit("may_goto") if not g.slip(0.4) else None
    counts = out is not None and g.maybe(0.5)
    if counts:
        g.emit("add_imm", 9, imm=1)
    leaves = g.maybe(0.5)
    if leaves:
        g.out(g.rng.choice(("jgt_imm", "jeq_imm", "jset_imm")), 9, imm=g.rng.choice((3, 8)))
    # An index that counts without end would be walked without end.
    if g.maybe(0.4) and (leaves or not counts):
        g.emit("mov_reg", 3, 9)
        g.emit("and_imm", 3, imm=15)
        g.map_value(4)
        g.emit("add_reg", 4, 3)
        g.emit("stxb", 4, 7, 0)
    back = g.emit("ja")
    g.patch(back, top)
    if out is not None:
        g.patch(out)


# -- calls -----------------------------------------------------------------------------------------


def call_numbers(g: Grammar) -> None:
    """Call a function with numbers; use what it returns."""
    if len(g.functions) > _MAX_FUNCTIONS:
        new_number(g)
        return

    def write() -> None:
        if g.slip(0.1):
            g.emit("mov_reg", 0, g.rng.choice((6, 7)))
        elif g.maybe(0.5):
            g.emit("mov_reg", 0, 1)
            g.emit(g.rng.choice([r for r in ALU if r.is_reg and r.op is not None]), 0, 2)
        else:
            jump = g.emit(g.rng.choice(JUMPS), 1, 2, imm=edge_number(g.rng))
            g.emit("mov_imm", 1, imm=5)
            g.patch(jump)
            g.emit("mov_reg", 0, 1)
        g.emit("stxdw", FP, 0, -8)
        g.emit("exit")

    number = g.function(write)
    g.emit("mov_reg", 1, 7)
    if not g.slip(0.1):
        g.emit("mov_reg", 2, 8)
    else:
        g.emit("call_helper", imm=8)
        g.emit("mov_reg", 1, 0)
    g.call(number)
    g.emit("mov_reg", 7, g.rng.choice((0, 0, 1 if g.slip(0.3) else 0)))
    if g.maybe(0.5):
        use_index(g, 7)


def call_pointer(g: Grammar) -> None:
    """Call a function with the address of our stack, or of a map value; it writes or reads."""
    if len(g.functions) > _MAX_FUNCTIONS:
        new_number(g)
        return
    is_stack = g.maybe(0.6)
    returns = g.maybe(0.3) and (not is_stack or g.slip(0.3))

    def write() -> None:
        if is_stack:
            g.emit("mov_reg", 0, 2) if g.maybe(0.5) else g.emit("mov_imm", 0, imm=9)
            g.emit(g.rng.choice(("stxdw", "stxw", "stxb")), 1, 0, g.rng.choice((0, 8)))
        else:
            g.emit("ldxdw", 0, 1, 64 if g.slip(0.3) else g.rng.choice((0, 48)))
        if returns:
            g.emit("mov_reg", 0, FP if is_stack and g.maybe(0.5) else 1)
        g.emit("exit")

    number = g.function(write)
    if is_stack:
        g.emit("mov_reg", 1, FP)
        g.emit("add_imm", 1, imm=-120)
    else:
        g.map_value(1)
    g.emit("mov_reg", 2, 7)
    g.call(number)
    if returns:
        g.access(0, 0, 8)
    elif is_stack:
        g.emit(g.rng.choice(("ldxdw", "ldxw")), 3, FP, -120)
        use_index(g, 3)


def deep_stack(g: Grammar) -> None:
    """Functions that call each other and use a lot of stack, or too much."""
    if len(g.functions) > _MAX_FUNCTIONS - 2:
        new_number(g)
        return
    size = g.rng.choice((128, 200)) if not g.slip(0.4) else 400

    def leaf() -> None:
        g.emit("stdw", FP, off=-size, imm=1)
        g.emit("mov_imm", 0)
        g.emit("exit")

    last = g.function(leaf)

    def middle() -> None:
        g.emit("mov_reg", 6, 1)
        g.emit("stdw", FP, off=-32, imm=1)
        g.call(last)
        g.emit("mov_reg", 0, 6)
        g.emit("exit")

    number = g.function(middle)
    g.emit("mov_reg", 1, g.rng.choice((7, CTX)))
    g.call(number)
    if g.current.insns[-2].src == 7:
        g.emit("mov_reg", 8, 0)


ARITHMETIC: list[tuple[int, Fragment]] = [(4, arithmetic), (4, narrow_arithmetic)]
BRANCHES: list[tuple[int, Fragment]] = [(3, branch), (3, ladder), (3, linked), (2, same_number)]
LOOPS: list[tuple[int, Fragment]] = [(3, counted_loop), (2, endless_loop)]
CALLS: list[tuple[int, Fragment]] = [(2, call_numbers), (3, call_pointer), (1, deep_stack)]
NEW_NUMBERS: list[tuple[int, Fragment]] = [(2, new_number)]
