; refinement, precision through a spill
.prog branches type=xdp license=GPL
    r6 = *(u32 *)(r1 + 12)
    r0 = r6
    r0 &= 7
    if r0 > 5 goto far
    if r6 == 3 goto far
    r7 = r0
    r7 <<= 2
    if r7 & 8 goto near
    r0 += r6
near:
    *(u64 *)(r10 - 8) = r0
    *(u16 *)(r10 - 12) = r7
    r2 = *(u64 *)(r10 - 8)
    if r2 s< 4 goto far
    r0 = 1
    exit
far:
    r0 = 2
    exit
