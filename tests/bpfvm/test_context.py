from __future__ import annotations

from itertools import pairwise

import pytest

from bpfvm.context import (
    PROG_TYPES,
    CtxAccess,
    CtxKind,
    ProgType,
    Sleepable,
    match_section,
    prog_type_by_number,
)

SOCKET = PROG_TYPES["socket_filter"]
TC = PROG_TYPES["sched_cls"]
XDP = PROG_TYPES["xdp"]
RAW_TP = PROG_TYPES["raw_tp"]
SYSCALL = PROG_TYPES["syscall"]


@pytest.mark.parametrize(
    ("section", "name", "sleepable"),
    [
        ("socket", "socket_filter", False),
        ("tc", "sched_cls", False),
        ("tcx/ingress", "sched_cls", False),
        ("xdp", "xdp", False),
        ("raw_tp", "raw_tp", False),
        ("raw_tp/sys_enter", "raw_tp", False),
        ("raw_tracepoint.s/sys_enter", "raw_tp", True),
        ("syscall", "syscall", True),
    ],
)
def test_sections_give_type_and_sleepable_flag(section: str, name: str, sleepable: bool) -> None:
    found = match_section(section)
    assert found is not None
    assert (found.prog_type, found.sleepable) == (PROG_TYPES[name], sleepable)


@pytest.mark.parametrize("section", ["", "xdp2", "raw_tpx", "syscall/x", "perf_event/x", ".text"])
def test_other_sections_give_no_type(section: str) -> None:
    assert match_section(section) is None


@pytest.mark.parametrize(
    ("section", "name", "attach"),
    [
        ("cgroup_skb/egress", "cgroup_skb", 1),
        ("cgroup/skb", "cgroup_skb", 0),
        ("cgroup/post_bind6", "cgroup_sock", 13),
        ("cgroup/recvmsg6", "cgroup_sock_addr", 20),
        ("xdp/devmap", "xdp", 33),
        ("netkit/peer", "sched_cls", 55),
        ("kprobe.session/f", "kprobe", 56),
        ("fentry.s/f", "tracing", 24),
        ("iter/task", "tracing", 28),
    ],
)
def test_sections_give_an_attach_type(section: str, name: str, attach: int) -> None:
    found = match_section(section)
    assert found is not None
    assert (found.prog_type.name, found.attach) == (name, attach)


def test_numbers_are_enum_bpf_prog_type() -> None:
    numbers = {t.number: t.name for t in PROG_TYPES.values()}
    # 20 is lirc_mode2, which has no helper of ours.
    assert sorted(numbers) == [*range(1, 20), *range(21, 33)]
    assert (numbers[1], numbers[6], numbers[31]) == ("socket_filter", "xdp", "syscall")
    assert prog_type_by_number(6) is XDP
    assert prog_type_by_number(20) is None


def test_syscall_must_sleep_and_tracing_may() -> None:
    by_sleep = {s: {t.name for t in PROG_TYPES.values() if t.sleepable is s} for s in Sleepable}
    assert by_sleep[Sleepable.MUST] == {"syscall"}
    assert by_sleep[Sleepable.MAY] == {
        "kprobe", "tracing", "lsm", "struct_ops", "ext",
    }  # fmt: skip
    assert by_sleep[Sleepable.LATER] == {"raw_tp", "tracepoint"}


@pytest.mark.parametrize(
    ("name", "attach", "wanted"),
    [
        ("cgroup_skb", 0, (0, 1)),
        ("cgroup_skb", 1, (0, 3)),
        ("cgroup_sock_addr", 10, (0, 1)),
        ("cgroup_sock_addr", 8, (0, 3)),
        ("cgroup_sock_addr", 19, (1, 1)),
        ("kprobe", 56, (0, 1)),
        ("kprobe", 0, None),
        ("xdp", 37, None),
    ],
)
def test_return_ranges_go_by_attach_type(
    name: str, attach: int, wanted: tuple[int, int] | None
) -> None:
    assert PROG_TYPES[name].returns(attach) == wanted


