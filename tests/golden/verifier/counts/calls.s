; subprogs in a loop, one of which writes its caller's stack
; processed 7962 insns, max_states_per_insn 16 total_states 237 peak_states 135
.prog calls type=xdp license=GPL
    r2 = 0
    *(u64 *)(r10 -8) = r2
    w6 = 0
    r7 = *(u32 *)(r1 +16)
    w9 = 0
    r3 = r10
    r3 += -8
    w1 = w7
    w2 = w6
    call pc+16
    w8 = w0
    w8 += w9
    w1 = w7
    w2 = w6
    call pc+27
    w8 += w0
    w7 >>= 1
    w6 += 1
    w9 = w8
    if w6 == 0x10 goto pc+1
    goto pc-16
    r1 = *(u64 *)(r10 -8)
    w8 += w1
    w8 &= 1
    w0 = w8
    exit
    r4 = *(u64 *)(r3 +0)
    w0 = w1
    r5 = r4
    r5 += r0
    if w1 > w2 goto pc+3
    w5 = w2
    r4 ^= r5
    r5 = r4
    *(u64 *)(r3 +0) = r5
    w0 = w2
    w0 &= 3
    w2 &= 4
    if w2 == 0x0 goto pc+2
    w1 &= 7
    w0 = w1
    exit
    w6 = w2
    w7 = w1
    call pc+11
    w8 = w0
    w7 >>= 2
    w1 = w7
    call pc+7
    w0 += w8
    if w6 < 0x6 goto pc+4
    w1 = w6
    w6 = w0
    call pc+2
    w0 += w6
    exit
    w0 = 3
    w2 = w1
    w2 &= 1
    if w2 != 0x0 goto pc+4
    w1 &= 2
    w0 = 1
    if w1 == 0x0 goto pc+1
    w0 = 2
    exit
