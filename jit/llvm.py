"""The one typed shell round llvmlite: text in, native code out. Nothing else imports llvmlite."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum, unique
from functools import cache
from typing import Any

import llvmlite.binding as llvm

from bpfvm.errors import InternalError

__all__ = ["Code", "Pipeline", "code_bytes", "compile_object", "native_text", "optimized_text"]


@unique
class Pipeline(IntEnum):
    """How much work goes into the code: LLVM's code generation level. From NORMAL on SROA comes
    first; without register allocation to speak of it would only make native frames bigger.

    LLVM's own pipelines (O1 and up) are not offered. The bytecode has been through one already,
    so they gain next to nothing, and they are no match for hostile input: SimplifyCFG was seen to
    abort the process on a thousand random jumps.
    """

    QUICK = 0
    NORMAL = 1
    THOROUGH = 2


@cache
def _initialize() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    # Without it the first inline assembly that is emitted aborts the process.
    llvm.initialize_native_asmparser()


def _target_machine(level: int) -> Any:  # noqa: ANN401  # llvmlite has no annotations
    _initialize()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=level,
        jit=True,
    )


@cache
def _shared_machine(level: int) -> Any:  # noqa: ANN401
    """Return a target machine for emitting; engines own theirs. llvmlite locks every call."""
    return _target_machine(level)


@contextmanager
def _optimized(text: str, pipeline: Pipeline) -> Iterator[tuple[Any, Any]]:
    """Give the module that *text* becomes, and the target machine it is for.

    Contexts and modules are closed here in their order: left to the garbage collector, a context
    may go before its module, which crashes.
    """
    machine = _shared_machine(pipeline)
    with llvm.create_context() as context:
        try:
            module = llvm.parse_assembly(text, context)
        except RuntimeError as e:
            raise InternalError(f"LLVM refuses what we lowered: {e}") from e
        with module:
            if pipeline is not Pipeline.QUICK:
                _run_passes(module, machine)
            yield module, machine


def _run_passes(module: Any, machine: Any) -> None:  # noqa: ANN401
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options())
    passes = llvm.create_new_function_pass_manager()
    passes.add_sroa_pass()
    for function in module.functions:
        if not function.is_declaration:
            passes.run(function, builder)


def optimized_text(text: str, pipeline: Pipeline) -> str:
    """Return the LLVM IR after the passes of *pipeline*."""
    with _optimized(text, pipeline) as (module, _):
        return str(module)


def native_text(text: str, pipeline: Pipeline) -> str:
    """Return the assembly of the code that *text* becomes."""
    with _optimized(text, pipeline) as (module, machine):
        return str(machine.emit_assembly(module))


def compile_object(text: str, pipeline: Pipeline) -> bytes:
    """Return the object file that *text* becomes on this host."""
    with _optimized(text, pipeline) as (module, machine):
        return bytes(machine.emit_object(module))


def code_bytes(image: bytes) -> bytes:
    """Return the machine code in an object file."""
    sections = llvm.ObjectFileRef.from_data(image).sections()
    return b"".join(bytes(section.data()) for section in sections if section.is_text())


class Code:
    """An object file in executable memory; its addresses are good while this object is alive."""

    def __init__(self, image: bytes) -> None:
        context = llvm.create_context()
        self._engine = llvm.create_mcjit_compiler(
            llvm.parse_assembly("", context), _target_machine(1)
        )
        # The finalizer holds both, so they never die in an order that the collector picks.
        weakref.finalize(self, _unload, self._engine, context).atexit = False
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(image))
        self._engine.finalize_object()

    def address(self, name: str) -> int:
        """Return the address of function *name*."""
        found = int(self._engine.get_function_address(name))
        if not found:
            raise InternalError(f"compiled code has no function {name}")
        return found


def _unload(engine: Any, context: Any) -> None:  # noqa: ANN401
    engine.close()
    context.close()
