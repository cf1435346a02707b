"""The differential campaign: programs of the grammar, our verdict against the kernel's.

    python tests/campaign.py --count 1000 --seed 0            against the recorded answers
    python tests/campaign.py --count 1000 --seed 0 --kernel   ask the running kernel (6.18)
    python tests/campaign.py --kernel --record                and keep its answers
    python tests/campaign.py --safety [--rules 7.3]           run what is accepted

A program is (family, seed) and is made again from the two. Compared are verdict, errno and the
closing line. Programs on which 6.18's range tracking contradicts itself (it warns, and is
tainted), and those that take too long to walk, are not sent. Each program is on disk before it is
loaded. `campaign.md` lists what is known to differ, and why.
"""

from __future__ import annotations

import argparse
import re
import sys
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE / "verifier")]

from safety_kit import IS_PURE, check

from bpfvm import vm
from bpfvm.grammar import FAMILIES, grammar_program
from bpfvm.insn import encode
from bpfvm.kernel import KernelObject, refusal, running_rules
from bpfvm.program import MapFacts, ObjectFile, Program
from bpfvm.rules import KernelRules
from verifier import api, bounds, explore

RULES = "6.18"
RECORDED = HERE / "recorded" / f"campaign-{RULES}.txt"
#: Programs that process more insns than this are left out: here they take seconds.
MAX_WALK = 20_000
_FOLLOWS_US = "not supported yet: "
_TOO_LONG = "too long to walk"
_WARNS = "the kernel would warn"
_PAGE = 4096


@dataclass(frozen=True, slots=True)
class Answer:
    """A verdict: errno 0 is acceptance; *left_out* says why the kernel is not asked."""

    errno: int
    last: str = ""
    left_out: str = ""

    @property
    def ok(self) -> bool:
        """Whether the program is accepted."""
        return not self.errno


def digest(program: Program) -> str:
    """Return a few digits by which a program is known again."""
    text = encode(program.insns) + f"{program.prog_type} {program.flags}".encode()
    return f"{zlib.crc32(text):08x}"[:4]


def comparable(last: str) -> str:
    """Return a closing line without what is another number in each kernel."""
    return re.sub(r"#\d{4,}", "#", last)


def ours(program: Program, rules: str = RULES) -> Answer:
    """Return our verdict; contradictions are looked for while it is found."""
    facts = tuple(
        MapFacts(d, d.map_extra, d.map_extra + d.max_entries * _PAGE if d.map_extra else 0)
        for d in program.maps
    )
    limit, explore.MAX_PROCESSED = explore.MAX_PROCESSED, MAX_WALK
    try:
        with bounds.contradictions() as found:
            verdict = api.verify(
                program,
                facts,
                vm.REGISTRY,
                map_types=vm.MAP_TYPES,
                rules=KernelRules.of(rules),
                log_level=0,
            )
    finally:
        explore.MAX_PROCESSED = limit
    left_out = ""
    if verdict.reason == "too_large":
        left_out = _TOO_LONG
    elif verdict.last.startswith(_FOLLOWS_US):
        left_out = verdict.last
    elif found:
        left_out = _WARNS
    return Answer(verdict.errno, comparable(verdict.last), left_out)


def theirs(program: Program) -> Answer:
    """Return the running kernel's verdict."""
    with KernelObject(ObjectFile("campaign", {program.name: program}, program.maps)) as obj:
        verdict = obj.load(program).verdict
    return Answer(verdict.errno, comparable(verdict.last))


# -- records -----------------------------------------------------------------------------------


def read_records() -> dict[tuple[str, int], tuple[str, Answer]]:
    """Return (family, seed) to (digest, answer) as recorded."""
    found: dict[tuple[str, int], tuple[str, Answer]] = {}
    if not RECORDED.is_file():
        return found
    answer = Answer(0)
    family = ""
    for line in RECORDED.read_text().splitlines():
        if line.startswith("== "):
            family = line[3:]
        elif line.startswith("=> "):
            errno, _, last = line[3:].partition(" ")
            answer = Answer(int(errno), last)
        else:
            for item in line.split():
                seed, _, known = item.partition(":")
                found[family, int(seed)] = known, answer
    return found


def write_records(records: dict[tuple[str, int], tuple[str, Answer]]) -> None:
    """Write the answers, those that are alike together."""
    lines = []
    for family in FAMILIES:
        groups: dict[tuple[int, str], list[str]] = defaultdict(list)
        for (of, seed), (known, answer) in sorted(records.items()):
            if of == family:
                groups[answer.errno, answer.last].append(f"{seed}:{known}")
        if groups:
            lines.append(f"== {family}")
        for (errno, last), items in sorted(groups.items()):
            lines.append(f"=> {errno} {last}".rstrip())
            lines += [" ".join(items[i : i + 12]) for i in range(0, len(items), 12)]
    RECORDED.parent.mkdir(exist_ok=True)
    RECORDED.write_text("\n".join(lines) + "\n")


