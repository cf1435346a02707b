"""Programs by a grammar of what BPF programs do, done right or a little wrong."""

from bpfvm.grammar.families import FAMILIES, grammar_program

__all__ = ["FAMILIES", "grammar_program"]
