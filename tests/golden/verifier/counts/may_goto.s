; nested may_goto loops
; processed 174 insns, max_states_per_insn 4 total_states 16 peak_states 31
.prog maygoto2 type=xdp license=GPL
    w7 = 0
    r1 = *(u32 *)(r1 +16)
    *(u64 *)(r10 -8) = r1
    if w1 == 0x0 goto pc+24
    r8 = 0
    r7 = 0
    goto pc+18
    r7 = r6
    r9 += 1
    r1 = *(u64 *)(r10 -8)
    if r9 < r1 goto pc+5
    r8 += 1
    r1 = *(u64 *)(r10 -8)
    if r8 < r1 goto pc+11
    w7 &= 1
    goto pc+12
    may_goto pc-6
    r6 = r7
    r6 ^= r8
    call bpf_get_prandom_u32#7
    w0 &= 1
    if w0 == 0x0 goto pc-15
    r7 += r9
    r6 = r7
    goto pc-18
    may_goto pc-12
    r9 = 0
    goto pc-12
    w0 = w7
    exit