@pytest.mark.parametrize("prog_type", PROG_TYPES.values(), ids=lambda t: t.name)
def test_fields_are_disjoint_and_lie_inside(prog_type: ProgType) -> None:
    fields = prog_type.fields or ()
    for outside in (True, False):
        spans = sorted(
            (f.off, f.off + f.size)
            if outside
            else (f.internal_off, f.internal_off + (f.size if f.kind is CtxKind.SCALAR else 8))
            for f in fields
        )
        limit = prog_type.ctx_size if outside else prog_type.internal_size
        assert all(a[1] <= b[0] for a, b in pairwise(spans))
        assert all(end <= limit for _, end in spans)


def test_packet_pointers_are_read_whole_and_are_wide_inside() -> None:
    access = TC.ctx_access(76, 4, write=False)
    assert access == CtxAccess(CtxKind.PACKET, 192, 8)
    assert TC.ctx_access(80, 4, write=False) == CtxAccess(CtxKind.PACKET_END, 200, 8)
    assert TC.ctx_access(140, 4, write=False) == CtxAccess(CtxKind.PACKET_META, 208, 8)
    assert TC.ctx_access(76, 2, write=False) is None
    assert TC.ctx_access(76, 4, write=True) is None
    assert SOCKET.ctx_access(76, 4, write=False) is None


@pytest.mark.parametrize(
    ("off", "size", "granted"),
    [
        (0, 4, True),
        (0, 1, True),
        (2, 2, True),
        (3, 1, True),
        (1, 2, False),  # misaligned
        (0, 8, False),
        (48, 8, True),  # cb
        (56, 8, True),
        (64, 8, False),  # past cb
        (67, 1, True),
        (88, 4, False),  # family
        (136, 4, False),  # local_port
        (144, 8, False),  # flow_keys
        (152, 8, True),  # tstamp
        (152, 4, False),
        (180, 1, True),  # tstamp_type
        (181, 1, False),  # padding
        (184, 8, True),  # hwtstamp
        (192, 4, False),
        (400, 4, False),
        (-4, 4, False),
    ],
)
def test_sched_cls_reads(off: int, size: int, granted: bool) -> None:
    assert (TC.ctx_access(off, size, write=False) is not None) == granted


def test_writes_are_whole_fields_but_for_cb() -> None:
    assert TC.ctx_access(8, 4, write=True) == CtxAccess(CtxKind.SCALAR, 8, 4)
    assert TC.ctx_access(8, 2, write=True) is None
    assert TC.ctx_access(0, 4, write=True) is None
    assert TC.ctx_access(49, 1, write=True) == CtxAccess(CtxKind.SCALAR, 49, 1)
    assert SOCKET.ctx_access(48, 8, write=True) == CtxAccess(CtxKind.SCALAR, 48, 8)
    assert SOCKET.ctx_access(8, 4, write=True) is None
    assert XDP.ctx_access(12, 4, write=True) is None


def test_fields_kept_as_u16_are_written_so() -> None:
    assert TC.ctx_access(44, 4, write=True) == CtxAccess(CtxKind.SCALAR, 44, 2)
    assert TC.ctx_access(44, 4, write=False) == CtxAccess(CtxKind.SCALAR, 44, 4)


def test_sk_is_a_socket_that_may_be_null() -> None:
    assert SOCKET.ctx_access(168, 8, write=False) == CtxAccess(CtxKind.SOCK_COMMON_OR_NULL, 168, 8)
    assert SOCKET.ctx_access(168, 4, write=False) is None
    assert SOCKET.ctx_access(168, 8, write=True) is None


