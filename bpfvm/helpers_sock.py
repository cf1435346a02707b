"""Helpers that look for sockets and tell of them (net/core/filter.c).

The machine has one socket, the one that a test-run's packet belongs to (`bpfvm.testrun`); no
lookup finds any.
"""

from __future__ import annotations

from bpfvm.notation import prototype
from bpfvm.proto import implements
from bpfvm.runtime import RunContext

__all__ = [
    "bpf_get_listener_sock",
    "bpf_get_socket_cookie",
    "bpf_sk_fullsock",
    "bpf_sk_lookup_tcp",
    "bpf_sk_lookup_udp",
    "bpf_sk_release",
    "bpf_skc_lookup_tcp",
    "bpf_tcp_sock",
]

_LOOKUP = "ctx mem size0 any any"
_LOOKUP_TYPES = "tc cgroup_skb sk_skb xdp"
_COOKIE = 1


@implements(prototype(84, "sk_lookup_tcp", _LOOKUP, "sock?", "pkt acquire", _LOOKUP_TYPES))
def bpf_sk_lookup_tcp(
    _run: RunContext, _ctx: int, _tuple: int, _size: int, _netns: int, _flags: int
) -> int:
    """Return 0: there is no such socket."""
    return 0


@implements(prototype(85, "sk_lookup_udp", _LOOKUP, "sock?", "pkt acquire", _LOOKUP_TYPES))
def bpf_sk_lookup_udp(
    _run: RunContext, _ctx: int, _tuple: int, _size: int, _netns: int, _flags: int
) -> int:
    """Return 0: there is no such socket."""
    return 0


@implements(prototype(99, "skc_lookup_tcp", _LOOKUP, "skc?", "pkt acquire", _LOOKUP_TYPES))
def bpf_skc_lookup_tcp(
    _run: RunContext, _ctx: int, _tuple: int, _size: int, _netns: int, _flags: int
) -> int:
    """Return 0: there is no such socket."""
    return 0


@implements(
    prototype(
        86,
        "sk_release",
        "btf_skc",
        flags="release",
        types="tc cgroup_skb cgroup_sock_addr sk_lookup sk_skb xdp",
    )
)
def bpf_sk_release(_run: RunContext, _sk: int) -> int:
    """Give a socket back that a lookup found; return 0."""
    return 0


@implements(prototype(95, "sk_fullsock", "skc", "sock?", "cast", "tc cgroup_skb"))
def bpf_sk_fullsock(_run: RunContext, sk: int) -> int:
    """Return the full socket of *sk*: a closed one is itself one."""
    return sk


@implements(
    prototype(96, "tcp_sock", "skc", "tcp?", "cast", "tc cgroup_skb cgroup_sockopt sock_ops")
)
def bpf_tcp_sock(_run: RunContext, _sk: int) -> int:
    """Return 0: it is not of TCP."""
    return 0


@implements(prototype(98, "get_listener_sock", "skc", "sock?", types="tc cgroup_skb"))
def bpf_get_listener_sock(_run: RunContext, _sk: int) -> int:
    """Return 0: it does not listen."""
    return 0


@implements(
    prototype(
        46,
        "get_socket_cookie",
        "ctx",
        types="tc cgroup_skb cgroup_sock cgroup_sock_addr sk_skb sock_ops socket_filter",
    )
)
def bpf_get_socket_cookie(_run: RunContext, _ctx: int) -> int:
    """Return the number of the packet's socket."""
    return _COOKIE
