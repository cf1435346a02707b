"""Special fields of map values: what the kernel keeps in them and programs may not touch.

Which types they are is found by their names in BTF (kernel: btf_parse_fields).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, unique

__all__ = ["Contained", "FieldKind", "MapField", "overwrite"]


@unique
class FieldKind(Enum):
    """A kind of special field: (name of its struct, which complaints use too; its size)."""

    SPIN_LOCK = ("bpf_spin_lock", 4)
    RES_SPIN_LOCK = ("bpf_res_spin_lock", 4)
    TIMER = ("bpf_timer", 16)
    WORKQUEUE = ("bpf_wq", 16)
    TASK_WORK = ("bpf_task_work", 8)
    LIST_HEAD = ("bpf_list_head", 16)
    LIST_NODE = ("bpf_list_node", 24)
    RB_ROOT = ("bpf_rb_root", 16)
    RB_NODE = ("bpf_rb_node", 32)
    REFCOUNT = ("bpf_refcount", 4)
    KPTR = ("kptr", 8)
    PERCPU_KPTR = ("percpu_kptr", 8)
    UPTR = ("uptr", 8)

    def __init__(self, label: str, size: int) -> None:
        self.label, self.size = label, size

    @property
    def is_pointer(self) -> bool:
        """Whether it holds a kernel pointer, which loads and stores may handle."""
        return self in (FieldKind.KPTR, FieldKind.PERCPU_KPTR, FieldKind.UPTR)


@dataclass(frozen=True, slots=True)
class Contained:
    """What a list or tree holds: objects of the program's struct *name*, by the node at byte *off*
    of each (kernel: struct btf_field_graph_root)."""

    name: str
    off: int


@dataclass(frozen=True, slots=True)
class MapField:
    """A special field at byte *off* of a map's value, or of an object; of a list's head or a
    tree's root *holds* tells what it contains."""

    kind: FieldKind
    off: int
    holds: Contained | None = None

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.off + self.kind.size


def overwrite(fields: tuple[MapField, ...], old: bytes | None, new: bytes) -> bytes:
    """Return value *new* as it is stored over *old*: special fields stay as they are, and are zero
    where there was no value (kernel: copy_map_value, check_and_init_map_value)."""
    if not fields:
        return new
    value = bytearray(new)
    for field in fields:
        size = field.kind.size
        kept = bytes(size) if old is None else old[field.off : field.end]
        value[field.off : field.end] = kept
    return bytes(value)
