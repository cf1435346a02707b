; a helper, a null check, a value with an unknown index
.map hash type=hash key=4 value=16 entries=4
.prog lookup type=xdp license=GPL
    r6 = r1
    *(u32 *)(r10 - 4) = 0
    r2 = r10
    r2 += -4
    r1 = map(hash)
    call bpf_map_lookup_elem
    if r0 == 0 goto none
    r1 = *(u32 *)(r6 + 12)
    r1 &= 7
    r0 += r1
    r0 = *(u8 *)(r0 + 8)
    exit
none:
    r0 = 0
    exit
