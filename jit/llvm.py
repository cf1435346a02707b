"""The one typed shell round llvmlite: text in, native code out. Nothing else imports llvmlite."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, unique
from functools import cache
from typing import Any

import llvmlite.binding as llvm

from bpfvm.errors import InternalError

__all__ = ["Code", "Pipeline", "compile_object", "load_object", "native_text", "optimized_text"]


@unique
class Pipeline(Enum):
    """How much work goes into the code: (optimisation passes, code generation level)."""

    QUICK = ("sroa", 0)
    NORMAL = ("sroa", 1)
    LEVEL2 = ("sroa", 2)
    FULL = ("O2", 2)

    def __init__(self, passes: str, codegen: int) -> None:
        self.passes, self.codegen = passes, codegen


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


def _optimize(text: str, pipeline: Pipeline) -> tuple[Any, Any]:
    machine = _shared_machine(pipeline.codegen)
    try:
        module = llvm.parse_assembly(text, llvm.create_context())
    except RuntimeError as e:
        raise InternalError(f"LLVM refuses what we lowered: {e}") from e
    tuning = llvm.create_pipeline_tuning_options(speed_level=2)
    # Of scalar code they make slower code that takes longer to compile (performance.md).
    tuning.loop_vectorization = tuning.slp_vectorization = False
    builder = llvm.create_pass_builder(machine, tuning)
    if pipeline.passes == "O2":
        builder.getModulePassManager().run(module, builder)
    else:
        passes = llvm.create_new_function_pass_manager()
        passes.add_sroa_pass()
        for function in module.functions:
            if not function.is_declaration:
                passes.run(function, builder)
    return module, machine


def optimized_text(text: str, pipeline: Pipeline) -> str:
    """Return the LLVM IR after the passes of *pipeline*."""
    return str(_optimize(text, pipeline)[0])


def native_text(text: str, pipeline: Pipeline) -> str:
    """Return the assembly of the code that *text* becomes."""
    module, machine = _optimize(text, pipeline)
    return str(machine.emit_assembly(module))


def compile_object(text: str, pipeline: Pipeline) -> bytes:
    """Return the object file that *text* becomes on this host."""
    module, machine = _optimize(text, pipeline)
    return bytes(machine.emit_object(module))


def code_bytes(image: bytes) -> bytes:
    """Return the machine code in an object file."""
    sections = llvm.ObjectFileRef.from_data(image).sections()
    return b"".join(bytes(section.data()) for section in sections if section.is_text())


@dataclass(frozen=True, slots=True)
class Code:
    """Loaded code; its addresses are good while this object is alive."""

    engine: Any

    def address(self, name: str) -> int:
        """Return the address of function *name*."""
        found = int(self.engine.get_function_address(name))
        if not found:
            raise InternalError(f"compiled code has no function {name}")
        return found


def load_object(image: bytes) -> Code:
    """Load an object file into executable memory."""
    empty = llvm.parse_assembly("", llvm.create_context())
    engine = llvm.create_mcjit_compiler(empty, _target_machine(1))
    engine.add_object_file(llvm.ObjectFileRef.from_data(image))
    engine.finalize_object()
    return Code(engine)
