; a loop over unknown scalars
; processed 17206 insns, max_states_per_insn 11 total_states 611 peak_states 64
.prog bounded type=xdp license=GPL
    w4 = 0
    w2 = 300
    r3 = *(u32 *)(r1 +12)
    r1 = *(u32 *)(r1 +16)
    w0 = w4
    goto pc+3
    w2 += -1
    w4 = w0
    if w2 == 0x0 goto pc+13
    w5 = w3
    w5 <<= 13
    w5 ^= w3
    w3 = w5
    w3 >>= 17
    w3 ^= w5
    w0 ^= w1
    w5 = w3
    w5 &= 1
    if w5 == 0x0 goto pc-13
    w0 = w3
    w0 += w4
    goto pc-16
    w0 &= 1
    exit
