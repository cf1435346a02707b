// SPDX-License-Identifier: Apache-2.0
/* A linked list in an arena: built by a program, walked by user space, no copy between them. */
#include "bpf_arena.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARENA);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 100); /* pages */
	__ulong(map_extra, 0x1ull << 44); /* where user space sees it */
} arena SEC(".maps");

struct node {
	struct node __arena *next;
	u64 value;
};

/* What user space reads; `head` holds a pointer that is valid there as it is. */
struct node __arena *__arena head;
u64 __arena list_sum;
int __arena list_len;

/* What user space sets: how many nodes to add. */
int cnt;

/* Nodes are cut off a page one after the other. */
static struct node __arena *spare;
static u32 spare_cnt;

static struct node __arena *new_node(void)
{
	struct node __arena *node;

	if (!spare_cnt) {
		spare = bpf_arena_alloc_pages(&arena, NULL, 1, NUMA_NO_NODE, 0);
		if (!spare)
			return NULL;
		spare_cnt = PAGE_SIZE / sizeof(*spare);
	}
	node = spare++;
	spare_cnt--;
	return node;
}

SEC("syscall")
int arena_list_add(void *ctx)
{
	for (int i = 0; i < cnt && can_loop; i++) {
		struct node __arena *node = new_node();

		if (!node)
			return 1;
		node->value = i;
		node->next = head;
		head = node;
		list_len++;
	}
	return 0;
}

SEC("syscall")
int arena_list_del(void *ctx)
{
	struct node __arena *node = head;

	list_sum = 0;
	while (node && can_loop) {
		list_sum += node->value;
		node = node->next;
		list_len--;
	}
	head = NULL;
	spare_cnt = 0;
	return 0;
}

char _license[] SEC("license") = "GPL";
