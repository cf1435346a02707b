/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the examples need of BPF: section and map macros, arena pointers, loops, and the few
 * helpers and kfuncs that they call. Needs clang 19 or newer (its casts between address spaces).
 */
#ifndef BPF_ARENA_H
#define BPF_ARENA_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef signed int s32;
typedef signed long long s64;

#define NULL ((void *)0)

#ifndef __BPF_FEATURE_ADDR_SPACE_CAST
#error "this compiler does not know BPF address spaces: clang 19 or newer is needed"
#endif

#define SEC(name) __attribute__((section(name), used))
#define __noinline __attribute__((noinline))
#define __always_inline inline __attribute__((always_inline))
#define __weak __attribute__((weak))
#define __ksym __attribute__((section(".ksyms")))

/* A pointer or variable in the arena; the compiler casts where one is used. */
#define __arena __attribute__((address_space(1)))

/* Fields of a map definition, which the loader reads back from its type. */
#define __uint(name, value) int (*name)[value]
#define __type(name, value) typeof(value) *name
#define __ulong(name, value)                                                                   \
	enum { __unique_value(name, __LINE__) = (value) } name
#define __unique_value(name, line) __paste(__value_, name, line)
#define __paste(a, b, c) a##b##_##c

#define PAGE_SIZE 4096
#define NUMA_NO_NODE (-1)

enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_ARENA = 33,
};

enum {
	BPF_F_MMAPABLE = 1 << 10,
	BPF_F_NO_USER_CONV = 1 << 18,
};

enum { BPF_ANY, BPF_NOEXIST, BPF_EXIST };

enum { XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX };

/* Contexts, as far as the examples use them. */
struct xdp_md {
	u32 data;
	u32 data_end;
};

struct __sk_buff {
	u32 len;
};

/* Helpers are called by number. */
static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*const bpf_map_update_elem)(void *map, const void *key, const void *value,
					 u64 flags) = (void *)2;

/* kfuncs are found by name. */
extern void __arena *bpf_arena_alloc_pages(void *map, void __arena *addr, u32 page_cnt,
					   int node_id, u64 flags) __ksym __weak;
extern void bpf_arena_free_pages(void *map, void __arena *ptr, u32 page_cnt) __ksym __weak;

/*
 * A loop condition that is true until the kernel has had enough (8 million rounds, or a quarter
 * of a second): `for (...; cond && can_loop; ...)`. With it a loop needs no proof that it ends.
 */
#define can_loop                                                                               \
	({                                                                                     \
		__label__ out, end;                                                            \
		int go_on = 1;                                                                 \
		asm volatile goto("may_goto %l[out]" : : : : out);                             \
		goto end;                                                                      \
	out:                                                                                   \
		go_on = 0;                                                                     \
	end:;                                                                                  \
		go_on;                                                                         \
	})

#endif
