; ring buffer records that are held over branches, submitted or discarded
; processed 140 insns, max_states_per_insn 3 total_states 13 peak_states 13
.map rb type=ringbuf entries=4096
.prog references type=xdp license=GPL
    r6 = *(u32 *)(r1 + 12)
    r7 = *(u32 *)(r1 + 16)
    r9 = 0
again:
    r1 = map(rb)
    r2 = 16
    r3 = 0
    call bpf_ringbuf_reserve
    if r0 == 0 goto next
    r8 = r0
    *(u64 *)(r8 + 0) = r6
    if r6 == 1 goto drop
    if r7 == 2 goto drop
    if r6 s> r7 goto keep
    *(u64 *)(r8 + 8) = r7
keep:
    r1 = r8
    r2 = 0
    call bpf_ringbuf_submit
    goto next
drop:
    r1 = r8
    r2 = 0
    call bpf_ringbuf_discard
next:
    r9 += 1
    if r9 != 4 goto again
    r0 = 0
    exit
