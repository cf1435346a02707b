"""A writer of textual LLVM IR: names for values and labels, and the program's shared tables."""

from __future__ import annotations

from collections.abc import Sequence

from jit.state import FIRST_TRAP, Lowered, Site, Trap, Word

__all__ = ["FunctionText", "Tables"]


class Tables:
    """The tables of one program while it is lowered; equal entries share a number."""

    def __init__(self) -> None:
        self._sites: dict[Site, int] = {}
        self._traps: dict[Trap, int] = {}
        self._pool: dict[int, int] = {}

    def site(self, site: Site) -> int:
        """Return the number of *site*."""
        return self._sites.setdefault(site, len(self._sites))

    def trap(self, trap: Trap) -> int:
        """Return the value of STOP for *trap*."""
        return FIRST_TRAP + self._traps.setdefault(trap, len(self._traps))

    def pool(self, slot: int) -> int:
        """Return the index of the pool word for the ldimm64 in *slot*."""
        return self._pool.setdefault(slot, len(self._pool))

    def finish(self, text: str, callbacks: Sequence[int]) -> Lowered:
        """Return the tables with *text*."""
        return Lowered(
            text, tuple(self._sites), tuple(self._traps), tuple(self._pool), tuple(callbacks)
        )


class FunctionText:
    """One function being written. Blocks are opened by `label`; `%s` is the run state.

    No value is to be used in another block than its own: code that is compiled quickly gets a
    stack slot for each that is, and native frames must not grow with programs.
    """

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.lines: list[str] = []
        self.block = ""
        self._names = 0
        self._pointers: dict[Word, str] = {}
        self._constants: dict[Word, str] = {}

    def name(self, hint: str = "v") -> str:
        """Return a name not used before in this function (no sigil)."""
        self._names += 1
        return f"{hint}.{self._names}"

    def do(self, text: str) -> None:
        """Write an instruction without a result."""
        self.lines.append(f"  {text}")

    def remark(self, text: str) -> None:
        """Write a comment."""
        self.lines.append(f"  ; {text}")

    def value(self, text: str) -> str:
        """Write an instruction; return its result."""
        result = f"%{self.name()}"
        self.lines.append(f"  {result} = {text}")
        return result

    def label(self, name: str) -> None:
        """Open block *name*."""
        self.block = name
        self.lines.append(f"{name}:")

    def goto(self, label: str) -> None:
        """End the block with a jump."""
        self.do(f"br label %{label}")

    def branch(self, condition: str, yes: str, no: str, *, expect: bool | None = None) -> None:
        """End the block with a conditional jump. *expect*: the way it nearly always goes."""
        hint = {None: "", True: ", !prof !0", False: ", !prof !1"}[expect]
        self.do(f"br i1 {condition}, label %{yes}, label %{no}{hint}")

    def pointer(self, address: str) -> str:
        """Return *address* (i64) as a pointer."""
        return self.value(f"inttoptr i64 {address} to ptr")

    def word(self, word: Word) -> str:
        """Return a pointer to *word* of the run state, or to the first of its array."""
        if word == 0:
            return "%s"
        return self._pointers.setdefault(word, f"%at.{word.name.lower()}")

    def item(self, word: Word, index: str) -> str:
        """Return a pointer to the word at *index* of the array at *word*."""
        return self.value(f"getelementptr i64, ptr {self.word(word)}, i64 {index}")

    def get(self, word: Word) -> str:
        """Return the value that *word* has now."""
        return self.value(f"load i64, ptr {self.word(word)}")

    def put(self, word: Word, value: str) -> None:
        """Set *word*."""
        self.do(f"store i64 {value}, ptr {self.word(word)}")

    def constant(self, word: Word) -> str:
        """Return the value of a word that never changes during a run, loaded at entry."""
        self.word(word)
        return self._constants.setdefault(word, f"%{word.name.lower()}")

    def entry_lines(self) -> list[str]:
        """Return the instructions that make what `word` and `constant` promised."""
        pointers = [
            f"  {name} = getelementptr i64, ptr %s, i64 {int(word)}"
            for word, name in self._pointers.items()
        ]
        values = [
            f"  {name} = load i64, ptr {self.word(word)}" for word, name in self._constants.items()
        ]
        return pointers + values

    def stop_at(self, trap: Trap, address: str = "0") -> None:
        """End the block and the run with *trap*."""
        self.put(Word.ADDR, address)
        self.put(Word.STOP, str(self.tables.trap(trap)))
        self.goto("stop")

    def check_stop(self) -> None:
        """Leave the function where the run has been stopped."""
        go = self.name("go")
        stopped = self.value(f"icmp ne i64 {self.get(Word.STOP)}, 0")
        self.branch(stopped, "stop", go, expect=False)
        self.label(go)

    def call_out(self, site: Site) -> None:
        """Have Python serve *site*, the result in word RESULT. The run may end here."""
        self.do(f"call void @call_out(ptr %s, i64 %frame, i64 {self.tables.site(site)})")
        self.check_stop()
