; a callback for each element of a map, with branches on what it finds
; processed 78 insns, max_states_per_insn 2 total_states 8 peak_states 8
.map hsh type=hash key=4 value=16 entries=8
.prog elements type=xdp license=GPL
    r6 = *(u32 *)(r1 + 12)
    *(u64 *)(r10 - 8) = 0
    *(u64 *)(r10 - 16) = 0
    r1 = map(hsh)
    r2 = func(each)
    r3 = r10
    r3 += -16
    r4 = 0
    call bpf_for_each_map_elem
    r1 = *(u64 *)(r10 - 8)
    r0 = 0
    if r1 == r6 goto out
    if r1 == 0 goto out
    r0 = 1
out:
    exit
.func each args="ptr,ptr,ptr,ptr" ret=int
    r6 = r4
    r7 = *(u32 *)(r2 + 0)
    r8 = *(u64 *)(r3 + 8)
    if r7 == 0 goto skip
    if r8 == 0 goto skip
    r1 = *(u64 *)(r6 + 8)
    r1 += r8
    *(u64 *)(r6 + 8) = r1
    *(u32 *)(r6 + 0) = r7
skip:
    r0 = 0
    exit
