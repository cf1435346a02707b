// SPDX-License-Identifier: Apache-2.0
/* A hash table that user space fills and an XDP program reads, each with plain pointers. */
#include "bpf_arena.h"

#define BUCKETS 256 /* a power of two */

struct {
	__uint(type, BPF_MAP_TYPE_ARENA);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 64); /* pages */
} arena SEC(".maps");

struct entry {
	struct entry __arena *next;
	u32 key;
	u32 value;
};

/* User space hangs the entries into these chains. */
struct entry __arena *__arena buckets[BUCKETS];

u64 hits;
u64 misses;

struct query {
	u8 dst[6];
	u8 src[6];
	u16 proto;
	u16 pad;
	u32 key;
	u32 value; /* the answer */
};

static u32 hash(u32 key)
{
	return (key * 2654435769u) >> 24;
}

SEC("xdp")
int arena_kv(struct xdp_md *ctx)
{
	struct query *query = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct entry __arena *entry;

	if ((void *)(query + 1) > end)
		return XDP_DROP;
	for (entry = buckets[hash(query->key)]; entry && can_loop; entry = entry->next) {
		if (entry->key != query->key)
			continue;
		query->value = entry->value;
		for (int i = 0; i < 6; i++) { /* back to where it came from */
			u8 mac = query->dst[i];

			query->dst[i] = query->src[i];
			query->src[i] = mac;
		}
		hits++;
		return XDP_TX;
	}
	misses++;
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
