; TCP options in a loop of ten turns
; processed 11562 insns, max_states_per_insn 15 total_states 552 peak_states 129
.prog tcp type=xdp license=GPL
    w0 = 0
    r2 = *(u32 *)(r1 +4)
    r6 = *(u32 *)(r1 +0)
    r6 += 54
    if r6 > r2 goto pc+71
    w1 = 0
    *(u32 *)(r10 -24) = r1
    w5 = 10
    *(u32 *)(r10 -32) = r1
    w8 = 0
    *(u32 *)(r10 -16) = r1
    *(u32 *)(r10 -8) = r1
    w1 = w8
    r7 = r6
    w0 = 1
    r6 += 1
    if r6 > r2 goto pc+59
    r4 = *(u8 *)(r7 +0)
    w8 = w1
    if w4 == 0x1 goto pc+24
    w8 = w1
    if w4 == 0x0 goto pc+24
    r8 = r7
    r8 += 2
    if r8 > r2 goto pc+51
    r3 = *(u8 *)(r6 +0)
    if w3 < 0x2 goto pc+49
    if w3 > 0x28 goto pc+48
    r6 = r7
    r6 += r3
    if r6 > r2 goto pc+45
    r0 = r7
    r0 += 3
    if w4 != 0x2 goto pc+21
    if w3 != 0x4 goto pc+20
    r9 = r7
    r9 += 4
    if r9 > r2 goto pc+17
    r3 = *(u8 *)(r0 +0)
    r4 = *(u8 *)(r8 +0)
    w4 <<= 8
    w4 |= w3
    *(u32 *)(r10 -8) = r4
    w8 = w1
    w5 += -1
    if w5 != 0x0 goto pc-34
    r0 = *(u32 *)(r10 -16)
    r1 = *(u32 *)(r10 -8)
    w0 += w1
    w0 += w8
    r1 = *(u32 *)(r10 -32)
    w0 += w1
    r1 = *(u32 *)(r10 -24)
    w0 += w1
    goto pc+21
    if w4 != 0x3 goto pc+5
    if w3 != 0x3 goto pc+4
    if r0 > r2 goto pc+3
    r3 = *(u8 *)(r8 +0)
    *(u32 *)(r10 -16) = r3
    goto pc-18
    w8 = 1
    if w4 == 0x4 goto pc-19
    w8 = w1
    if w4 != 0x8 goto pc-21
    w8 = w1
    if w3 != 0xa goto pc-23
    r3 = r7
    r3 += 10
    w8 = w1
    if r3 > r2 goto pc-27
    r3 = *(u32 *)(r7 +6)
    *(u32 *)(r10 -24) = r3
    r3 = *(u32 *)(r7 +2)
    *(u32 *)(r10 -32) = r3
    goto pc-33
    exit
