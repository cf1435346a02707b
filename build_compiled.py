"""Compile the verifier with mypyc, for speed. Nothing needs it: the pure form is the source.

Usage: python build_compiled.py [--remove]

Wants the extra `compiled` and a C compiler; takes about two minutes. Writes extension modules to
verifier/_compiled with a digest of the sources they were made of: `import verifier` uses them
while the digest holds and BPFVM_COMPILED is not 0. They are no part of the wheel.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from mypyc.build import mypycify
from setuptools import setup

sys.path.insert(0, str(Path(__file__).resolve().parent))

from verifier.compiled import DIGEST, FOLDER, LEFT_PURE, digest, sources

ROOT = Path(__file__).resolve().parent


def main() -> None:
    """Compile, and replace what was compiled before."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    if sys.argv[1:] == ["--remove"]:
        return
    names = [str(path.relative_to(ROOT)) for path in sources() if path.stem not in LEFT_PURE]
    with tempfile.TemporaryDirectory() as work:
        extensions = mypycify(
            ["--config-file=", "--ignore-missing-imports", *names],
            opt_level=os.environ.get("MYPYC_OPT_LEVEL", "2"),
            debug_level="0",
            group_name="verifier.compiled",
            target_dir=f"{work}/c",
        )
        os.chdir(work)  # away from pyproject.toml, which is another build's
        setup(
            name="bpfvm-compiled",
            packages=[],
            ext_modules=extensions,
            script_args=["-q", "build_ext", f"--build-lib={work}/lib", f"--build-temp={work}/o"],
        )
        FOLDER.mkdir()
        for made in Path(work, "lib", "verifier").iterdir():
            shutil.copy2(made, FOLDER)
    (FOLDER / DIGEST).write_text(digest())
    sys.stdout.write(f"{len(names)} modules compiled to {FOLDER.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