# -- the campaign --------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What a campaign has found."""

    asked: int = 0
    accepted: int = 0
    verdicts: int = 0  # that agree
    lasts: int = 0  # of agreeing rejections, and all acceptances
    left_out: Counter[str] = field(default_factory=Counter)
    classes: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def compare(self, name: str, mine: Answer, answer: Answer) -> None:
        """Count one program."""
        self.asked += 1
        self.accepted += answer.ok
        if (mine.errno, mine.last) == (answer.errno, answer.last):
            self.verdicts += 1
            self.lasts += 1
            return
        generic = [re.sub(r"-?\d+|0x[0-9a-f]+", "N", x.last) for x in (mine, answer)]
        if mine.ok != answer.ok:
            kind = "SUSPECT: we accept" if mine.ok else "we reject"
            self.classes[f"{kind}: ours {generic[0]!r}, kernel {generic[1]!r}"].append(name)
            return
        self.verdicts += 1
        kind = "line" if mine.errno == answer.errno else f"errno {mine.errno}/{answer.errno}"
        self.classes[f"{kind}: ours {generic[0]!r}, kernel {generic[1]!r}"].append(name)

    def report(self) -> None:
        """Print the figures and the classes of disagreement."""
        asked = max(1, self.asked)
        print(
            f"{self.asked} programs compared, {self.accepted / asked:.0%} accepted by the kernel: "
            f"verdict {self.verdicts / asked:.2%}, closing line and errno {self.lasts / asked:.2%}"
        )
        for why, count in self.left_out.most_common():
            print(f"  left out {count}: {why}")
        for what, names in sorted(self.classes.items(), key=lambda item: -len(item[1])):
            print(f"  {len(names):5} {what}  e.g. {' '.join(names[:4])}")


def programs(count: int, seed: int, families: list[str]) -> Iterator[tuple[str, int, Program]]:
    """Yield *count* programs of *families*, one family after the other."""
    for i, family in enumerate(families):
        share = count // len(families) + (i < count % len(families))
        for number in range(seed, seed + share):
            yield family, number, grammar_program(number, family)


def campaign(options: argparse.Namespace) -> Outcome:
    """Compare verdicts."""
    outcome = Outcome()
    records = read_records()
    for family, seed, program in programs(options.count, options.seed, options.family):
        recorded = records.get((family, seed))
        if options.kernel is False and (recorded is None or recorded[0] != digest(program)):
            outcome.left_out["no recorded answer"] += 1
            continue
        mine = ours(program)
        if mine.left_out:
            outcome.left_out[mine.left_out] += 1
            continue
        if not options.kernel:
            assert recorded is not None
            answer = recorded[1]
        elif options.again or recorded is None or recorded[0] != digest(program):
            answer = theirs(program)
            if options.record:
                records[family, seed] = digest(program), answer
        else:
            answer = recorded[1]
        outcome.compare(f"{family}:{seed}", mine, answer)
    if options.record:
        write_records(records)
    return outcome


def safety(options: argparse.Namespace) -> int:
    """Run all that is accepted; return how many violations there were."""
    found = compared = accepted = 0
    for family, seed, program in programs(options.count, options.seed, options.family):
        answer = ours(program, options.rules)
        if not answer.ok:
            continue
        accepted += 1
        checked = check(program, options.rules)
        compared += checked.by_path
        if checked.violation:
            found += 1
            print(f"violation: {family}:{seed}: {checked.violation}", flush=True)
    print(
        f"{accepted} accepted programs ran under the rules of {options.rules}, {compared} compared"
        f" at every insn of their paths: {found} violations"
    )
    return found


def main(args: list[str] | None = None) -> int:
    """Run the campaign of the command line; 1 if something differs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--count", type=int, default=1000, help="how many programs")
    parser.add_argument("--seed", type=int, default=0, help="of the first of each family")
    parser.add_argument("--family", choices=list(FAMILIES), action="append")
    parser.add_argument("--kernel", action="store_true", help="ask it what is not recorded")
    parser.add_argument("--again", action="store_true", help="ask what is recorded, too")
    parser.add_argument("--record", action="store_true", help="keep the answers")
    parser.add_argument("--safety", action="store_true", help="run what is accepted")
    parser.add_argument("--rules", default=RULES, help="for --safety")
    options = parser.parse_args(args)
    options.family = options.family or list(FAMILIES)
    if options.safety and not IS_PURE:
        print("--safety needs the pure form of the verifier: BPFVM_COMPILED=0", file=sys.stderr)
        return 2
    if options.safety:
        return 1 if safety(options) else 0
    why = refusal() if options.kernel else None
    if why is None and options.kernel and running_rules() != RULES:
        why = f"its rules are not those of {RULES}"
    if why is not None:
        print(f"the running kernel is not asked: {why}", file=sys.stderr)
        return 2
    outcome = campaign(options)
    outcome.report()
    return 1 if outcome.classes else 0


if __name__ == "__main__":
    sys.exit(main())
