; spills, fills and helper calls
; processed 2656 insns, max_states_per_insn 7 total_states 54 peak_states 38
.prog spill type=xdp license=GPL
    r1 = *(u32 *)(r1 +16)
    w2 = w1
    w2 &= 15
    *(u64 *)(r10 -56) = r2
    w6 = w1
    w6 >>= 3
    w2 = w1
    w2 *= 3
    *(u64 *)(r10 -72) = r2
    w2 = w1
    w2 ^= 9
    *(u64 *)(r10 -80) = r2
    w2 = w1
    w2 += 2
    *(u64 *)(r10 -88) = r2
    w2 = w1
    w2 /= 3
    *(u64 *)(r10 -96) = r2
    w2 = w1
    w2 |= 4
    *(u64 *)(r10 -104) = r2
    w1 += -7
    *(u64 *)(r10 -64) = r1
    r9 = 0
    r8 = 0
    goto pc+12
    r1 += r8
    r1 += r3
    r1 ^= r2
    r9 += 4
    r8 = r1
    if r9 != 0x30 goto pc+6
    r3 = 0
    r0 = *(u64 *)(r10 -80)
    r7 = *(u64 *)(r10 -88)
    r8 = *(u64 *)(r10 -96)
    r9 = *(u64 *)(r10 -104)
    goto pc+22
    r7 = r10
    r7 += -48
    r7 += r9
    call bpf_get_prandom_u32#7
    *(u32 *)(r7 +0) = r0
    w1 = w0
    w1 &= 1
    r2 = 0
    if w1 == 0x0 goto pc+1
    r2 = *(u64 *)(r10 -72)
    r3 = r6
    if w0 > 0x3e8 goto pc+1
    r3 = *(u64 *)(r10 -64)
    r1 = *(u64 *)(r10 -56)
    if w0 > 0x64 goto pc-27
    r1 = 0
    goto pc-29
    r2 += r1
    r2 += r4
    r3 += 4
    r1 = r2
    if r3 == 0x30 goto pc+11
    r2 = r10
    r2 += -48
    r2 += r3
    r5 = *(u32 *)(r2 +0)
    r4 = r9
    if r8 < r5 goto pc+1
    r4 = 0
    r2 = r7
    if r0 < r5 goto pc-14
    r2 = 0
    goto pc-16
    r1 = *(u64 *)(r10 -56)
    w6 += w1
    r1 = *(u64 *)(r10 -72)
    w6 += w1
    w6 += w0
    w6 += w7
    w6 += w8
    w6 += w9
    r1 = *(u64 *)(r10 -64)
    w6 += w1
    w6 += w2
    w6 &= 1
    w0 = w6
    exit
