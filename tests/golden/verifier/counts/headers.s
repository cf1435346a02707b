; headers one in the other
; processed 2139 insns, max_states_per_insn 6 total_states 151 peak_states 60
.map hsh type=hash key=4 value=64 entries=16
.prog vlan type=xdp license=GPL
    w0 = 1
    r2 = *(u32 *)(r1 +4)
    r1 = *(u32 *)(r1 +0)
    r3 = r1
    r3 += 14
    if r3 > r2 goto pc+100
    r3 = 0
    r4 = *(u16 *)(r1 +12)
    goto pc+15
    r4 = r1
    r4 += r3
    r5 = r4
    r5 += 18
    w0 = 1
    if r5 > r2 goto pc+91
    r4 = *(u16 *)(r4 +16)
    r3 += 4
    if w3 != 0x10 goto pc+6
    r1 += r3
    r1 += 14
    if w4 == 0x8 goto pc+27
    w0 = 2
    if w4 != 0xdd86 goto pc+83
    goto pc+12
    w4 &= 65535
    if w4 s> 0xa887 goto pc+4
    if w4 == 0x81 goto pc-18
    w0 = 2
    if w4 == 0x8 goto pc+17
    goto pc+76
    if w4 == 0xa888 goto pc-22
    w0 = 2
    if w4 == 0xdd86 goto pc+1
    goto pc+72
    r1 += r3
    r1 += 14
    r6 = r1
    r6 += 40
    w0 = 1
    if r6 > r2 goto pc+66
    w4 = 6
    r3 = *(u8 *)(r1 +6)
    r5 = 0x1000080000000001 ll
    r1 = r6
    goto pc+37
    r1 += r3
    r1 += 14
    r3 = r1
    r3 += 20
    w0 = 1
    if r3 > r2 goto pc+54
    r4 = *(u8 *)(r1 +0)
    w4 <<= 2
    w4 &= 60
    w0 = 1
    if w4 < 0x14 goto pc+49
    r3 = *(u8 *)(r1 +9)
    r1 += r4
    goto pc+12
    r3 = r1
    r3 += 2
    w0 = 1
    if r3 > r2 goto pc+42
    r0 = *(u8 *)(r1 +1)
    r0 <<= 3
    r0 += r1
    r3 = *(u8 *)(r1 +0)
    r0 += 8
    w4 += -1
    r1 = r0
    if w4 != 0x0 goto pc+11
    w3 &= 255
    if w3 == 0x6 goto pc+2
    w4 = 0
    if w3 != 0x11 goto pc+17
    r3 = r1
    r3 += 4
    w0 = 1
    if r3 > r2 goto pc+26
    r4 = *(u16 *)(r1 +0)
    w4 &= 3
    goto pc+10
    w0 = w3
    w0 &= 255
    if w0 > 0x3c goto pc-14
    r0 = r3
    r0 &= 255
    r6 = 1
    r6 <<= r0
    r6 &= r5
    if r6 != 0x0 goto pc-32
    goto pc-21
    *(u32 *)(r10 -4) = r4
    r2 = r10
    r2 += -4
    r1 = map(hsh)
    call bpf_map_lookup_elem#1
    r1 = r0
    w0 = 2
    if r1 == 0x0 goto pc+4
    r2 = 1
    lock *(u64 *)(r1 +0) += r2
    r0 = *(u64 *)(r1 +8)
    w0 &= 3
    exit
