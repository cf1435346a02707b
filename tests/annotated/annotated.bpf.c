/* Programs with the annotations that the kernel's selftests use, in both spellings; one half of
 * them is right about itself. Rebuild: python tests/annotated/build.py */

#define SEC(name) __attribute__((section(name), used))
#define tag(text) __attribute__((btf_decl_tag("comment:" text)))
typedef unsigned int u32;
typedef unsigned long long u64;

char _license[] SEC("license") = "GPL";

struct {
	int (*type)[2]; /* an array */
	u32 *key;
	u64 *value;
	int (*max_entries)[1];
} values SEC(".maps");

struct {
	int (*type)[250]; /* no such type */
	int (*max_entries)[1];
} strange SEC(".maps");

static void *(*lookup)(void *map, const void *key) = (void *)1;

/* -- right ------------------------------------------------------------------------------------ */

SEC("socket")
tag("test_description=seven") tag("test_expect_success") tag("test_retval=7")
tag("test_log_level=2") tag("test_expect_msg=0=Live regs") tag("test_expect_msg=1=; R0={{[67]}}")
int accepted(void *ctx)
{
	return 7;
}

SEC("?socket")
tag("test_expect_failure") tag("test_expect_failure_unpriv")
tag("test_expect_msg=0=R{{[0-9]+}} invalid mem access 'scalar'")
__attribute__((naked)) int rejected(void)
{
	asm volatile("r1 = 1; r0 = *(u64 *)(r1 + 0); exit");
}

/* 7.3's spelling; the counters give the order. */
SEC("socket")
tag("3:test_expect_msg=R0 invalid mem access") tag("1:test_expect_msg=call bpf_map_lookup_elem")
tag("0:test_expect_failure") tag("2:test_expect_not_msg=exit") tag("4:test_arch=X86_64")
__attribute__((naked)) int in_order(void)
{
	asm volatile("r1 = %[map] ll; r2 = r10; r2 += -4; *(u32 *)(r10 - 4) = 5;"
		     "call 1; r0 = *(u64 *)(r0 + 0); exit" ::[map] "i"(&values));
}

SEC("socket")
tag("test_expect_success") tag("test_expect_failure_unpriv") tag("test_retval=POINTER_VALUE")
tag("test_expect_msg_unpriv=0=R0 leaks addr as return value")
__attribute__((naked)) int returns_a_pointer(void)
{
	asm volatile("r0 = r10; exit");
}

SEC("socket")
tag("test_expect_success_unpriv") tag("test_retval_unpriv=0x10")
int unprivileged_only(void *ctx)
{
	return 16;
}

SEC("xdp")
tag("test_expect_failure") tag("test_prog_flags=BPF_F_STRICT_ALIGNMENT")
tag("test_expect_msg=0=misaligned stack access off 0+0+-9 size 8")
__attribute__((naked)) int strict(void)
{
	asm volatile("*(u64 *)(r10 - 9) = 0; r0 = 0; exit");
}

SEC("socket")
tag("test_expect_success") tag("test_expect_xlated=0=0: r0 = 7") tag("test_retval=7")
int with_a_listing(void *ctx)
{
	return 7;
}

/* -- wrong ------------------------------------------------------------------------------------ */

SEC("socket") tag("test_expect_success") tag("test_retval=8") int wrong_retval(void *ctx)
{
	return 7;
}

SEC("socket") tag("test_expect_failure") int wrong_verdict(void *ctx)
{
	return 7;
}

SEC("socket")
tag("test_expect_failure") tag("test_expect_msg=0=!read_ok") tag("test_expect_msg=1=R0")
__attribute__((naked)) int wrong_order(void)
{
	asm volatile("exit");
}

SEC("socket") tag("test_something=1") int unknown_tag(void *ctx)
{
	return 7;
}

/* -- passed over ------------------------------------------------------------------------------ */

SEC("socket") int unannotated(void *ctx)
{
	return 7;
}

SEC("socket") tag("test_auxiliary") int auxiliary(void *ctx)
{
	return 7;
}

SEC("socket") tag("test_expect_success") tag("test_arch=ARM64") int of_another_machine(void *ctx)
{
	return 7;
}

SEC("socket") tag("test_expect_success") tag("load_mode=no_jited") int without_jit(void *ctx)
{
	return 7;
}

SEC("socket") tag("test_expect_success") tag("test_btf_path=x.o") int with_other_btf(void *ctx)
{
	return 7;
}

SEC("nowhere/at_all") tag("test_expect_success") int of_no_type(void *ctx)
{
	return 7;
}

SEC("socket") tag("test_expect_success") int of_no_map_type(void *ctx)
{
	u32 key = 0;
	return lookup(&strange, &key) != 0;
}
