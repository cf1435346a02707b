"""The verifier: says whether a program is safe, as the kernel would, and what engines may run."""

from verifier.api import verify

__all__ = ["verify"]
