"""The LLVM JIT: compiles an xlated program to native code (import `jit.engine` for the engine).

Nothing here is imported before the JIT is asked for: llvmlite takes longer to import than most
programs take to run.
"""

from __future__ import annotations

__all__: list[str] = []
