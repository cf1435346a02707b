"""The compiled form of this package, where `build_compiled.py` has made one.

It is used only while it stands for the very sources beside it; BPFVM_COMPILED=0 turns it off.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

__all__ = ["DIGEST", "FOLDER", "LEFT_PURE", "digest", "sources", "use"]

PACKAGE = Path(__file__).resolve().parent
FOLDER = PACKAGE / "_compiled"
DIGEST = "digest"
#: Modules that mypyc makes nothing good of: enums whose members are objects with a constructor,
#: classes that get attributes when the module is loaded, and what decides about the rest.
LEFT_PURE = frozenset({"__init__", "compiled", "reasons", "regtype"})


def sources() -> list[Path]:
    """Return the files of the package."""
    return sorted(PACKAGE.glob("*.py"))


def digest() -> str:
    """Return a digest of the sources and of the Python that they were compiled for."""
    total = hashlib.sha256(sys.version.encode())
    for path in sources():
        total.update(path.name.encode() + path.read_bytes())
    return total.hexdigest()


def use(path: list[str]) -> bool:
    """Let the package's *path* begin with the compiled form where that may be used; say so."""
    if os.environ.get("BPFVM_COMPILED") == "0" or not FOLDER.is_dir():
        return False
    made_of = FOLDER / DIGEST
    if not made_of.is_file() or made_of.read_text() != digest():
        return False
    path.insert(0, str(FOLDER))
    return True
