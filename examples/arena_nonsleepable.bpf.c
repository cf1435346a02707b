// SPDX-License-Identifier: Apache-2.0
/*
 * A socket filter, which may not sleep, takes and gives back arena pages: it remembers the newest
 * packets, one page each (kernels before 7.0 refuse this program).
 */
#include "bpf_arena.h"

#define KEEP 4

struct {
	__uint(type, BPF_MAP_TYPE_ARENA);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 16); /* pages */
} arena SEC(".maps");

struct record {
	u64 seq;
	u32 len;
};

struct record __arena *__arena newest[KEEP];
u64 __arena seq;

SEC("socket")
int remember(struct __sk_buff *skb)
{
	struct record __arena *__arena *slot = &newest[seq % KEEP];
	struct record __arena *record;

	if (*slot)
		bpf_arena_free_pages(&arena, *slot, 1);
	record = bpf_arena_alloc_pages(&arena, NULL, 1, NUMA_NO_NODE, 0);
	*slot = record;
	if (!record)
		return 0;
	record->seq = seq++;
	record->len = skb->len;
	return skb->len;
}

char _license[] SEC("license") = "GPL";
