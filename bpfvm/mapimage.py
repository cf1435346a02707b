"""What programs see of a map's struct in the kernel, through its pointer: the members that user
space gave their values, at the places where the kernel's BTF has them, and zeros elsewhere."""

from __future__ import annotations

from bpfvm.bits import U32_MAX
from bpfvm.btf import BtfKind, BtfType
from bpfvm.kernel_btf import KernelBtf
from bpfvm.program import MapFacts
from bpfvm.xlated import MAP_IMAGE_SIZE

__all__ = ["map_image"]


def map_image(btf: KernelBtf, struct: BtfType, facts: MapFacts, number: int) -> bytes:
    """Return the bytes of *struct* for the map of *facts*, the object's *number*-th."""
    defn = facts.defn
    values = {
        "map_type": defn.map_type,
        "key_size": defn.key_size,
        "value_size": defn.value_size,
        "max_entries": defn.max_entries,
        "map_flags": defn.flags,
        "map_extra": defn.map_extra,
        "id": number + 1,
        "elem_size": -(-defn.value_size // 8) * 8,
        "index_mask": U32_MAX >> (32 - max(defn.max_entries - 1, 1).bit_length()),
        "user_vm_start": facts.user_vm_start,
        "user_vm_end": facts.user_vm_end,
        "name": int.from_bytes(defn.name.encode()[:15], "little"),
    }
    image = bytearray(MAP_IMAGE_SIZE)
    _fill(btf, struct, 0, values, image)
    return bytes(image[: min(struct.ref, MAP_IMAGE_SIZE)])


def _fill(
    btf: KernelBtf, struct: BtfType, start: int, values: dict[str, int], image: bytearray
) -> None:
    for member in btf.members(struct):
        at = start + member.bit // 8
        found = btf.resolve(member.type_id)
        if found.kind is BtfKind.STRUCT and member.name == "map":
            _fill(btf, found, at, values, image)
        elif member.name in values and found.kind is not BtfKind.STRUCT and not member.bits:
            size = btf.size_of(member.type_id)
            if at + size <= len(image):
                image[at : at + size] = values[member.name].to_bytes(16, "little")[:size]
