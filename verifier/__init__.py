"""The verifier: says whether a program is safe, as the kernel would, and what engines may run."""

from verifier.api import contradicts, verify

__all__ = ["contradicts", "verify"]
