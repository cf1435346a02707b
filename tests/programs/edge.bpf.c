/* SPDX-License-Identifier: Apache-2.0 */
/* Two pages at the end of a 4 GiB window: what the page kfuncs do there, and pointer arithmetic. */
#include "programs.h"

#define BASE ((1ull << 44) | (0x100000000ull - 2 * PAGE_SIZE))

struct {
	__uint(type, BPF_MAP_TYPE_ARENA);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 2);
	__ulong(map_extra, BASE);
} arena SEC(".maps");

typedef volatile int __arena cell;

static __always_inline int fill_and_reuse(int may_linger)
{
	cell *first = ALLOC(1), *second, *again;

	if (!first)
		return 1;
	*first = 1;
	second = ALLOC(1);
	if (!second)
		return 2;
	*second = 2;
	if (ALLOC(1))
		return 3;
	if (*first != 1 || *second != 2)
		return 4;
	FREE(second, 1);
	if (*first != 1)
		return 5;
	if (*second && !(may_linger && *second == 2))
		return 6;
	if (!may_linger) {
		again = ALLOC(1);
		if (again != second)
			return 7;
		if (*again)
			return 8;
	}
	FREE(first, 2);
	return 0;
}

SEC("syscall") int sleepable(void *ctx)
{
	return fill_and_reuse(0);
}

SEC("socket") int nonsleepable(void *ctx)
{
	return fill_and_reuse(1);
}

SEC("syscall") int neighbours(void *ctx)
{
	volatile char __arena *page = ALLOC(2);

	if (!page)
		return 1;
	page[0] = 1;
	page[PAGE_SIZE] = 2;
	page[2 * PAGE_SIZE] = 3;
	page[-PAGE_SIZE] = 4;
	if (page[0] != 1 || page[PAGE_SIZE] != 2)
		return 2;
	if (page[2 * PAGE_SIZE] || page[-PAGE_SIZE])
		return 3;
	FREE(page, 2);
	if (page[0] || page[PAGE_SIZE])
		return 4;
	return 0;
}

SEC("syscall") int reserved(void *ctx)
{
	char __arena *base = (char __arena *)BASE;

	if (RESERVE(base + PAGE_SIZE, 1))
		return 1;
	if (RESERVE(base + PAGE_SIZE, 1) != -EBUSY)
		return 2;
	if (ALLOC_AT(base + PAGE_SIZE, 1))
		return 3;
	if (ALLOC(1) != base)
		return 4;
	if (ALLOC(1))
		return 5;
	FREE(base, 2);
	if (RESERVE(NULL, 3) != -EINVAL || RESERVE(base, 3) != -EINVAL)
		return 6;
	if (RESERVE(base, 0xffffffff) != -EINVAL)
		return 7;
	return 0;
}

SEC("syscall") int free_below(void *ctx)
{
	char __arena *base = (char __arena *)BASE;

	FREE(base - PAGE_SIZE, 1);
	if (ALLOC(3))
		return 1;
	if (!ALLOC(2))
		return 2;
	if (ALLOC(1))
		return 3;
	FREE(base, 2);
	return 0;
}

/* Scalar, context and arena pointers added in every order: the arena wins. */
SEC("syscall") __attribute__((naked)) void arithmetic(void)
{
	asm volatile("r6 = r1;"
		     "r1 = %[arena] ll;"
		     "r2 = 0; r3 = 1; r4 = -1; r5 = 0;"
		     "call %[alloc];"
		     "r7 = r0;"
		     "r8 = addr_space_cast(r0, 0x0, 0x1);"
		     "r1 = 8; r1 += r8;"
		     "*(u64 *)(r1 + 0) = 5;"
		     "r2 = r6; r2 += r8; r3 = r8; r3 += r6; r3 ^= r2;"
		     "r4 = *(u8 *)(r3 + 0);"
		     "r9 = *(u64 *)(r8 + 8);"
		     "r1 = %[arena] ll; r2 = r7; r3 = 1;"
		     "call %[free];"
		     "r0 = r9; r0 += -5;"
		     "exit;"
		     :: [arena] "i"(&arena), [alloc] "i"(bpf_arena_alloc_pages),
			[free] "i"(bpf_arena_free_pages));
}

SEC("syscall") __attribute__((naked)) void mixed_add(void)
{
	asm volatile("r6 = *(u32 *)(r1 + 0);"
		     "r1 = %[arena] ll;"
		     "r2 = 0x1111111111111111 ll;"
		     "if r6 == 0 goto 1f;"
		     "r2 = addr_space_cast(r1, 0x0, 0x1);"
		     "1: r2 += 1;"
		     "r0 = 0;"
		     "exit;"
		     :: [arena] "i"(&arena));
}

SEC("socket") __attribute__((naked)) void mixed_atomic(void)
{
	asm volatile("r6 = *(u32 *)(r1 + 0);"
		     "r1 = %[arena] ll;"
		     "*(u64 *)(r10 - 8) = 0;"
		     "r2 = r10; r2 += -8;"
		     "if r6 == 0 goto 1f;"
		     "r2 = addr_space_cast(r1, 0x0, 0x1);"
		     "1: r3 = 1;"
		     "lock *(u64 *)(r2 + 0) += r3;"
		     "r0 = 0;"
		     "exit;"
		     :: [arena] "i"(&arena));
}
