"""Rebuild the object: `python tests/annotated/build.py`. Needs clang 19 and its llvm-strip."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from bpfvm.compile import compile_c, find_compiler

SOURCE = Path(__file__).resolve().parent / "annotated.bpf.c"

if __name__ == "__main__":
    compiler = find_compiler()
    strip = shutil.which(Path(compiler[0]).name.replace("clang", "llvm-strip"))
    if strip is None:
        sys.exit(f"no llvm-strip beside {Path(compiler[0]).name}")
    target = SOURCE.with_suffix(".o")
    compile_c(SOURCE, target, compiler=compiler)
    subprocess.run([strip, "--strip-debug", str(target)], check=True)
