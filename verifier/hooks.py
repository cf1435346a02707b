"""What tracing and LSM programs are attached to, as the kernel's BTF has it: their context is an
array of the hook's arguments, 8 bytes each, and some hooks say what may be returned.

Rules: Linux 7.3 (btf_ctx_access, bpf_check_attach_target, bpf_lsm_get_retval_range).
"""

from __future__ import annotations

from typing import NamedTuple

from bpfvm.btf import BtfKind, BtfType
from bpfvm.kernel_btf import KernelBtf
from verifier.env import Env
from verifier.hooktables import BOOLEAN, DISABLED, MISSING_ARGS, SLEEPABLE, UNTRUSTED
from verifier.reasons import Reason, Reject
from verifier.state import UNKNOWN_REG, Mod, RegState, RegType, scalar_reg

__all__ = ["check_hook", "load_argument", "result_of_hook"]

#: Expected attach types (kernel: enum bpf_attach_type).
_RAW_TP, _FENTRY, _FEXIT, _MODIFY, _LSM, _ITER, _LSM_CGROUP = 23, 24, 25, 26, 27, 28, 43
_COMPOSITE = (BtfKind.STRUCT, BtfKind.UNION)
_SCALARS = (BtfKind.INT, BtfKind.ENUM, BtfKind.ENUM64, *_COMPOSITE)
_MAX_ERRNO = 4095
#: Iterators all of whose structs but the first may be missing (kernel: ctx_arg_info).
_ITERATORS = frozenset(
    {"bpf_map", "bpf_map_elem", "bpf_prog", "task", "task_file", "cgroup", "bpf_link"}
)
#: Arguments of iterators that are a key and a value, nothing at the end.
_BUFFER = RegType.BUF.having(Mod.MAYBE_NULL)
_BUFFERS = {(16, "bpf_map_elem"): _BUFFER.having(Mod.RDONLY), (24, "bpf_map_elem"): _BUFFER}
_TRUSTED = RegType.BTF_ID.having(Mod.TRUSTED)
#: Digits of `MISSING_ARGS`.
_NULL, _ERROR = 1, 2


class _Hook(NamedTuple):
    """A hook: its name, parameters without the kernel's own first one, and result."""

    name: str
    proto: BtfType
    skipped: int = 0

    @property
    def params(self) -> tuple[tuple[int, ...], ...]:
        return self.proto.extra[self.skipped :]


def _hook(env: Env, btf: KernelBtf) -> _Hook | None:
    attach, target = env.program.expected_attach_type, env.program.attach_to
    if attach == _RAW_TP:
        typedef = btf.find(f"btf_trace_{target}", BtfKind.TYPEDEF)
        pointer = None if typedef is None else btf.resolve(typedef.id)
        if pointer is None or pointer.kind is not BtfKind.PTR:
            return None
        return _Hook(target, btf.resolve(pointer.ref), 1)
    prefix = {_LSM: "bpf_lsm_", _LSM_CGROUP: "bpf_lsm_", _ITER: "bpf_iter_"}.get(attach, "")
    proto = btf.func_proto(prefix + target)
    return None if proto is None else _Hook(prefix + target, proto)


def _known_hook(env: Env) -> tuple[KernelBtf, _Hook]:
    kind = env.prog_type.name
    target = env.program.attach_to
    if not target:
        raise Reject(Reason.NOT_SUPPORTED, what=f"{kind} programs that name no hook")
    btf = env.kernel_types.btf
    if btf is None:
        what = f"the hooks of {kind} programs, which need the kernel's BTF"
        raise Reject(Reason.NOT_SUPPORTED, what=what)
    hook = _hook(env, btf)
    if hook is None:
        what = (
            f"{kind} programs at {env.program.attach_to or 'no hook'}, which the BTF does not have"
        )
        raise Reject(Reason.NOT_SUPPORTED, what=what)
    return btf, hook


def check_hook(env: Env) -> None:
    """Refuse a hook that no program may be attached to (kernel: check_attach_btf_id,
    bpf_lsm_verify_prog)."""
    if env.program.expected_attach_type not in (_LSM, _LSM_CGROUP):
        return
    if not env.program.is_gpl:
        raise Reject(Reason.LSM_GPL)
    btf, hook = _known_hook(env)
    target = env.program.attach_to
    if target in DISABLED | env.rules.more_disabled_hooks:
        func = btf.find(hook.name, BtfKind.FUNC)
        id_ = 0 if func is None else func.id
        raise Reject(Reason.LSM_DISABLED, id=id_, name=hook.name)
    if not env.program.sleepable:
        return
    if env.program.expected_attach_type == _LSM_CGROUP:
        late = env.rules.sleepable_tracepoints
        raise Reject(Reason.TYPE_CANNOT_SLEEP if late else Reason.CANNOT_SLEEP)
    if target not in SLEEPABLE:
        raise Reject(Reason.HOOK_SLEEPS, name=hook.name)


