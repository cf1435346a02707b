; nested loops over a map value
; processed 815 insns, max_states_per_insn 4 total_states 16 peak_states 16
.map arr type=array key=4 value=64 entries=4
.prog nested type=xdp license=GPL
    w1 = 1
    *(u32 *)(r10 -4) = r1
    r2 = r10
    r2 += -4
    r1 = map(arr)
    call bpf_map_lookup_elem#1
    r1 = r0
    w0 = 0
    if r1 == 0x0 goto pc+20
    w3 = 0
    w2 = 0
    goto pc+3
    w2 += 1
    w3 = 0
    if w2 > 0x7 goto pc+13
    w2 = w2
    if w2 > 0x7 goto pc+8
    if w3 > 0x7 goto pc+7
    w4 = w2
    w4 <<= 3
    w4 |= w3
    r5 = r1
    r5 += r4
    r4 = *(u8 *)(r5 +0)
    w0 += w4
    w3 += 1
    if w3 < 0x8 goto pc-12
    goto pc-16
    w0 &= 1
    exit