@pytest.mark.parametrize(
    ("name", "off", "size", "write", "attach", "granted"),
    [
        ("cgroup_skb", 88, 4, False, 0, True),  # family
        ("cgroup_skb", 72, 4, False, 0, False),  # tc_classid
        ("cgroup_skb", 152, 8, True, 0, True),  # tstamp
        ("sk_skb", 8, 4, False, 0, False),  # mark
        ("sk_skb", 44, 4, True, 0, True),  # tc_index
        ("lwt_in", 140, 4, False, 0, False),  # data_meta
        ("flow_dissector", 144, 8, False, 0, True),
        ("flow_dissector", 0, 4, False, 0, False),
        ("cgroup_sock", 24, 4, False, 12, True),  # src_ip4 after an IPv4 bind
        ("cgroup_sock", 24, 4, False, 13, False),
        ("cgroup_sock", 16, 4, True, 2, True),  # mark
        ("cgroup_sock", 16, 4, True, 12, False),
        ("cgroup_sock", 48, 2, False, 2, True),  # dst_port
        ("cgroup_sock", 48, 4, False, 2, True),
        ("cgroup_sock", 50, 2, False, 2, False),
        ("cgroup_sock", 5, 1, False, 2, False),  # inside family
        ("cgroup_sock_addr", 8, 8, True, 9, True),  # two words of user_ip6
        ("cgroup_sock_addr", 12, 8, True, 9, False),
        ("cgroup_sock_addr", 8, 8, True, 8, False),  # bind4
        ("cgroup_sock_addr", 44, 8, True, 15, False),  # msg_src_ip6[0] is not 8-byte aligned
        ("cgroup_sock_addr", 48, 8, True, 15, True),
        ("cgroup_sockopt", 36, 4, True, 21, True),  # retval
        ("cgroup_sockopt", 36, 4, False, 22, False),
        ("cgroup_sockopt", 24, 4, True, 22, True),
        ("cgroup_sockopt", 24, 4, True, 21, False),
        ("cgroup_sysctl", 4, 2, False, 18, True),
        ("cgroup_sysctl", 4, 2, True, 18, False),
        ("cgroup_device", 4, 2, False, 6, False),
        ("sk_reuseport", 20, 2, False, 39, True),  # eth_protocol
        ("sk_reuseport", 20, 1, False, 39, False),
        ("sk_reuseport", 32, 2, False, 39, False),  # hash
        ("sk_lookup", 36, 4, False, 36, True),  # remote_port
        ("sk_lookup", 38, 2, False, 36, True),
        ("sock_ops", 4, 4, True, 3, True),
        ("sock_ops", 8, 4, True, 3, False),
        ("sock_ops", 172, 4, False, 3, False),
        ("perf_event", 168, 4, False, 0, True),
        ("perf_event", 0, 4, False, 0, False),
        ("netfilter", 8, 8, False, 45, True),
        ("netfilter", 8, 4, False, 45, False),
        ("xdp", 20, 4, False, 33, True),
        ("xdp", 20, 4, False, 37, False),
        ("kprobe", 160, 8, False, 0, True),
        ("kprobe", 168, 8, False, 0, False),
        ("tracepoint", 0, 8, False, 0, False),
        ("tracepoint", 8, 8, False, 0, True),
        ("raw_tp_writable", 0, 4, False, 0, False),
    ],
)
def test_contexts_by_type(
    name: str, off: int, size: int, write: bool, attach: int, granted: bool
) -> None:
    access = PROG_TYPES[name].ctx_access(off, size, write=write, attach=attach)
    assert (access is not None) == granted


def test_xdp_fields_are_four_bytes_only() -> None:
    assert XDP.ctx_access(12, 4, write=False) == CtxAccess(CtxKind.SCALAR, 12, 4)
    assert XDP.ctx_access(12, 2, write=False) is None
    assert XDP.ctx_access(20, 4, write=False) is None  # egress_ifindex: devmap programs only


def test_contexts_without_a_table() -> None:
    assert RAW_TP.ctx_access(88, 8, write=False) == CtxAccess(CtxKind.SCALAR, 88, 8)
    assert RAW_TP.ctx_access(96, 8, write=False) is None
    assert RAW_TP.ctx_access(0, 8, write=True) is None
    assert SYSCALL.ctx_access(32764, 4, write=False) == CtxAccess(CtxKind.SCALAR, 32764, 4)
    assert SYSCALL.ctx_access(0, 8, write=True) is not None
    assert SYSCALL.ctx_access(65536, 4, write=False) is None
