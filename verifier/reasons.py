"""Why a program is rejected: one row for each complaint, with slug, errno and the kernel's words.

A `Reject` is raised anywhere below `verifier.api` and becomes a `Verdict` there; nothing else
knows errno numbers or message texts. Templates are `str.format` texts; where the words differ
between kernels there are two rows, and the code that raises asks `KernelRules` which.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, unique

__all__ = ["Reason", "Reject"]

EPERM, ENOENT, E2BIG, EBADF, ENOMEM, EACCES = 1, 2, 7, 9, 12, 13
EFAULT, EBUSY, EINVAL, ERANGE = 14, 16, 22, 34
EOPNOTSUPP, ENOTSUPP = 95, 524


@unique
class Reason(Enum):
    """A complaint: (errno, message template). The slug is the member's name in lower case."""

    # what the kernel accepts or goes on with, and this verifier does not follow yet
    NOT_SUPPORTED = (EOPNOTSUPP, "not supported yet: {what}")

    # before the walk
    BAD_INSN_COUNT = (E2BIG, "program has {count} insns, more than {limit}")
    BAD_PROG_TYPE = (EINVAL, "unknown program type {name}")
    PROG_TYPE_PERM = (EPERM, "a program of type {name} needs {capability}")
    CALL_DESTINATION = (EINVAL, "call to invalid destination")
    TOO_MANY_SUBPROGS = (E2BIG, "too many subprograms")
    KFUNC_NOT_GPL = (EINVAL, "cannot call kernel function from non-GPL compatible program")
    KFUNC_BTF_ID = (EINVAL, "kernel btf_id {id} is not a function")
    KFUNC_NO_ADDRESS = (EINVAL, "cannot find address for kernel function {name}")
    JUMP_RANGE = (EINVAL, "jump out of range from insn {insn} to {target}")
    NO_EXIT = (EINVAL, "last insn is not an exit or jmp")
    UNREACHABLE = (EINVAL, "unreachable insn {insn}")
    LDIMM64_MIDDLE = (EINVAL, "jump into the middle of ldimm64 insn {insn}")
    LDIMM64_INVALID = (EINVAL, "invalid bpf_ld_imm64 insn")
    LDIMM64_UNRECOGNIZED = (EINVAL, "unrecognized bpf_ld_imm64 insn")
    BAD_MAP_FD = (EBADF, "fd {fd} is not pointing to valid bpf_map")
    DIRECT_VALUE_OFF = (EINVAL, "direct value offset of {off} is not allowed")
    NO_DIRECT_VALUE = (EINVAL, "no direct value access support for this map type")
    DIRECT_VALUE_RANGE = (
        EINVAL,
        "invalid access to map value pointer, value_size={size} off={off}",
    )
    DIRECT_VALUE_ENTRIES = (
        ENOTSUPP,
        "invalid access to map value pointer, value_size={size} off={off}",
    )
    DIRECT_VALUE_ARENA = (
        ERANGE,
        "invalid access to map value pointer, value_size=0 off={off}",
    )
    ONE_ARENA = (EBUSY, "Only one arena per program")
    ARENA_NO_ADDRESS = (EINVAL, "arena's user address must be set via map_extra or mmap()")
    SLEEPABLE_MAP = (
        EINVAL,
        "Sleepable programs can only use array, hash, ringbuf and local storage maps",
    )
    TOO_MANY_MAPS = (E2BIG, "The total number of maps per program has reached the limit of {limit}")
    UNKNOWN_OPCODE = (EINVAL, "unknown opcode {opcode:02x}")
    SYSCALL_SLEEPABLE = (EINVAL, "Syscall programs can only be sleepable")
    CANNOT_SLEEP = (
        EINVAL,
        "Only fentry/fexit/fmod_ret, lsm, iter, uprobe, and struct_ops programs can be sleepable",
    )
    TYPE_CANNOT_SLEEP = (EINVAL, "Program of this type cannot be sleepable")
    RECURSION = (EINVAL, "recursive call from {caller}() to {callee}()")

    # what BTF tells of functions and source lines
    FUNC_INFO_FIRST = (EINVAL, "nonzero insn_off {off} for the first func info record")
    FUNC_INFO_ORDER = (
        EINVAL,
        "same or smaller insn offset ({off}) than previous func info record ({last})",
    )
    FUNC_INFO_TYPE = (EINVAL, "invalid type id {id} in func info")
    FUNC_INFO_COUNT = (EINVAL, "number of funcs in func_info doesn't match number of subprogs")
    FUNC_INFO_LAYOUT = (
        EINVAL,
        "func_info BTF section doesn't match subprog layout in BPF program",
    )
    LINE_INFO_ORDER = (
        EINVAL,
        "Invalid line_info[{index}].insn_off:{off} (prev_offset:{last} prog->len:{size})",
    )
    LINE_INFO_CODE = (EINVAL, "Invalid insn code at line_info[{index}].insn_off")
    LINE_INFO_NAME = (EINVAL, "Invalid line_info[{index}].line_off or .file_name_off")
    LINE_INFO_FUNC = (EINVAL, "missing bpf_line_info for func#{number}")
    LINE_INFO_FUNCS = (
        EINVAL,
        "missing bpf_line_info for {count} funcs starting from func#{number}",
    )

    # fields
    LDX_RESERVED = (EINVAL, "BPF_LDX uses reserved fields")
    STX_RESERVED = (EINVAL, "BPF_STX uses reserved fields")
    ST_RESERVED = (EINVAL, "BPF_ST uses reserved fields")
    NEG_RESERVED = (EINVAL, "BPF_NEG uses reserved fields")
    END_RESERVED = (EINVAL, "BPF_END uses reserved fields")
    MOV_RESERVED = (EINVAL, "BPF_MOV uses reserved fields")
    ALU_RESERVED = (EINVAL, "BPF_ALU uses reserved fields")
    JMP_RESERVED = (EINVAL, "BPF_JMP/JMP32 uses reserved fields")
    JA_RESERVED = (EINVAL, "BPF_JA uses reserved fields")
    GOTOX_RESERVED = (EINVAL, "BPF_JA|BPF_X uses reserved fields")
    NO_JUMP_TABLE = (EINVAL, "no jump tables found for subprog starting at {start}")
    CALL_RESERVED = (EINVAL, "BPF_CALL uses reserved fields")
    EXIT_RESERVED = (EINVAL, "BPF_EXIT uses reserved fields")
    LDIMM64_RESERVED = (EINVAL, "BPF_LD_IMM64 uses reserved fields")
    MAY_GOTO_FIELDS = (EINVAL, "invalid may_goto imm {imm}")
    CAST_SPACES = (EINVAL, "addr_space_cast insn can only convert between address space 1 and 0")
    CAST_NO_ARENA = (
        EINVAL,
        "addr_space_cast insn can only be used in a program that has an associated arena",
    )
    ATOMIC_OPCODE = (EINVAL, "BPF_ATOMIC uses invalid atomic opcode {imm:02x}")
    ATOMIC_SIZE = (EINVAL, "invalid atomic operand size")
    DIV_BY_ZERO = (EINVAL, "div by zero")
    INVALID_SHIFT = (EINVAL, "invalid shift {count}")
    INVALID_REG = (EINVAL, "R{reg} is invalid")
    LD_ABS_PROG_TYPE = (
        EINVAL,
        "BPF_LD_[ABS|IND] instructions not allowed for this program type",
    )

    # registers and arithmetic
    NOT_READABLE = (EACCES, "R{reg} !read_ok")
    FP_READ_ONLY = (EACCES, "frame pointer is read only")
    PTR_PTR = (EACCES, "R{reg} pointer {op} pointer prohibited")
    PTR_ALU32 = (EACCES, "R{reg} 32-bit pointer arithmetic prohibited")
    PTR_MAYBE_NULL = (
        EACCES,
        "R{reg} pointer arithmetic on {type} prohibited, null-check it first",
    )
    PTR_PROHIBITED = (EACCES, "R{reg} pointer arithmetic on {type} prohibited")
    SCALAR_MINUS_PTR = (EACCES, "R{reg} tried to subtract pointer from scalar")
    FP_SUBTRACT = (EACCES, "R{reg} subtraction from stack pointer prohibited")
    PTR_BITWISE = (EACCES, "R{reg} bitwise operator {op} on pointer prohibited")
    PTR_OPERATOR = (EACCES, "R{reg} pointer arithmetic with {op} operator prohibited")
    PTR_MATH = (EINVAL, "math between {type} pointer and {value} is not allowed")
    PTR_OFFSET = (EINVAL, "{type} pointer offset {off} is not allowed")
    PTR_UNBOUNDED = (
        EINVAL,
        "math between {type} pointer and register with unbounded min value is not allowed",
    )
    PTR_OUT_OF_BOUNDS = (EINVAL, "value {value} makes {type} pointer be out of bounds")
    ARENA_ALU64_MIX = (EINVAL, "same insn cannot be used with and without arena pointer")

    # what only the privileged may do (a mispredicted path could misuse it)
    TAIL_CALL_MAPS = (EINVAL, "tail_call abusing map_ptr")
    SPEC_BOUNDS = (
        EACCES,
        "R{reg} has unknown scalar with mixed signed bounds, "
        "pointer arithmetic with it prohibited for !root",
    )
    SPEC_TYPE = (
        EACCES,
        "R{reg} has pointer with unsupported alu operation, "
        "pointer arithmetic with it prohibited for !root",
    )
    SPEC_PATHS = (
        EACCES,
        "R{reg} tried to {op} from different maps, paths or scalars, "
        "pointer arithmetic with it prohibited for !root",
    )
    SPEC_LIMIT = (
        EACCES,
        "R{reg} tried to {op} beyond pointer bounds, "
        "pointer arithmetic with it prohibited for !root",
    )
    SPEC_STACK_VARIABLE = (
        EACCES,
        "R{reg} variable stack access prohibited for !root, var_off={var_off} off={off}",
    )
    SPEC_STACK_RANGE = (
        EACCES,
        "R{reg} stack pointer arithmetic goes out of range, prohibited for !root; off={off}",
    )
    SPEC_VALUE_RANGE = (
        EACCES,
        "R{reg} pointer arithmetic of map value goes out of range, prohibited for !root",
    )

    # what only the privileged may do
    CALLS_PERM = (
        EPERM,
        "loading/calling other bpf or kernel functions are allowed for CAP_BPF and CAP_SYS_ADMIN",
    )
    ARENA_PERM = (EPERM, "CAP_BPF and CAP_PERFMON are required to use arena")
    BACK_EDGE = (EINVAL, "back-edge from insn {insn} to {target}")
    STRUCT_PERM = (
        EPERM,
        "'struct {struct}' access is allowed only to CAP_PERFMON and CAP_SYS_ADMIN",
    )
    LEAK_RETURN = (EACCES, "R{reg} leaks addr as return value")
    LEAK_INTO = (EACCES, "R{reg} leaks addr into {into}")
    PTR_UNARY = (EACCES, "R{reg} pointer arithmetic prohibited")
    PTR_PART = (EACCES, "R{reg} partial copy of pointer")
    PTR_SIGN_PART = (EACCES, "R{reg} sign-extension part of pointer")
    PTR_COMPARED = (EACCES, "R{reg} pointer comparison prohibited")
    STACK_LEAK = (EACCES, "leaking pointer from stack off {off}")
    SPILL_CORRUPTED = (EACCES, "attempt to corrupt spilled pointer on stack")
    STACK_VAR_PROHIBITED = (
        EACCES,
        "R{reg} variable offset stack access prohibited for !root, var_off={var_off}",
    )

    # memory
    INVALID_MEM = (EACCES, "R{reg} invalid mem access '{type}'")
    MISALIGNED = (EACCES, "misaligned {what}access off {var_off}+{reg_off}+{off} size {size}")
    MISALIGNED_ONE = (EACCES, "misaligned {what}access off {var_off}+{off} size {size}")
    MISALIGNED_PACKET = (
        EACCES,
        "misaligned packet access off 2+{var_off}+{reg_off}+{off} size {size}",
    )
    MISALIGNED_PACKET_ONE = (
        EACCES,
        "misaligned packet access off 2+{var_off}+{off} size {size}",
    )
    SAME_INSN = (EINVAL, "same insn cannot be used with different pointers")
    MIN_NEGATIVE = (
        EACCES,
        "R{reg} min value is negative, either use unsigned index or do a if (index >=0) check.",
    )
    MIN_OUTSIDE = (EACCES, "R{reg} min value is outside of the allowed memory range")
    MAX_OUTSIDE = (EACCES, "R{reg} max value is outside of the allowed memory range")
    UNBOUNDED_ACCESS = (
        EACCES,
        "R{reg} unbounded memory access, make sure to bounds check any such access",
    )
    PACKET_OUTSIDE = (EACCES, "R{reg} offset is outside of the packet")
    PACKET_END_MARKED = (EINVAL, "R{reg} offset is outside of the packet")
    PACKET_READ_ONLY = (EACCES, "cannot write into packet")
    MAP_READ_ONLY = (
        EACCES,
        "write into map forbidden, value_size={value_size} off={off} size={size}",
    )
    MAP_WRITE_ONLY = (
        EACCES,
        "read from map forbidden, value_size={value_size} off={off} size={size}",
    )
    CTX_NEGATIVE = (EACCES, "negative offset ctx ptr R{reg} off={off} disallowed")
    CTX_MODIFIED = (EACCES, "dereference of modified ctx ptr R{reg} off={off} disallowed")
    CTX_VARIABLE = (EACCES, "variable ctx access var_off={var_off} disallowed")
    PTR_ARG_NEGATIVE = (EACCES, "negative offset {type} ptr R{reg} off={off} disallowed")
    PTR_ARG_MODIFIED = (EACCES, "dereference of modified {type} ptr R{reg} off={off} disallowed")
    PTR_ARG_VARIABLE = (EACCES, "variable {type} access var_off={var_off} disallowed")
    CTX_ACCESS = (EACCES, "invalid bpf_context access off={off} size={size}")
    SOCK_ACCESS = (EACCES, "R{reg} invalid {type} access off={off} size={size}")
    STRUCT_NEGATIVE = (EACCES, "R{reg} is ptr_{struct} invalid negative access: off={off}")
    STRUCT_VARIABLE = (
        EACCES,
        "R{reg} is ptr_{struct} invalid variable offset: off={off}, var_off={var_off}",
    )
    MEM_TOO_LARGE = (EACCES, "R{reg} memory size {size} is too large")
    STRUCT_GPL = (
        EINVAL,
        "Cannot access kernel 'struct {struct}' from non-GPL compatible program",
    )
    STRUCT_MEMORY = (EACCES, "R{reg} is ptr_{struct} access {memory} memory: off={off}")
    BEYOND_STRUCT = (EACCES, "access beyond struct {struct} at off {off} size {size}")
    NO_MEMBER = (EINVAL, "struct {struct} doesn't have field at offset {off}")
    MEMBER_POINTER = (
        EACCES,
        "cannot access ptr member {member} with moff {at} in struct {struct} with off {off} "
        "size {size}",
    )
    MEMBER_END = (
        EACCES,
        "access beyond the end of member {member} (mend:{end}) in struct {struct} with off {off} "
        "size {size}",
    )
    UNTRUSTED_PERM = (EPERM, "{type} access is allowed only to CAP_PERFMON and CAP_SYS_ADMIN")
    LSM_GPL = (EINVAL, "LSM programs must have a GPL compatible license")
    HOOK_SLEEPS = (EINVAL, "{name} is not sleepable")
    LSM_DISABLED = (EINVAL, "attach_btf_id {id} points to disabled hook {name}")
    STRUCT_WRITE = (EACCES, "only read is supported")
    FLOW_KEYS = (EACCES, "invalid access to flow keys off={off} size={size}")
    BUFFER_NEGATIVE = (EACCES, "R{reg} invalid {name} buffer access: off={off}, size={size}")
    BUFFER_NEGATIVE_ONE = (
        EACCES,
        "R{reg} invalid negative {name} buffer offset: off={off}, var_off={var_off}",
    )
    BUFFER_VARIABLE = (
        EACCES,
        "R{reg} invalid variable buffer offset: off={off}, var_off={var_off}",
    )
    LD_ABS_IN_CALLBACK = (EINVAL, "cannot use BPF_LD_[ABS|IND] within callback")
    LD_ABS_CTX = (EINVAL, "at the time of BPF_LD_ABS|IND R6 != pointer to skb")
    LD_ABS_NO_BTF = (EINVAL, "LD_ABS is not allowed in subprogs without BTF")
    LD_ABS_RESULT = (EINVAL, "LD_ABS is only allowed in functions that return 'int'.")
    EXCEPTION_MULTIPLE = (EINVAL, "multiple exception callback tags for main subprog")
    EXCEPTION_NOT_FOUND = (ENOENT, "exception callback '{name}' could not be found in BTF")
    EXCEPTION_NOT_GLOBAL = (EINVAL, "exception callback '{name}' must have global linkage")
    EXCEPTION_ARGS = (EINVAL, "exception cb only supports single integer argument")
    EXCEPTION_VOID = (EINVAL, "exception cb cannot return void")
    EXCEPTION_CALLED = (EINVAL, "insn {insn} cannot call exception cb directly")
    THROW_IN_CALLBACK = (
        EINVAL,
        "bpf_throw kfunc (insn {insn}) cannot be called from callback subprog {number}",
    )
    TIMER_VARIABLE = (
        EINVAL,
        "R{reg} doesn't have constant offset. {field} has to be at the constant offset",
    )
    TIMER_NO_BTF = (EINVAL, "map '{map}' has to have BTF in order to use {field}")
    TIMER_NO_FIELD = (EINVAL, "map '{map}' has no valid {field}")
    TIMER_ELSEWHERE = (
        EINVAL,
        "off {off} doesn't point to 'struct {field}' that is at {at}",
    )
    TIMER_MAP = (
        EINVAL,
        "{what} pointer in R1 map_uid=0 doesn't match map pointer in R{reg} map_uid=0",
    )
    RELEASE_UNOWNED_KFUNC = (
        EINVAL,
        "release kfunc {name} expects referenced PTR_TO_BTF_ID passed to R{reg}",
    )
    KFUNC_UNTRUSTED = (EINVAL, "R{reg} must be referenced or trusted")
    OBJ_ID_RANGE = (EINVAL, "local type ID argument must be in range [0, U32_MAX]")
    OBJ_NO_BTF = (EINVAL, "bpf_obj_new/bpf_percpu_obj_new requires prog BTF")
    OBJ_NO_STRUCT = (
        EINVAL,
        "bpf_obj_new/bpf_percpu_obj_new type ID argument must be of a struct",
    )
    OBJ_EXPECTED = (EINVAL, "{arg} expected pointer to allocated object")
    OBJ_NOT_OWNED = (EINVAL, "allocated object must be referenced")
    OBJ_FIELD = (EACCES, "direct access to {field} is disallowed")
    GRAPH_PLACE = (EINVAL, "{arg} expected pointer to map value or allocated object")
    GRAPH_VARIABLE = (
        EINVAL,
        "{arg} doesn't have constant offset. {field} has to be at the constant offset",
    )
    GRAPH_NOT_FOUND = (EINVAL, "{field} not found at offset={off}")
    GRAPH_UNLOCKED = (EINVAL, "bpf_spin_lock at off={off} must be held for {field}")
    GRAPH_STRUCT = (
        EINVAL,
        "operation on {head} expects arg#1 {node} at offset={off} in struct {struct}, but arg is"
        " at offset={at} in struct {other}",
    )
    GRAPH_NODE = (
        EINVAL,
        "arg#1 offset={at}, but expected {node} at offset={off} in struct {struct}",
    )
    KF_FIELD_PLACE = (EINVAL, "{arg} doesn't point to a map value")
    KF_CALLBACK = (EINVAL, "{arg} expected pointer to func")
    TOO_COMPLEX_ASYNC = (E2BIG, "The sequence of {count} jumps is too complex for async cb.")
    STACK_SUBPROG = (EACCES, "stack size of subprog {number} is {size}. Too large")
    TAIL_CALL_MAP = (EINVAL, "expected prog array map for tail call")
    TAIL_CALL_NO_BTF = (EINVAL, "tail_call is not allowed in subprogs without BTF")
    TAIL_CALL_RESULT = (EINVAL, "tail_call is only allowed in functions that return 'int'.")
    TAIL_CALL_IN_CALLBACK = (EINVAL, "cannot tail call within callback")
    TAIL_CALL_STACK = (
        EACCES,
        "tail_calls are not allowed when call stack of previous frames is {size} bytes. Too large",
    )
    KEY_WRITE = (EACCES, "write to change key R{reg} not allowed")
    MAP_PTR_NEGATIVE = (EACCES, "R{reg} is {struct} invalid negative access: off={off}")
    MAP_PTR_WRITE = (EACCES, "only read from {struct} is supported")
    ATOMIC_STORE_TYPE = (EACCES, "BPF_ATOMIC stores into R{reg} {type} is not allowed")
    ATOMIC_LOAD_TYPE = (EACCES, "BPF_ATOMIC loads from R{reg} {type} is not allowed")

    # stack
    STACK_UNBOUNDED = (EACCES, "invalid unbounded variable-offset{how} stack R{reg}")
    STACK_RANGE = (EACCES, "invalid{how} stack R{reg} off={off} size={size}")
    STACK_RANGE_ABOVE = (EINVAL, "invalid{how} stack R{reg} off={off} size={size}")
    STACK_VAR_RANGE = (
        EACCES,
        "invalid variable-offset{how} stack R{reg} var_off={var_off} off={off} size={size}",
    )
    STACK_VAR_RANGE_ABOVE = (
        EINVAL,
        "invalid variable-offset{how} stack R{reg} var_off={var_off} off={off} size={size}",
    )
    STACK_VAR_ATOMIC = (
        EACCES,
        "variable offset stack pointer cannot be passed into helper function; "
        "var_off={var_off} off={off} size={size}",
    )
    STACK_UNREADABLE = (EACCES, "invalid read from stack off {off}+{at} size {size}")
    STACK_UNREADABLE_ARG = (EACCES, "invalid read from stack R{reg} off {off}+{at} size {size}")
    STACK_UNREADABLE_VAR = (
        EACCES,
        "invalid read from stack R{reg} var_off {var_off}+{at} size {size}",
    )
    SPILL_SIZE = (EACCES, "invalid size of register spill")
    FILL_SIZE = (EACCES, "invalid size of register fill")
    SPILL_CALLER = (EINVAL, "cannot spill pointers to stack into stack frame of the caller")
    RETURN_FP = (EINVAL, "cannot return stack pointer to the caller")
    ZERO_SIZED = (EACCES, "invalid zero-sized read")
    STACK_DEPTH = (EACCES, "combined stack size of {calls} calls is {size}. Too large")
    FRAMES_STATIC = (E2BIG, "the call stack of {frames} frames is too deep !")

    # calls
    CALL_FRAMES = (E2BIG, "the call stack of {frames} frames is too deep")
    STACK_ARG_LIMIT = (
        EINVAL,
        "stack arg write offset {off} exceeds max {limit} stack args",
    )
    STACK_ARG_LATE = (EINVAL, "r11 load must be before any r11 store or call insn")
    STACK_ARG_READ = (EACCES, "invalid read from stack arg off {off} depth {depth}")
    STACK_ARG_MISSING = (
        EFAULT,
        "callee expects {count} args, stack arg{arg} is not initialized",
    )
    STACK_ARG_TAIL_CALL = (EINVAL, "tail_calls are not allowed in programs with stack args")
    GLOBAL_STACK_ARGS = (
        EINVAL,
        "global function {name} has {count} > {limit} args, stack args not supported",
    )
    HELPER_INVALID = (EINVAL, "invalid func {name}#{id}")
    HELPER_PROG_TYPE = (EINVAL, "program of this type cannot use helper {name}#{id}")
    HELPER_NOT_IN_PROBE = (EINVAL, "helper call is not allowed in probe")
    HELPER_NOT_IN_TYPE = (ENOTSUPP, "func {name}#{id} not supported for program type {type}")
    HELPER_GPL = (EINVAL, "cannot call GPL-restricted function from non-GPL compatible program")
    HELPER_SLEEPS = (EINVAL, "helper call might sleep in a non-sleepable prog")
    HELPER_SLEEPS_IN = (EINVAL, "sleepable helper {name}#{id} in {context}")
    PACKET_ARG = (EACCES, "helper access to the packet is not allowed")
    ARG_TYPE = (EACCES, "R{reg} type={type} expected={expected}")
    FLAGS_NOT_ZERO = (EINVAL, "{name}() doesn't support non-zero flags")
    NO_MAP_FOR_KEY = (EACCES, "invalid map_ptr to access map->key")
    NO_MAP_FOR_VALUE = (EACCES, "invalid map_ptr to access map->value")
    SIZE_NEGATIVE = (
        EACCES,
        "R{reg} min value is negative, either use unsigned or 'var &= const'",
    )
    SIZE_ZERO = (EACCES, "R{reg} invalid zero-sized read: u64=[{umin},{umax}]")
    SIZE_UNBOUNDED = (
        EACCES,
        "R{reg} unbounded memory access, use 'var &= const' or 'if (var < const)'",
    )
    MAP_FUNC = (EINVAL, "cannot pass map_type {map_type} into func {name}#{id}")
    MAP_WRITE = (EACCES, "write into map forbidden")
    KFUNC_NOT_ALLOWED = (EACCES, "calling kernel function {name} is not allowed")
    KFUNC_PERFMON = (EPERM, "{name} is allowed only to CAP_PERFMON and CAP_SYS_ADMIN")
    KFUNC_SLEEPS = (EACCES, "program must be sleepable to call sleepable kfunc {name}")
    KFUNC_SLEEPS_IN = (EACCES, "kernel func {name} is sleepable within {context}")
    KFUNC_SCALAR = (EINVAL, "R{reg} is not a scalar")
    KFUNC_NULL = (EACCES, "Possibly NULL pointer passed to trusted arg{arg}")
    KFUNC_NULL_REG = (EACCES, "Possibly NULL pointer passed to trusted R{reg}")
    KFUNC_NOT_MAP = (EINVAL, "pointer in R{reg} isn't map pointer")
    KFUNC_NOT_MAP_REG = (EINVAL, "R{reg} is {type} expected STRUCT bpf_map or map_ptr")
    KFUNC_MAP_STRUCT = (
        EINVAL,
        "kernel function {name} {arg} expected pointer to STRUCT bpf_map but R{reg} has a pointer "
        "to STRUCT {struct}",
    )
    KFUNC_STR = (EINVAL, "arg#{arg} doesn't point to a const string")
    KFUNC_STR_REG = (EINVAL, "R{reg} doesn't point to a const string")
    KFUNC_MEM_LEN = (
        EINVAL,
        "arg#{arg} arg#{len_arg} memory, len pair leads to invalid memory access",
    )
    KFUNC_MEM_LEN_REG = (
        EINVAL,
        "R{reg} and R{len_reg} memory, len pair leads to invalid memory access",
    )
    KFUNC_MEM_LEN_ACCESS = (
        EACCES,
        "arg#{arg} arg#{len_arg} memory, len pair leads to invalid memory access",
    )
    KFUNC_MEM_LEN_REG_ACCESS = (
        EACCES,
        "R{reg} and R{len_reg} memory, len pair leads to invalid memory access",
    )
    STR_PER_CPU = (
        EACCES,
        "R{reg} points to percpu_array map which cannot be used as const string",
    )
    STR_NOT_READ_ONLY = (EACCES, "R{reg} does not point to a readonly map'")
    STR_NOT_CONST = (EACCES, "R{reg} is not a constant address'")
    STR_NOT_TERMINATED = (EINVAL, "string is not zero-terminated")

    # subprogs
    GLOBAL_IN_LOCK = (
        EINVAL,
        "global function calls are not allowed while holding a lock,\nuse static function instead",
    )
    GLOBAL_SLEEPS = (
        EINVAL,
        "global functions that may sleep are not allowed in non-sleepable context,\n"
        "i.e., in a RCU/IRQ/preempt-disabled section, or in\n"
        "a non-sleepable BPF program context.",
    )
    GLOBAL_SLEEPS_IN = (EINVAL, "sleepable global function {name}() called in {context}")
    CALLER_ARGS = (EINVAL, "Caller passes invalid args into func#{func} ('{name}')")
    CALLER_ARGS_ACCESS = (EACCES, "Caller passes invalid args into func#{func} ('{name}')")
    CALLER_ARGS_UNSUPPORTED = (EOPNOTSUPP, "Caller passes invalid args into func#{func} ('{name}')")
    GLOBAL_TOO_MANY = (
        EINVAL,
        "Global function {name}() with {count} > {limit} args. Buggy compiler.",
    )
    GLOBAL_RESULT = (
        EINVAL,
        "Global function {name}() doesn't return scalar. Only those are supported.",
    )
    GLOBAL_RESULT_OR_VOID = (
        EOPNOTSUPP,
        "Global function {name}() return value not void or scalar. Only those are supported.",
    )
    ARG_TAG_UNKNOWN = (EOPNOTSUPP, "arg#{arg} has unsupported set of tags")
    ARG_TAGS = (EINVAL, "arg#{arg} has invalid combination of tags")
    ARG_TAG_NO_POINTER = (EINVAL, "arg#{arg} has pointer tag, but is not a pointer type")
    ARG_ARENA_TAGS = (EINVAL, "arg#{arg} arena cannot be combined with any other tags")
    ARG_UNTRUSTED_TAGS = (EINVAL, "arg#{arg} untrusted cannot be combined with any other tags")
    ARG_UNTRUSTED_KIND = (
        EINVAL,
        "arg#{arg} has type {kind} '{type}', but only struct or primitive types are allowed",
    )
    ARG_KIND = (EINVAL, "Arg#{arg} type {kind} in {name}() is not supported yet.")
    ARG_NO_SIZE = (
        EINVAL,
        "arg#{arg} reference type('{kind} {type}') size cannot be determined: -22",
    )
    ARG_CTX_NAMELESS = (EINVAL, "arg#{arg} type doesn't have a name")
    ARG_CTX_VOID = (EINVAL, "arg#{arg} should be void pointer")
    ARG_CTX_STRUCT = (EINVAL, "arg#{arg} should be `struct {type} *`")
    ARG_NOT_CTX = (EINVAL, "{arg} expects pointer to ctx")
    ARG_NOT_ARENA = (EINVAL, "R{reg} is not a pointer to arena or scalar.")
    ARG_NULL = (EINVAL, "{arg} is expected to be non-NULL")
    ARG_PACKET = (EINVAL, "R{reg} is a packet pointer, but func#{func} may change packet data")
    ARG_MEM = (EINVAL, "{text}")
    ARG_STRUCT = (EACCES, "R{reg} is of type {type} but {expected} is expected")
    FUNC_NO_BTF = (EINVAL, "missing btf func_info")
    FUNC_NOT_STATIC = (EINVAL, "callback function not static")
    FUNC_IS_MAIN = (EINVAL, "callback function cannot be the main program")
    CALLBACK_MAP = (ENOTSUPP, "callback function not allowed for map")
    CALLBACK_RESULT = (EACCES, "R0 not a scalar value")
    RESULT_TYPE = (EINVAL, "{when} the register R{reg} is not a known value ({type})")
    RESULT_RANGE = (
        EINVAL,
        "{when} the register R{reg} has{known} should have been in [{low}, {high}]",
    )
    SUBPROG_RESULT = (
        EINVAL,
        "At subprogram exit the register R{reg} is not a scalar value ({type})",
    )
    # references, regions, objects on the stack
    UNRELEASED = (EINVAL, "{prefix} would lead to reference leak")
    IN_LOCK = (EINVAL, "{prefix} cannot be used inside bpf_spin_lock-ed region")
    IN_IRQ = (EINVAL, "{prefix} cannot be used inside bpf_local_irq_save-ed region")
    IN_RCU = (EINVAL, "{prefix} cannot be used inside bpf_rcu_read_lock-ed region")
    IN_PREEMPT = (EINVAL, "{prefix} cannot be used inside bpf_preempt_disable-ed region")
    RELEASE_MOVED = (
        EINVAL,
        "R{reg} must have zero offset when passed to release func or trusted arg to kfunc",
    )
    RELEASE_UNOWNED = (EINVAL, "R{reg} must be referenced when passed to release function")
    RELEASE_UNOWNED_HELPER = (
        EINVAL,
        "release helper {name} expects referenced PTR_TO_BTF_ID passed to R{reg}",
    )
    RELEASE_UNKNOWN = (EINVAL, "func {name}#{id} reference has not been acquired before")
    SIZE_NOT_CONST = (EACCES, "R{reg} is not a known constant'")
    ALLOC_SIZE_VARIABLE = (EINVAL, "R{reg} is not a const")
    ALLOC_SIZE_LARGE = (EINVAL, "R{reg} allocation size exceeds u32 max")
    LOCK_VARIABLE = (
        EINVAL,
        "R{reg} doesn't have constant offset. {lock}_lock has to be at the constant offset",
    )
    LOCK_NO_BTF = (EINVAL, "map '{map}' has to have BTF in order to use {lock}_lock")
    LOCK_NO_FIELD = (EINVAL, "map '{map}' has no valid {lock}_lock")
    LOCK_ELSEWHERE = (EINVAL, "off {off} doesn't point to 'struct {lock}_lock' that is at {at}")
    LOCK_TWO = (EINVAL, "Locking two bpf_spin_locks are not allowed")
    LOCK_AGAIN = (EINVAL, "Acquiring the same lock again, AA deadlock detected")
    LOCK_NONE = (EINVAL, "{lock}_unlock without taking a lock")
    LOCK_DIFFERENT = (EINVAL, "{lock}_unlock of different lock")
    LOCK_ORDER = (EINVAL, "{lock}_unlock cannot be out of order")
    LOCK_SOCKET_FILTER = (EINVAL, "socket filter progs cannot use bpf_spin_lock yet")
    LOCK_TRACING = (EINVAL, "tracing progs cannot use {field} yet")
    FIELD_ACCESS = (EACCES, "{field} cannot be accessed directly by load/store")
    KF_LOCK_PLACE = (EINVAL, "{arg} doesn't point to map value or allocated object")
    CALL_UNDER_LOCK = (EINVAL, "function calls are not allowed while holding a lock")
    RCU_NESTED = (EINVAL, "nested rcu read lock (kernel function {name})")
    RCU_UNMATCHED = (EINVAL, "unmatched rcu read unlock (kernel function {name})")
    PREEMPT_UNMATCHED = (
        EINVAL,
        "unmatched attempt to enable preemption (kernel function {name})",
    )
    IRQ_NOT_STACK = (EINVAL, "{arg} doesn't point to an irq flag on stack")
    IRQ_NOT_UNINIT = (EINVAL, "expected uninitialized irq flag as {arg}")
    IRQ_NOT_INIT = (EINVAL, "expected an initialized irq flag as {arg}")
    IRQ_CLASS = (
        EINVAL,
        "irq flag acquired by {kept} kfuncs cannot be restored with {used} kfuncs",
    )
    IRQ_ORDER = (
        EACCES,
        "cannot restore irq state out of order, expected id={id} acquired at insn_idx={insn}",
    )
    ITER_NOT_STACK = (EINVAL, "{arg} expected pointer to an iterator on stack")
    ITER_NOT_UNINIT = (EINVAL, "expected uninitialized iter_{name} as {arg}")
    ITER_NOT_INIT = (EINVAL, "expected an initialized iter_{name} as {arg}")
    DYNPTR_NOT_STACK = (
        EINVAL,
        "{arg} expected pointer to stack or const struct bpf_dynptr",
    )
    DYNPTR_NOT_UNINIT = (EINVAL, "Dynptr has to be an uninitialized dynptr")
    DYNPTR_NOT_INIT = (EINVAL, "Expected an initialized dynptr as {arg}")
    DYNPTR_TYPE = (EINVAL, "Expected a dynptr of type {type} as {arg}")
    DYNPTR_CONST = (
        EINVAL,
        "cannot pass pointer to const bpf_dynptr, the helper mutates it",
    )
    DYNPTR_OVERWRITTEN = (EINVAL, "cannot overwrite referenced dynptr")
    DYNPTR_HELPER_WRITE = (EACCES, "potential write to dynptr at off={off} disallowed")
    DYNPTR_NOT_ACQUIRED = (EINVAL, "arg {arg} is an unacquired reference")
    DYNPTR_CONST_RELEASED = (EINVAL, "CONST_PTR_TO_DYNPTR cannot be released")
    DYNPTR_UNOWNED = (EINVAL, "cannot release unowned const bpf_dynptr")
    DYNPTR_DATA = (EACCES, "Unsupported reg type {type} for bpf_dynptr_from_mem data")
    SLICE_READ_ONLY = (EINVAL, "the prog does not allow writes to packet data")
    KFUNC_NOT_CTX = (EINVAL, "{arg} expected pointer to ctx, but got {type}")
    KFUNC_NOT_CONST = (EINVAL, "R{reg} must be a known constant")
    RDONLY_WRITE = (EACCES, "R{reg} cannot write into {type}")

    # limits
    TOO_LARGE = (E2BIG, "BPF program is too large. Processed {count} insn")
    TOO_COMPLEX = (EFAULT, "The sequence of {count} jumps is too complex.")
    TOO_COMPLEX_ENOMEM = (ENOMEM, "The sequence of {count} jumps is too complex.")
    TOO_COMPLEX_E2BIG = (E2BIG, "The sequence of {count} jumps is too complex.")
    INFINITE_LOOP = (EINVAL, "infinite loop detected at insn {insn}")

    def __init__(self, errno: int, template: str) -> None:
        self.errno, self.template = errno, template

    @property
    def slug(self) -> str:
        """The stable name of the complaint (`Verdict.reason`)."""
        return self.name.lower()


class Reject(Exception):
    """The program is refused: the reason, its values, and log lines around its message.

    *before* are detail lines that come first in the log; *after* lines follow the message (the
    last of all is then the closing complaint).
    """

    def __init__(
        self,
        reason: Reason,
        /,
        *,
        before: Sequence[str] = (),
        after: Sequence[str] = (),
        **values: object,
    ) -> None:
        self.reason = reason
        self.message = reason.template.format(**values)
        self.lines = (*before, *self.message.split("\n"), *after)
        super().__init__(self.message)
