/* SPDX-License-Identifier: Apache-2.0 */
/* Packets: headers and TCP options parsed, flows counted in a map and kept in an arena. */
#define __sk_buff examples_sk_buff
#include "programs.h"
#undef __sk_buff

struct __sk_buff {
	u32 len, pkt_type, mark, queue_mapping, protocol, vlan[3], priority, ingress_ifindex, ifindex;
	u32 tc_index, cb[5], hash, tc_classid, data, data_end;
};

struct flow {
	u32 from, to;
	u16 from_port, to_port;
	u8 protocol, zero[3];
};

struct counts {
	u64 packets, bytes;
	u32 mss, flags;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, struct flow);
	__type(value, struct counts);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARENA);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 4);
} arena SEC(".maps");

struct record {
	struct record __arena *next;
	struct flow flow;
};

struct record __arena *records;

struct ethernet {
	u8 to[6], from[6];
	u16 type;
} __attribute__((packed));

struct ip {
	u8 length : 4, version : 4;
	u8 tos;
	u16 total, id, fragment;
	u8 ttl, protocol;
	u16 check;
	u32 from, to;
};

struct tcp {
	u16 from, to;
	u32 seq, ack;
	u8 reserved : 4, length : 4;
	u8 flags;
	u16 window, check, urgent;
};

static __always_inline int find_mss(u8 *at, u8 *options_end, void *end, u32 *mss)
{
	for (int i = 0; i < 4 && at < options_end; i++) {
		if ((void *)(at + 1) > end)
			return 1;
		if (*at == 0)
			return 0;
		if (*at == 1) {
			at++;
			continue;
		}
		if ((void *)(at + 4) > end || at[1] < 2)
			return 1;
		if (*at == 2 && at[1] == 4)
			*mss = __builtin_bswap16(*(u16 *)(at + 2));
		at += at[1];
	}
	return 0;
}

SEC("xdp") int count_flow(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethernet *eth = data;
	struct ip *ip = (void *)(eth + 1);
	struct tcp *tcp;
	struct flow flow = {};
	struct counts *counts, none = {};
	struct record __arena *record;
	u32 mss = 0;

	if ((void *)(ip + 1) > end || eth->type != __builtin_bswap16(0x800) || ip->protocol != 6)
		return XDP_PASS;
	tcp = (void *)ip + ip->length * 4;
	if ((void *)(tcp + 1) > end)
		return XDP_DROP;
	if (find_mss((u8 *)(tcp + 1), (u8 *)tcp + tcp->length * 4, end, &mss))
		return XDP_DROP;
	flow.from = ip->from;
	flow.to = ip->to;
	flow.from_port = tcp->from;
	flow.to_port = tcp->to;
	flow.protocol = ip->protocol;
	counts = bpf_map_lookup_elem(&flows, &flow);
	if (!counts) {
		bpf_map_update_elem(&flows, &flow, &none, BPF_ANY);
		counts = bpf_map_lookup_elem(&flows, &flow);
		if (!counts)
			return XDP_ABORTED;
		record = ALLOC(1);
		if (record) {
			record->flow.from_port = flow.from_port;
			record->flow.to = flow.to;
			record->next = records;
			records = record;
		}
	}
	counts->packets++;
	counts->bytes += end - data;
	counts->flags |= tcp->flags;
	if (mss)
		counts->mss = mss;
	ip->ttl--;
	return XDP_TX;
}

SEC("tc") int sum_bytes(struct __sk_buff *skb)
{
	u8 *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	u32 sum = 0;

	skb->mark = skb->len + 7;
	skb->cb[4] = 0x1234;
	for (u32 i = 0; i < 100 && data + i + 1 <= end; i++)
		sum += data[i];
	return sum;
}

struct request {
	u64 a;
	u32 b;
	u16 c;
	u8 d;
	int answer;
};

SEC("syscall") int answer(struct request *request)
{
	request->answer = request->a + request->b * 2 + request->c - request->d;
	return 0;
}

SEC("xdp") int unchecked(struct xdp_md *ctx)
{
	return ((u8 *)(long)ctx->data)[3];
}
