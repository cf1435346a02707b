/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What these programs need beyond the examples' header. A program returns 0, or the number of the
 * first check in it that failed.
 */
#ifndef PROGRAMS_H
#define PROGRAMS_H

#include "../../examples/bpf_arena.h"

typedef signed char s8;
typedef signed short s16;

extern int bpf_arena_reserve_pages(void *map, void __arena *addr, u32 page_cnt) __ksym __weak;

#define EINVAL 22
#define EBUSY 16

#define ALLOC(pages) bpf_arena_alloc_pages(&arena, NULL, pages, NUMA_NO_NODE, 0)
#define ALLOC_AT(addr, pages) bpf_arena_alloc_pages(&arena, addr, pages, NUMA_NO_NODE, 0)
#define FREE(addr, pages) bpf_arena_free_pages(&arena, (void __arena *)(addr), pages)
#define RESERVE(addr, pages) bpf_arena_reserve_pages(&arena, addr, pages)

/* An unknown 0: counters that begin with it are widened, not counted out turn by turn. */
int zero;

char _license[] SEC("license") = "GPL";

#endif
