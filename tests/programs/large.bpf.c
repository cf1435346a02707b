/* SPDX-License-Identifier: Apache-2.0 */
/* A whole 4 GiB, with variables in its last page: placement, reservations, many pages at once. */
#include "programs.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARENA);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1ull << 20);
} arena SEC(".maps");

#define PAGES 60
#define SIZE (1ull << 32)

u8 __arena *__arena page[PAGES];

static __always_inline u8 __arena *base(void)
{
	return (u8 __arena *)((u64)(u8 __arena *)page & ~(SIZE - 1));
}

SEC("syscall") int ends(void *ctx)
{
	volatile u8 __arena *low = ALLOC(1), *high;

	if (low != base())
		return 1;
	high = ALLOC_AT((void __arena *)(low + SIZE - 2 * PAGE_SIZE), 1);
	if (!high)
		return 2;
	*high = 2;
	if (ALLOC_AT((void __arena *)(low + SIZE - PAGE_SIZE), 1))
		return 3;
	if (ALLOC_AT((void __arena *)SIZE, 1))
		return 4;
	if (low[-PAGE_SIZE] || low[PAGE_SIZE] || high[-PAGE_SIZE] || *high != 2)
		return 5;
	FREE(low, 1);
	FREE(high, 1);
	return *high || (u8 __arena *)ALLOC(1) != low;
}

SEC("syscall") int reservations(void *ctx)
{
	u8 __arena *at = base() + 100 * PAGE_SIZE;

	if (RESERVE(at, 4))
		return 1;
	for (int i = zero; i < 4 && can_loop; i++) {
		*(volatile u8 __arena *)(at + i * PAGE_SIZE) = 5;
		if (*(volatile u8 __arena *)(at + i * PAGE_SIZE))
			return 2;
	}
	if (ALLOC_AT(at - 2 * PAGE_SIZE, 8))
		return 3;
	FREE(at, 2);
	return ALLOC_AT(at, 2) != at || ALLOC_AT(at + 2 * PAGE_SIZE, 1);
}

/* Pages of *at_once* pages go to gaps below *limit*. */
static __noinline int take(int count, int at_once, u32 limit)
{
	for (int i = zero; i < count && can_loop; i++) {
		u8 __arena *new = ALLOC(at_once);
		u32 index = (u32)(new - base()) / PAGE_SIZE;

		if (!new || index >= limit || index >= PAGES)
			return 1;
		*new = index;
		page[index] = new;
	}
	return 0;
}

SEC("socket") int gaps(void *ctx)
{
	FREE(base(), 1000);
	if (take(PAGES, 1, PAGES))
		return 1;
	for (int i = zero; i < PAGES && can_loop; i++)
		if (*page[i] != i)
			return 2;
	for (int i = zero; i < PAGES && can_loop; i += 4)
		FREE(page[i], 2);
	if (take(PAGES / 4, 2, PAGES))
		return 3;
	for (int i = zero; i < PAGES && can_loop; i += 2)
		FREE(page[i], 1);
	if (take(PAGES / 2, 1, PAGES))
		return 4;
	return (u8 __arena *)ALLOC(1) != base() + PAGES * PAGE_SIZE;
}

SEC("socket") int batches(void *ctx)
{
	u8 __arena *many = ALLOC(2051);

	if (!many)
		return 1;
	for (u32 i = zero; i < 2051 && can_loop; i++)
		many[i * PAGE_SIZE] = i;
	for (u32 i = zero; i < 2051 && can_loop; i++)
		if (many[i * PAGE_SIZE] != (u8)i)
			return 2;
	FREE(many, 2051);
	return 0;
}
