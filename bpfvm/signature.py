"""Words for the parameters and results of subprogs, where no BTF tells of them: in JSON requests
and in the assembler's `.func`.

A parameter is one of `u64 u32 int ptr ctx arena dynptr`, or `mem:N`, a pointer to N bytes. Decl
tags follow with `+`: `mem:8+nonnull`. A result is one of `int u64 void arena`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bpfvm.program import Param

__all__ = ["PARAM_WORDS", "RESULT_WORDS", "param_of", "result_of", "words_of"]

_PARAMS = {
    "u64": Param("", "unsigned long long"),
    "u32": Param("", "unsigned int", 4),
    "int": Param("", "int", 4),
    "ptr": Param("", "void *", is_pointer=True, kind="PTR"),
    "ctx": Param("", "void *", is_pointer=True, kind="PTR", tags=frozenset({"arg:ctx"})),
    "arena": Param("", "void *", is_pointer=True, kind="PTR", tags=frozenset({"arg:arena"})),
    "dynptr": Param(
        "",
        "const struct bpf_dynptr *",
        is_pointer=True,
        kind="PTR",
        pointee_size=16,
        pointee_kind="STRUCT",
        pointee_name="bpf_dynptr",
    ),
}
_RESULTS = {
    "int": Param("", "int", 4),
    "u64": Param("", "unsigned long long"),
    "void": None,
    "arena": Param("", "void *", is_pointer=True, kind="PTR", tags=frozenset({"arena"})),
}
_MEM = "mem:"

#: What a complaint lists.
PARAM_WORDS = (*_PARAMS, "mem:N")
RESULT_WORDS = tuple(_RESULTS)


def param_of(word: str, name: str) -> Param | None:
    """Return the parameter that *word* stands for, named *name*, or None."""
    kind, *tags = word.split("+")
    size = kind.removeprefix(_MEM)
    if kind in _PARAMS:
        param = _PARAMS[kind]
    elif kind.startswith(_MEM) and size.isdecimal() and len(size) < 10:
        param = Param(
            "",
            f"char (*)[{size}]",
            is_pointer=True,
            kind="PTR",
            pointee_size=int(size),
            pointee_kind="ARRAY",
        )
    else:
        return None
    return replace(param, name=name, tags=param.tags | {f"arg:{tag}" for tag in tags})


def result_of(word: str) -> Param | None:
    """Return the result that *word*, one of `RESULT_WORDS`, stands for; None: void."""
    return _RESULTS[word]


def words_of(params: Sequence[Param], ret: Param | None) -> tuple[str, str]:
    """Return the words for parameters and a result, with which calls are checked the same way or
    less strictly where no word fits."""
    return ",".join(_word(param) for param in params), _result_word(ret)


def _word(param: Param) -> str:
    if not param.is_pointer:
        return _number_word(param)
    tags = {tag.removeprefix("arg:") for tag in param.tags if tag.startswith("arg:")}
    if param.pointee_name == "bpf_dynptr":
        return "+".join(["dynptr", *sorted(tags)])
    kind = f"{_MEM}{param.pointee_size}" if param.pointee_kind != "UNKNOWN" else "ptr"
    for special in ("arena", "ctx"):
        if special in tags or special in param.tags:
            kind = special
    return "+".join([kind, *sorted(tags - {kind})])


def _number_word(param: Param) -> str:
    if param.size != _PARAMS["u32"].size:
        return "u64"
    return "u32" if "unsigned" in param.ctype else "int"


def _result_word(ret: Param | None) -> str:
    if ret is None:
        return "void"
    if ret.is_pointer:
        return "arena"
    return "u64" if ret.size == _PARAMS["u64"].size else "int"
