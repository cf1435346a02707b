"""The value domain's own sources at other widths, or over symbolic numbers.

`load` runs the files `verifier/{tnum,cnum,bounds,...}.py`, unchanged, with another module in place
of `verifier.width` (and, for the solver, of `functools.lru_cache`, `min` and `max`), so that what
is tried or proved is the code that runs.
"""

from __future__ import annotations

import ast
import builtins
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import verifier

__all__ = ["NAMES", "Sources", "load", "width_module"]

#: In the order of their imports.
NAMES = (
    "tnum", "cnum", "bounds", "branch", "alu", "cnum_bounds", "cnum_alu", "cnum_branch",
)  # fmt: skip
_FOLDER = Path(verifier.__file__).parent


class Sources:
    """The domain's modules as loaded: attributes `width`, `tnum`, ..."""

    def __init__(self, modules: Mapping[str, ModuleType]) -> None:
        self._modules = modules

    def __getattr__(self, name: str) -> Any:
        return self._modules[name]


def width_module(wide: int, half: int, byte: int) -> ModuleType:
    """Return what `verifier.width` is for numbers of *wide* bits, low halves of *half* bits and
    bytes of *byte* bits."""
    module = ModuleType("verifier.width")
    ones, low_ones = (1 << wide) - 1, (1 << half) - 1
    sign, low_sign = 1 << wide - 1, 1 << half - 1

    def sext(value: Any, bits: int) -> Any:
        top = 1 << bits - 1
        return ((value & (1 << bits) - 1) ^ top) - top

    def bswap(value: Any, bits: int) -> Any:
        swapped = value & 0
        for at in range(0, bits, byte):
            swapped |= (value >> at & (1 << byte) - 1) << bits - byte - at
        return swapped

    module.__dict__.update(
        WIDE=wide, HALF=half, BYTE=byte,
        U64_MAX=ones, S64_MAX=ones >> 1, S64_MIN=-sign, SIGN64=sign,
        U32_MAX=low_ones, S32_MAX=low_ones >> 1, S32_MIN=-low_sign, SIGN32=low_sign,
        s64=lambda x: sext(x, wide), s32=lambda x: sext(x, half),
        hi32=lambda x: x & (ones ^ low_ones), sext=sext, bswap=bswap,
    )  # fmt: skip
    return module


def _uncached(*args: Any, **_: Any) -> Any:
    return args[0] if args and callable(args[0]) else _uncached


def _well_cached(**_: Any) -> Any:
    """Return a cache for the many scalars there are: the sources' own are for a program's few."""
    return functools.lru_cache(1 << 20)


def load(
    wide: int = 64,
    half: int = 32,
    byte: int = 8,
    *,
    cached: bool = False,
    replaced: Mapping[str, Callable[..., Any]] | None = None,
    parse: Callable[[str, str], ast.Module] = ast.parse,
    stubs: Mapping[str, Mapping[str, Callable[..., Any]]] | None = None,
) -> Sources:
    """Return the domain's sources at the given widths, with the builtins *replaced*; *stubs* take
    the places of functions, by module, that are proved by themselves."""
    modules: dict[str, ModuleType] = {"width": width_module(wide, half, byte)}
    package = ModuleType("verifier")
    tools = ModuleType("functools")
    tools.__dict__.update(functools.__dict__)
    tools.__dict__["lru_cache"] = _well_cached if cached else _uncached

    def importing(name: str, *args: Any) -> Any:
        if name == "verifier":
            return package
        if name == "functools":
            return tools
        own = modules.get(name.removeprefix("verifier."))
        return own if own is not None else builtins.__import__(name, *args)

    names = {**builtins.__dict__, **(replaced or {}), "__import__": importing}
    for name in NAMES:
        path = _FOLDER / f"{name}.py"
        module = ModuleType(f"verifier.{name}")
        module.__dict__["__builtins__"] = names
        modules[name] = module
        exec(compile(parse(path.read_text(), str(path)), str(path), "exec"), module.__dict__)
        module.__dict__.update((stubs or {}).get(name, {}))
        setattr(package, name, module)
    return Sources(modules)
