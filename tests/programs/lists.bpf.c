/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of objects: made, pushed, popped, dropped, under the lock beside the list's head. */
#include "programs.h"

struct bpf_list_head { u64 opaque[2]; } __attribute__((aligned(8)));
struct bpf_list_node { u64 opaque[3]; } __attribute__((aligned(8)));
struct bpf_spin_lock { u32 val; };

static void (*const bpf_spin_lock)(struct bpf_spin_lock *lock) = (void *)93;
static void (*const bpf_spin_unlock)(struct bpf_spin_lock *lock) = (void *)94;

extern void *bpf_obj_new_impl(u64 local_type_id, void *meta) __ksym;
extern void bpf_obj_drop_impl(void *obj, void *meta) __ksym;
extern int bpf_list_push_front_impl(struct bpf_list_head *head, struct bpf_list_node *node,
				    void *meta, u64 off) __ksym;
extern int bpf_list_push_back_impl(struct bpf_list_head *head, struct bpf_list_node *node,
				   void *meta, u64 off) __ksym;
extern struct bpf_list_node *bpf_list_pop_front(struct bpf_list_head *head) __ksym;
extern struct bpf_list_node *bpf_list_pop_back(struct bpf_list_head *head) __ksym;

#define NEW(kind) ((kind *)bpf_obj_new_impl(__builtin_btf_type_id(*(kind *)0, 0), NULL))
#define DROP(obj) bpf_obj_drop_impl(obj, NULL)
#define OBJECT(ptr) ((struct item *)((char *)(ptr) - __builtin_offsetof(struct item, node)))

struct item {
	u64 value;
	struct bpf_list_node node;
	u64 more;
};

struct other {
	struct bpf_list_node node;
};

struct queue {
	struct bpf_spin_lock lock;
	struct bpf_list_head head __attribute__((btf_decl_tag("contains:item:node")));
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct queue);
} queues SEC(".maps");

static struct queue *first(void)
{
	u32 key = 0;

	return bpf_map_lookup_elem(&queues, &key);
}

/* First in, first out: 3, 1, 2, as 3 is pushed at the front. */
SEC("syscall")
int in_order(void *ctx)
{
	struct queue *queue = first();
	struct bpf_list_node *node;
	u64 sum = 0;

	if (!queue)
		return 1;
	for (int i = 1; i <= 3; i++) {
		struct item *item = NEW(struct item);

		if (!item)
			return 2;
		item->value = i;
		bpf_spin_lock(&queue->lock);
		if (i < 3)
			bpf_list_push_back_impl(&queue->head, &item->node, NULL, 0);
		else
			bpf_list_push_front_impl(&queue->head, &item->node, NULL, 0);
		item->more = 7; /* still there, while the lock is held */
		bpf_spin_unlock(&queue->lock);
	}
	for (int i = 0; i < 4; i++) {
		struct item *item;

		bpf_spin_lock(&queue->lock);
		node = i == 1 ? bpf_list_pop_back(&queue->head) : bpf_list_pop_front(&queue->head);
		bpf_spin_unlock(&queue->lock);
		if (!node)
			return i == 3 && sum == 321 ? 0 : 3;
		item = OBJECT(node);
		if (item->more != 7)
			return DROP(item), 4;
		sum = sum * 10 + item->value;
		DROP(item);
	}
	return 5;
}

/* What is left in the list stays there for the next run. */
SEC("syscall")
int kept(void *ctx)
{
	struct queue *queue = first();
	struct item *item;
	struct bpf_list_node *node;

	if (!queue)
		return 1;
	bpf_spin_lock(&queue->lock);
	node = bpf_list_pop_front(&queue->head);
	bpf_spin_unlock(&queue->lock);
	item = node ? OBJECT(node) : NEW(struct item);
	if (!item)
		return 2;
	if (item->value++ > 8) {
		DROP(item);
		return 9;
	}
	bpf_spin_lock(&queue->lock);
	bpf_list_push_front_impl(&queue->head, &item->node, NULL, 0);
	bpf_spin_unlock(&queue->lock);
	return 0;
}
