/* SPDX-License-Identifier: Apache-2.0 */
/* Data structures as arena programs have them, over an allocator with size classes. */
#include "programs.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARENA);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1024);
} arena SEC(".maps");

struct block {
	struct block __arena *next;
};

struct block __arena *__arena blocks[9];

static __noinline void __arena *take(u32 order)
{
	struct block __arena *block;
	char __arena *page;

	if (order >= 9)
		return NULL;
	block = blocks[order];
	if (block) {
		blocks[order] = block->next;
		return block;
	}
	page = ALLOC(1);
	if (!page)
		return NULL;
	for (u32 at = zero + (16u << order); at < PAGE_SIZE && can_loop; at += 16u << order) {
		block = (struct block __arena *)(page + at);
		block->next = blocks[order];
		blocks[order] = block;
	}
	return page;
}

static __noinline int give(void __arena *address, u32 order)
{
	struct block __arena *block = address;

	if (order >= 9)
		return 1;
	block->next = blocks[order];
	blocks[order] = block;
	return 0;
}

SEC("syscall") int free_lists(void *ctx)
{
	u64 __arena *a = take(3), *b = take(3), *c = take(5);

	if (!a || !b || !c || a == b)
		return 1;
	*a = 1;
	*b = 2;
	*c = 3;
	if (*a + *b * 10 + *c * 100 != 321)
		return 2;
	give(a, 3);
	give(b, 3);
	give(c, 5);
	return take(3) != b || take(3) != a || take(5) != c;
}

struct odd {
	u8 a;
	u16 b;
	s8 c;
	s16 d;
	u32 e;
	s32 f;
	char name[7];
} __attribute__((packed));

SEC("syscall") int odd_sizes(void *ctx)
{
	struct odd __arena *odd = take(8);
	s64 sum = zero;

	if (!odd)
		return 1;
	for (int i = zero; i < 50 && can_loop; i++) {
		struct odd __arena *o = &odd[i];

		o->a = 250 + i;
		o->b = i * 2000;
		o->c = -i;
		o->d = -i * 300;
		o->e = i * 100000000u;
		o->f = -i * 10000000;
		o->name[i % 7u] = 'a' + i % 26u;
	}
	for (int i = zero; i < 50 && can_loop; i++) {
		struct odd __arena *o = &odd[i];

		if (o->a != (u8)(250 + i) || o->b != (u16)(i * 2000) || o->c != -i)
			return 2;
		if (o->d != -i * 300 || o->e != i * 100000000u || o->f != -i * 10000000)
			return 3;
		if (o->name[i % 7u] != 'a' + i % 26u)
			return 4;
		sum += o->c + o->d + (s64)o->f;
	}
	return sum != -(s64)10000301 * 1225;
}

u64 __arena bits[64];

SEC("syscall") int bitmap(void *ctx)
{
	u32 count = zero;

	for (u32 i = zero; i < 4096 && can_loop; i += 3)
		bits[i / 64] |= 1ull << i % 64;
	for (u32 i = zero; i < 4096 && can_loop; i++)
		if ((bits[i / 64] >> i % 64 & 1) != (i % 3 == 0))
			return 1;
	for (u32 i = zero; i < 64 && can_loop; i++)
		count += __builtin_popcountll(bits[i]);
	return count != 1366;
}

struct {
	u32 head, tail;
	u64 slots[64];
} __arena ring;

SEC("syscall") int ring_wraps(void *ctx)
{
	u64 sum = zero;

	ring.head = ring.tail = 0xfffffff0u;
	for (u32 i = zero; i < 100 && ring.head - ring.tail < 64 && can_loop; i++)
		ring.slots[ring.head++ & 63] = i;
	while (ring.head != ring.tail && can_loop)
		sum += ring.slots[ring.tail++ & 63];
	return ring.tail != 48 || sum != 2016;
}

struct leaf {
	struct leaf __arena *left, *up, *right;
	int key;
};

struct leaf __arena *__arena root;

static __noinline struct leaf __arena *insert(int key)
{
	struct leaf __arena *__arena *link = &root, *up = NULL, *at;

	while ((at = *link) && can_loop) {
		up = at;
		if (key == at->key)
			return at;
		link = key < at->key ? &at->left : &at->right;
	}
	at = take(2);
	if (!at)
		return NULL;
	at->left = NULL;
	at->up = up;
	at->right = NULL;
	at->key = key;
	*link = at;
	return at;
}

