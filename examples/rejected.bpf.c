// SPDX-License-Identifier: Apache-2.0
/* Counts packets by length, with the mistake that everybody makes once: the key may be missing. */
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

	*count += 1;
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
