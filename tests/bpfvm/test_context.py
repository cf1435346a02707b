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
    assert match_section(section) == (PROG_TYPES[name], sleepable)


@pytest.mark.parametrize("section", ["", "xdp2", "raw_tpx", "syscall/x", "kprobe/f", ".text"])
def test_other_sections_give_no_type(section: str) -> None:
    assert match_section(section) is None


def test_numbers_are_enum_bpf_prog_type() -> None:
    assert {t.number: t.name for t in PROG_TYPES.values()} == {
        1: "socket_filter",
        3: "sched_cls",
        6: "xdp",
        17: "raw_tp",
        31: "syscall",
    }
    assert prog_type_by_number(6) is XDP
    assert prog_type_by_number(2) is None


def test_only_syscall_must_and_raw_tp_may_sleep() -> None:
    assert {t.name: t.sleepable for t in PROG_TYPES.values()} == {
        "socket_filter": Sleepable.NEVER,
        "sched_cls": Sleepable.NEVER,
        "xdp": Sleepable.NEVER,
        "raw_tp": Sleepable.MAY,
        "syscall": Sleepable.MUST,
    }


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


def test_what_the_kernel_grants_and_we_do_not_has_a_name() -> None:
    assert SOCKET.ctx_access(168, 8, write=False) is None
    assert SOCKET.unsupported_field(168, 8, write=False) == "sk"
    assert SOCKET.unsupported_field(168, 4, write=False) is None
    assert SOCKET.unsupported_field(168, 8, write=True) is None
    assert XDP.unsupported_field(168, 8, write=False) is None


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
