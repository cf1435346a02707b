; nested iterators, the inner one in a subprog that is called from two places
; processed 468 insns, max_states_per_insn 7 total_states 35 peak_states 67
.prog iterators type=xdp license=GPL
    r6 = *(u32 *)(r1 + 12)
    r7 = 0
    r8 = 0
    r1 = r10
    r1 += -8
    r2 = 0
    r3 = r6
    w3 &= 255
    call bpf_iter_num_new
outer:
    r1 = r10
    r1 += -8
    call bpf_iter_num_next
    if r0 == 0 goto out
    r1 = *(u32 *)(r0 + 0)
    if r1 == 7 goto outer
    *(u64 *)(r10 - 16) = r1
    if r1 s> 3 goto high
    r1 = r10
    r1 += -16
    call inner
    r7 += r0
    goto outer
high:
    r8 ^= r1
    r1 = r10
    r1 += -16
    call inner
    if r0 == 0 goto outer
    r7 = r0
    goto outer
out:
    r1 = r10
    r1 += -8
    call bpf_iter_num_destroy
    r0 = r7
    r0 += r8
    exit
inner:
    r6 = r1
    r7 = 1
    r1 = r10
    r1 += -24
    r2 = 0
    r3 = 10
    call bpf_iter_num_new
more:
    r1 = r10
    r1 += -24
    call bpf_iter_num_next
    if r0 == 0 goto done
    r1 = *(u32 *)(r0 + 0)
    r2 = *(u64 *)(r6 + 0)
    if r1 != r2 goto more
    r7 = r2
    if r7 == 5 goto done
    goto more
done:
    r1 = r10
    r1 += -24
    call bpf_iter_num_destroy
    r0 = r7
    exit
