// SPDX-License-Identifier: Apache-2.0
/*
 * A heap of 4 GiB, of which only what is used exists. With BPF_F_NO_USER_CONV both casts are
 * 32-bit moves: what a program stores is the offset in the heap, and user space adds the base.
 */
#include "bpf_arena.h"

#define STRIDE (256u << 20) /* a page is taken every 256 MiB */

struct {
	__uint(type, BPF_MAP_TYPE_ARENA);
	__uint(map_flags, BPF_F_MMAPABLE | BPF_F_NO_USER_CONV);
	__uint(max_entries, 1 << 20); /* pages: 4 GiB */
} heap SEC(".maps");

struct node {
	struct node __arena *left;
	struct node __arena *right;
	u64 key;
};

/* A search tree; `root` and the links in it are offsets. */
struct node __arena *__arena root;
u64 __arena node_cnt;
u64 __arena page_cnt;

/* Offset 0 would look like NULL, so the first page is left out. */
static u64 next_page = PAGE_SIZE;
static struct node __arena *spare;
static u32 spare_cnt;

struct insert_args {
	u64 key; /* the first key; the next is key + step modulo a prime, and so on */
	u64 step;
	u64 cnt;
};

/* The pointer that it returns is one that a program addresses the heap with. */
static __noinline struct node *new_node(void)
{
	if (!spare_cnt) {
		spare = bpf_arena_alloc_pages(&heap, (void __arena *)next_page, 1, NUMA_NO_NODE,
					      0);
		if (!spare)
			return NULL;
		next_page += STRIDE;
		page_cnt++;
		spare_cnt = PAGE_SIZE / sizeof(*spare);
	}
	spare_cnt--;
	return (struct node *)spare++; /* all zero, as its page came */
}

SEC("syscall")
int heap_insert(struct insert_args *args)
{
	u64 key = args->key;

	for (u64 i = 0; i < args->cnt && can_loop; i++) {
		struct node __arena *__arena *link = &root;
		struct node *node = new_node();

		if (!node)
			return 1;
		node->key = key;
		while (*link && can_loop)
			link = key < (*link)->key ? &(*link)->left : &(*link)->right;
		*link = (struct node __arena *)node; /* the other cast: what is stored */
		node_cnt++;
		key = (key + args->step) % 65537;
	}
	return 0;
}

char _license[] SEC("license") = "GPL";