static __noinline struct leaf __arena *leftmost(struct leaf __arena *at)
{
	while (at && at->left && can_loop)
		at = at->left;
	return at;
}

static __noinline struct leaf __arena *next(struct leaf __arena *at)
{
	struct leaf __arena *up = at->up;

	if (at->right)
		return leftmost(at->right);
	while (up && at == up->right && can_loop) {
		at = up;
		up = up->up;
	}
	return up;
}

SEC("syscall") int tree(void *ctx)
{
	u32 random = zero + 12345, count = zero;
	int last = -1;

	for (int i = zero; i < 300 && can_loop; i++) {
		random = random * 1103515245 + 12345;
		if (!insert(random >> 8 & 0xffff))
			return 1;
	}
	for (struct leaf __arena *at = leftmost(root); at && can_loop; at = next(at)) {
		if (at->key <= last)
			return 2;
		last = at->key;
		count++;
	}
	return count != 298;
}

struct entry {
	struct entry __arena *next;
	u32 key, value;
};

struct entry __arena *__arena buckets[1024];

static __noinline struct entry __arena *lookup(u32 key)
{
	struct entry __arena *at = buckets[key * 2654435761u >> 22];

	while (at && at->key != key && can_loop)
		at = at->next;
	return at;
}

static __noinline int update(u32 key, u32 value)
{
	struct entry __arena *at = lookup(key), *__arena *bucket;

	if (!at) {
		at = take(0);
		if (!at)
			return 1;
		bucket = &buckets[key * 2654435761u >> 22];
		at->key = key;
		at->next = *bucket;
		*bucket = at;
	}
	at->value = value;
	return 0;
}

SEC("syscall") int hash_table(void *ctx)
{
	for (u32 i = zero; i < 5000 && can_loop; i++)
		if (update(i, i))
			return 1;
	for (u32 i = zero; i < 500 && can_loop; i++)
		if (update(i, i + 1))
			return 2;
	for (u32 i = zero; i < 5000 && can_loop; i++) {
		struct entry __arena *at = lookup(i);

		if (!at || at->value != i + (i < 500))
			return 3;
	}
	return lookup(5000) != NULL;
}

char __arena greeting[32] = "hello, arena";
char __arena copy[32];

static __noinline u32 length(const char __arena *string)
{
	u32 count = zero;

	while (*string++ && can_loop)
		count++;
	return count;
}

static __noinline int compare(const char __arena *one, const char __arena *other)
{
	while (can_loop) {
		u8 a = *one++, b = *other++;

		if (a != b || !a)
			return (int)a - b;
	}
	return 0;
}

static __noinline char __arena *copy_string(char __arena *to, const char __arena *from)
{
	char __arena *start = to;

	while ((*to++ = *from++) && can_loop)
		;
	return start;
}

SEC("syscall") int strings(void *ctx)
{
	if (length(copy_string(copy, greeting)) != 12)
		return 1;
	if (compare(copy, greeting))
		return 2;
	copy[7] = 'A';
	return compare(copy, greeting) != 'A' - 'a';
}

u64 __arena big = 1;
u32 __arena small = 1;

SEC("raw_tp/sys_enter") int atomics(void *ctx)
{
	u64 old;

	if (__sync_fetch_and_add(&big, 2) != 1 || __sync_fetch_and_sub(&small, 2) != 1)
		return 1;
	if (big != 3 || small != 0xffffffff)
		return 2;
	if (__sync_val_compare_and_swap(&big, 1, 9) != 3 || big != 3)
		return 3;
	if (__sync_val_compare_and_swap(&small, 0xffffffff, 9) != 0xffffffff || small != 9)
		return 4;
	old = __sync_lock_test_and_set(&big, 7);
	return old != 3 || big != 7;
}

/* The casts of sources for compilers that make none: raw bytes in the program's text. */
#define cast_kern(pointer)                                                                     \
	asm volatile("r1 = %0; .byte 0xbf, 0x11, 0x01, 0x00, 0x01, 0x00, 0x00, 0x00; %0 = r1;" \
		     : "+r"(pointer)::"r1")

SEC("syscall") int raw_casts(void *ctx)
{
	u64 *page = (u64 *)ALLOC(1);

	if (!page)
		return 1;
	cast_kern(page);
	page[5] = 42;
	return page[5] != 42;
}
