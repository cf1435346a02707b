; a may_goto loop over spilled scalars, a subprog in it
; processed 608 insns, max_states_per_insn 20 total_states 34 peak_states 30
.prog spills type=xdp license=GPL
    r6 = *(u32 *)(r1 + 12)
    r7 = 0
    *(u64 *)(r10 - 8) = r6
    *(u64 *)(r10 - 16) = 0
again:
    may_goto out
    r1 = *(u64 *)(r10 - 8)
    r2 = *(u64 *)(r10 - 16)
    call mix
    *(u64 *)(r10 - 16) = r0
    if r0 == 9 goto out
    r7 += 1
    if r7 s> 20 goto out
    if r7 == r6 goto out
    *(u64 *)(r10 - 8) = r7
    goto again
out:
    r0 = *(u64 *)(r10 - 16)
    r0 &= 1
    exit
mix:
    r0 = r1
    if r1 s< 0 goto neg
    if r2 == 0 goto done
    r0 ^= r2
done:
    exit
neg:
    r0 = 0
    exit
