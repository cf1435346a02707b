; an iterator's loop, whose turns use more or less stack of a subprog
; processed 67 insns, max_states_per_insn 1 total_states 7 peak_states 13
.prog depth type=xdp license=GPL
    r6 = *(u32 *)(r1 + 12)
    r1 = r10
    r1 += -8
    r2 = 0
    r3 = 5
    call bpf_iter_num_new
again:
    r1 = r10
    r1 += -8
    call bpf_iter_num_next
    if r0 == 0 goto out
    r1 = *(u32 *)(r0 + 0)
    call f
    if r0 == 3 goto again
    r6 = r0
    goto again
out:
    r1 = r10
    r1 += -8
    call bpf_iter_num_destroy
    r0 = r6
    exit
f:
    if r1 == 1 goto deep
    if r1 == 2 goto out_f
    r2 = r1
    call g
    exit
deep:
    *(u64 *)(r10 - 8) = r1
    *(u64 *)(r10 - 16) = r1
    r1 = *(u64 *)(r10 - 16)
    r2 = 0
    call g
    exit
out_f:
    r0 = 0
    exit
g:
    r0 = 1
    if r1 s> 5 goto out_g
    if r2 == 0 goto out_g
    if r1 == r2 goto out_g
    r0 = 3
out_g:
    exit
