"""Rebuild the objects of all examples: `python examples/build.py`.

Needs clang 19 or newer, or `pip install ziglang`. The objects hold no path of this machine.
"""

from __future__ import annotations

from pathlib import Path

from bpfvm.compile import compile_c, find_compiler

HERE = Path(__file__).resolve().parent

if __name__ == "__main__":
    print("compiler:", Path(find_compiler()[0]).name)
    for source in sorted(HERE.glob("*.bpf.c")):
        target = source.with_suffix(".o")
        size = len(compile_c(source, target))
        print(f"{source.name} -> {target.name}: {size} bytes")
