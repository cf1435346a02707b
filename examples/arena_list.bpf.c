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

/* Nodes are cut off a page one after the other; pages are linked, to be given back. */
struct page {
	struct page __arena *older;
	u64 used;
	struct node nodes[(PAGE_SIZE - 16) / sizeof(struct node)];
};

/* What user space reads; `head` is an address that is valid there as it is. */
struct node __arena *__arena head;
u64 __arena list_sum;
u32 __arena list_len;

/* How many nodes to add: user space may set it. */
u32 cnt = 10;

static struct page __arena *newest;

static struct node __arena *new_node(void)
{
	struct page __arena *page = newest;

	if (!page || page->used == sizeof(page->nodes) / sizeof(struct node)) {
		page = bpf_arena_alloc_pages(&arena, NULL, 1, NUMA_NO_NODE, 0);
		if (!page)
			return NULL;
		page->older = newest; /* all else in a fresh page is zero */
		newest = page;
	}
	return &page->nodes[page->used++];
}

SEC("syscall")
int arena_list_add(void *ctx)
{
	for (u32 i = 0; i < cnt && can_loop; i++) {
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
	struct page __arena *page = newest;

	list_sum = 0;
	for (struct node __arena *node = head; node && can_loop; node = node->next) {
		list_sum += node->value;
		list_len--;
	}
	head = NULL;
	while (page && can_loop) {
		struct page __arena *older = page->older;

		bpf_arena_free_pages(&arena, page, 1);
		page = older;
	}
	newest = NULL;
	return 0;
}

char _license[] SEC("license") = "GPL";