def result_of_hook(env: Env) -> tuple[int, int] | None:
    """Return what an LSM program may return, None: anything."""
    attach, target = env.program.expected_attach_type, env.program.attach_to
    btf, hook = _known_hook(env)
    is_void = btf.resolve(hook.proto.ref).kind is BtfKind.VOID
    if attach == _LSM_CGROUP:
        return (1, 1) if is_void else (0, 1)
    if is_void:
        return None
    return (0, 1) if target in BOOLEAN else (-_MAX_ERRNO, 0)


def load_argument(env: Env, off: int, size: int) -> RegState:
    """Return what a load of *size* bytes at byte *off* of the context gives (kernel:
    btf_ctx_access)."""
    btf, hook = _known_hook(env)
    attach = env.program.expected_attach_type

    def refuse(line: str) -> Reject:
        return Reject(Reason.CTX_ACCESS, before=[line], off=off, size=size)

    if off < 0 or off + size > 8 * 12:
        raise Reject(Reason.CTX_ACCESS, off=off, size=size)
    if off % 8:
        raise refuse(f"func '{hook.name}' offset {off} is not multiple of 8")
    index, count = off // 8, len(hook.params)
    if index < count:
        type_id = hook.params[index][1]
    elif index == count and attach in (_LSM, _LSM_CGROUP, _FEXIT, _MODIFY):
        type_id = hook.proto.ref
        if attach == _LSM and (allowed := result_of_hook(env)) is not None:
            return _result(env, allowed)
    else:
        raise refuse(f"func '{hook.name}' doesn't have {index + 1}-th argument")
    found = btf.resolve(type_id)
    if found.kind in _SCALARS:
        return UNKNOWN_REG
    if found.kind is not BtfKind.PTR:
        kind = "UNKNOWN" if found.kind is BtfKind.VOID else found.kind.name
        raise refuse(
            f"func '{hook.name}' arg{index} '{found.name if found.id else '(anon)'}' has type "
            f"{kind}. Only pointer access is allowed"
        )
    if size != 8:
        raise refuse(f"func '{hook.name}' size {size} must be 8")
    if attach == _ITER and (off, env.program.attach_to) in _BUFFERS:
        return RegState(_BUFFERS[off, env.program.attach_to], id=env.new_id())
    target, tags = btf.pointee(found)
    if target.kind not in _COMPOSITE:
        return UNKNOWN_REG
    if attach == _ITER and index:
        return _item(env, target.name)
    mods = _trust(env)
    name = btf.param_name(hook.proto, index + hook.skipped) if index < count else ""
    if name.endswith("__nullable"):
        mods |= Mod.MAYBE_NULL
    missing = MISSING_ARGS.get(hook.name, 0) >> 4 * index if attach == _RAW_TP else 0
    if missing & _ERROR:
        return UNKNOWN_REG
    if missing & _NULL:
        mods |= Mod.MAYBE_NULL
    if "user" in tags:
        mods |= Mod.USER
    if "percpu" in tags:
        mods |= Mod.PERCPU
    if env.log.on:
        number = target.id
        env.log.line(
            f"func '{hook.name}' arg{index} has btf_id {number} type {target.kind.name} "
            f"'{target.name}'"
        )
    id_ = env.new_id() if mods & Mod.MAYBE_NULL else 0
    return RegState(RegType.BTF_ID.having(mods), id=id_, info=target.name)


def _result(env: Env, allowed: tuple[int, int]) -> RegState:
    """Return the result of the hook's own function, which LSM programs can see."""
    low, high = allowed
    scalar = UNKNOWN_REG.scalar._replace(smin=low, smax=high, s32_min=low, s32_max=high)
    return scalar_reg(env.domain.sync(scalar))


def _trust(env: Env) -> Mod:
    attach = env.program.expected_attach_type
    if attach in (_LSM, _LSM_CGROUP):
        return Mod.NONE if env.program.attach_to in UNTRUSTED else Mod.TRUSTED
    return Mod.TRUSTED if attach in (_RAW_TP, _ITER) else Mod.NONE


def _item(env: Env, struct: str) -> RegState:
    """Return what an iterator's program is at: nothing, at the end."""
    if env.program.attach_to not in _ITERATORS:
        what = f"the context of iterators over {env.program.attach_to}"
        raise Reject(Reason.NOT_SUPPORTED, what=what)
    return RegState(_TRUSTED.having(Mod.MAYBE_NULL), id=env.new_id(), info=struct)
