// SPDX-License-Identifier: Apache-2.0
/* rejected.bpf.c with its repair: a lookup's result is tested before it is used. */
#include "bpf_arena.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, u32);
	__type(value, u64);
} counts SEC(".maps");

SEC("xdp")
int count_lengths(struct xdp_md *ctx)
{
	u32 length = ctx->data_end - ctx->data;
	u64 *count = bpf_map_lookup_elem(&counts, &length);
	u64 one = 1;

	if (count)
		*count += 1;
	else
		bpf_map_update_elem(&counts, &length, &one, BPF_ANY);
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
