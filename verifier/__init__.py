"""The verifier: says whether a program is safe, as the kernel would, and what engines may run."""

# ruff: noqa: E402  # the compiled form is found before the first module is imported
from verifier import compiled

compiled.use(__path__)

from verifier.api import contradicts, verify

__all__ = ["contradicts", "verify"]
