; tail calls by known and unknown index, in a subprog too
; processed 60 insns, max_states_per_insn 1 total_states 6 peak_states 6
.map progs type=prog_array key=4 value=4 entries=4
.prog tails type=xdp license=GPL
    r6 = r1
    r7 = *(u32 *)(r1 + 12)
    if r7 == 0 goto first
    if r7 == 1 goto second
    r1 = r6
    r2 = map(progs)
    r3 = r7
    call bpf_tail_call
    goto sub
first:
    r1 = r6
    r2 = map(progs)
    r3 = 0
    goto call
second:
    r1 = r6
    r2 = map(progs)
    r3 = 2
call:
    call bpf_tail_call
sub:
    r1 = r6
    call inner
    r0 = 1
    exit
.func inner args="ptr" ret=int
    r7 = *(u32 *)(r1 + 16)
    r2 = map(progs)
    r3 = 1
    if r7 == 4 goto go
    r3 = 3
go:
    call bpf_tail_call
    r0 = 2
    exit
