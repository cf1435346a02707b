; Counts its runs in an arena page and greets the trace pipe: `bpfvm run examples/hello.s`.
; The first run allocates the page; the map's value keeps its address, as a program stores it.

.map arena type=arena entries=16 flags=mmapable
.map state type=array key=4 value=8 entries=1

.prog hello type=syscall sleepable license=GPL
	r6 = map_value(state)
	r0 = *(u64 *)(r6 + 0)
	if r0 != 0 goto greet

	r1 = map(arena)
	r2 = 0                          ; anywhere
	r3 = 1                          ; one page
	r4 = -1                         ; on any node
	r5 = 0
	call bpf_arena_alloc_pages
	if r0 == 0 goto out
	*(u64 *)(r6 + 0) = r0

greet:
	r7 = addr_space_cast(r0, 0x0, 0x1)
	r8 = *(u64 *)(r7 + 0)
	r8 += 1
	*(u64 *)(r7 + 0) = r8

	r1 = 0x6425206f6c6c6548 ll      ; "Hello %d", little-endian
	*(u64 *)(r10 - 16) = r1
	r1 = 0
	*(u64 *)(r10 - 8) = r1
	r1 = r10
	r1 += -16
	r2 = 9
	r3 = r8
	call bpf_trace_printk
	r0 = r8
out:
	exit
