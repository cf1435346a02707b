; a loop that ends by widening
.prog may_goto type=xdp license=GPL
    r6 = *(u32 *)(r1 + 12)
    r7 = 0
    r8 = 0
again:
    may_goto out
    *(u64 *)(r10 - 8) = r8
    if r7 >= r6 goto out
    r7 += 1
    r8 += r7
    r8 &= 0xff
    goto again
out:
    r0 = r8
    exit
