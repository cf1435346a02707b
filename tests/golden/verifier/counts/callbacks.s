; bpf_loop in bpf_loop, whose callbacks write the stack of the frames outside
; processed 129 insns, max_states_per_insn 3 total_states 14 peak_states 14
.prog callbacks type=xdp license=GPL
    r6 = *(u32 *)(r1 + 12)
    *(u64 *)(r10 - 8) = 0
    *(u64 *)(r10 - 16) = r6
    r1 = r6
    w1 &= 63
    r2 = func(outer)
    r3 = r10
    r3 += -16
    r4 = 0
    call bpf_loop
    r0 = *(u64 *)(r10 - 16)
    if r0 s> 5 goto high
    r0 = *(u64 *)(r10 - 8)
    r0 &= 3
    exit
high:
    r0 = 2
    exit
.func outer args="u32,ptr" ret=int
    r6 = r2
    r7 = r1
    r3 = *(u64 *)(r2 + 8)
    if r3 == 3 goto stop
    r3 += 1
    *(u64 *)(r2 + 8) = r3
    *(u64 *)(r10 - 8) = r7
    r1 = 4
    r2 = func(inner)
    r3 = r10
    r3 += -8
    r4 = 0
    call bpf_loop
    r1 = *(u64 *)(r10 - 8)
    *(u64 *)(r6 + 0) = r1
    r0 = 0
    exit
stop:
    r0 = 1
    exit
.func inner args="u32,ptr" ret=int
    r3 = *(u64 *)(r2 + 0)
    if r3 s> r1 goto over
    r3 += 2
    *(u64 *)(r2 + 0) = r3
    r0 = 0
    exit
over:
    r0 = 1
    exit
