; a proven range of a packet
.prog packet type=xdp license=GPL
    r2 = *(u32 *)(r1 + 0)
    r3 = *(u32 *)(r1 + 4)
    r4 = r2
    r4 += 14
    if r4 > r3 goto drop
    r5 = *(u8 *)(r2 + 12)
    r5 &= 15
    r4 += r5
    r6 = r4
    r6 += 4
    if r6 > r3 goto drop
    r0 = *(u32 *)(r4 + 0)
    r0 &= 3
    exit
drop:
    r0 = 1
    exit
