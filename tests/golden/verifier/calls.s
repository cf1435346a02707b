; a subprog that writes its caller's stack, in a loop
.prog calls type=xdp license=GPL
    r6 = *(u32 *)(r1 + 12)
    *(u64 *)(r10 - 8) = 0
    *(u64 *)(r10 - 16) = r6
    r7 = 0
again:
    r1 = r10
    r1 += -16
    r2 = r7
    call step
    r6 ^= r0
    r7 += 1
    if r7 != 2 goto again
    r0 = *(u64 *)(r10 - 16)
    r0 &= 1
    exit
step:
    r3 = *(u64 *)(r1 + 0)
    if r2 == 0 goto first
    *(u64 *)(r1 + 8) = r3
first:
    *(u64 *)(r1 + 0) = r2
    r0 = r3
    r0 >>= 60
    exit
