"""Rebuild the objects of these programs: `python tests/programs/build.py`.

Needs clang 19 and the llvm-strip beside it: BTF stays, DWARF, which nothing here reads, goes.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from bpfvm.compile import compile_c, find_compiler

HERE = Path(__file__).resolve().parent

if __name__ == "__main__":
    compiler = find_compiler()
    strip = shutil.which(Path(compiler[0]).name.replace("clang", "llvm-strip"))
    if strip is None:
        sys.exit(f"no llvm-strip beside {Path(compiler[0]).name}")
    for source in sorted(HERE.glob("*.bpf.c")):
        target = source.with_suffix(".o")
        compile_c(source, target, compiler=compiler)
        subprocess.run([strip, "--strip-debug", str(target)], check=True)
        sys.stdout.write(f"{source.name} -> {target.name}: {target.stat().st_size} bytes\n")
