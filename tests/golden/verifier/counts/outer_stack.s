; a subprog that reads and writes its caller's stack
; processed 541 insns, max_states_per_insn 9 total_states 52 peak_states 50
.prog log1 type=xdp license=GPL
    r2 = 0
    *(u64 *)(r10 -8) = r2
    *(u64 *)(r10 -16) = r2
    *(u64 *)(r10 -24) = r2
    w2 = 0
    r3 = r10
    r3 += -16
    *(u64 *)(r10 -32) = r3
    r7 = *(u32 *)(r1 +16)
    w6 = 0
    w9 = w2
    r1 = r10
    r1 += -24
    w2 = w7
    call pc+17
    w8 = w0
    w8 += w6
    r1 = *(u64 *)(r10 -32)
    w2 = w9
    call pc+12
    w8 += w0
    w7 >>= 1
    if w7 == 0x7 goto pc+4
    w2 = w9
    w2 += 1
    w6 = w8
    if w9 != 0x3 goto pc-17
    r1 = *(u64 *)(r10 -8)
    w8 += w1
    w8 &= 1
    w0 = w8
    exit
    w3 = w2
    if w2 < 0x5 goto pc+3
    *(u64 *)(r1 +0) = r3
    w0 = 1
    goto pc+5
    *(u64 *)(r1 +8) = r3
    r1 = *(u64 *)(r1 +0)
    w0 = 1
    if r1 > 0x3 goto pc+1
    w0 = 2
    exit
