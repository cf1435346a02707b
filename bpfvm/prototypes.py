"""Prototypes of helpers that can't be executed here yet; the verifier needs no more.

A helper that gets an implementation moves to the module of what it works on.
"""

from __future__ import annotations

from bpfvm.notation import prototype

__all__ = ["DECLARED"]

#: Number and name, arguments, result, flags, program types (`bpfvm.notation`); "-" is none.
_ROWS = """
10 l3_csum_replace | ctx any any any any | int | changes | tc lwt_xmit
11 l4_csum_replace | ctx any any any any | int | changes | tc lwt_xmit
13 clone_redirect | ctx any any | int | changes | tc lwt_xmit
17 get_cgroup_classid | ctx | int | - | lwt tc
17 get_cgroup_classid | - | int | - | trace cgroup cgroup_skb sk_msg socket_filter sk_skb xdp
17 get_cgroup_classid | - | int | - | flow_dissector sock_ops sk_reuseport sk_lookup netfilter
18 skb_vlan_push | ctx any any | int | changes | tc
19 skb_vlan_pop | ctx | int | changes | tc
20 skb_get_tunnel_key | ctx out size any | int | - | tc lwt_xmit
21 skb_set_tunnel_key | ctx mem size any | int | - | tc lwt_xmit
22 perf_event_read | map any | int | gpl | *
23 redirect | any any | int | - | tc lwt_xmit xdp
24 get_route_realm | ctx | int | - | lwt tc
25 perf_event_output | ctx map any mem size0 | int | gpl | trace cgroup lwt tc cgroup_skb sk_skb
25 perf_event_output | ctx map any mem size0 | int | gpl | sk_lookup sk_msg sock_ops
25 perf_event_output | ctx map any mem size0 | int | gpl | socket_filter xdp
27 get_stackid | ctx map any | int | gpl | btf raw kprobe tracepoint
27 get_stackid | ctx map any | int | - | perf_event
29 skb_get_tunnel_opt | ctx out size | int | - | tc lwt_xmit
30 skb_set_tunnel_opt | ctx mem size | int | - | tc lwt_xmit
31 skb_change_proto | ctx any any | int | changes | tc
32 skb_change_type | ctx any | int | - | tc
33 skb_under_cgroup | ctx map any | int | - | lwt tc
35 get_current_task | - | int | gpl | *
36 probe_write_user | any mem size | int | gpl | trace
37 current_task_under_cgroup | map any | int | - | *
38 skb_change_tail | ctx any any | int | changes | tc lwt_xmit sk_skb
41 set_hash_invalid | ctx | int | - | tc lwt_xmit
43 skb_change_head | ctx any any | int | changes | tc lwt_xmit sk_skb
44 xdp_adjust_head | ctx any | int | changes | xdp
46 get_socket_cookie | btf_skc? | int | - | btf sk_reuseport
47 get_socket_uid | ctx | int | - | tc cgroup_skb sk_skb socket_filter
48 set_hash | ctx any | int | - | tc
49 setsockopt | ctx any any mem size | int | - | cgroup_sock@2 cgroup_sock_addr sock_ops
49 setsockopt | btf_skc any any mem size | int | - | cgroup_sockopt@22 lsm
50 skb_adjust_room | ctx any any any | int | changes | tc sk_skb
51 redirect_map | map any any | int | - | xdp
52 sk_redirect_map | ctx map any any | int | - | sk_skb
53 sock_map_update | ctx map key any | int | pkt | sock_ops
54 xdp_adjust_meta | ctx any | int | changes | xdp
55 perf_event_read_value | map any out size | int | gpl | *
56 perf_prog_read_value | ctx out size | int | gpl | perf_event
57 getsockopt | ctx any any out size | int | - | cgroup_sock@2 cgroup_sock_addr sock_ops
57 getsockopt | btf_skc any any out size | int | - | cgroup_sockopt@22 lsm
58 override_return | ctx any | int | gpl | kprobe
59 sock_ops_cb_flags_set | ctx any | int | - | sock_ops
60 msg_redirect_map | ctx map any any | int | - | sk_msg
61 msg_apply_bytes | ctx any | int | - | sk_msg
62 msg_cork_bytes | ctx any | int | - | sk_msg
63 msg_pull_data | ctx any any any | int | changes | sk_msg
64 bind | ctx mem size | int | - | cgroup_sock_addr@10,11
65 xdp_adjust_tail | ctx any | int | changes | xdp
66 skb_get_xfrm_state | ctx any out size any | int | - | tc
67 get_stack | ctx out size0 any | len | gpl | btf raw perf_event tracepoint kprobe
69 fib_lookup | ctx wmem size any | int | gpl | tc xdp
70 sock_hash_update | ctx map key any | int | pkt | sock_ops
71 msg_redirect_hash | ctx map key any | int | - | sk_msg
72 sk_redirect_hash | ctx map key any | int | - | sk_skb
73 lwt_push_encap | ctx any mem size | int | changes | lwt_in lwt_xmit
74 lwt_seg6_store_bytes | ctx any mem size | int | changes | lwt_seg6local
75 lwt_seg6_adjust_srh | ctx any any | int | changes | lwt_seg6local
76 lwt_seg6_action | ctx any mem size | int | changes | lwt_seg6local
79 skb_cgroup_id | ctx | int | - | tc cgroup_skb
80 get_current_cgroup_id | - | int | - | *
81 get_local_storage | map zero | value | - | cgroup cgroup_skb lsm sock_ops
82 sk_select_reuseport | ctx map key any | int | - | sk_reuseport
83 skb_ancestor_cgroup_id | ctx any | int | - | tc cgroup_skb
84 sk_lookup_tcp | ctx mem size0 any any | sock? | acquire | cgroup_sock_addr
85 sk_lookup_udp | ctx mem size0 any any | sock? | acquire | cgroup_sock_addr
90 msg_push_data | ctx any any any | int | changes | sk_msg
91 msg_pop_data | ctx any any any | int | changes | sk_msg
97 skb_ecn_set_ce | ctx | int | - | tc cgroup_skb
99 skc_lookup_tcp | ctx mem size0 any any | skc? | acquire | cgroup_sock_addr
100 tcp_check_syncookie | btf_skc mem size mem size | int | gpl pkt | tc xdp
101 sysctl_get_name | ctx out size any | int | - | cgroup_sysctl
102 sysctl_get_current_value | ctx out size | int | - | cgroup_sysctl
103 sysctl_get_new_value | ctx out size | int | - | cgroup_sysctl
104 sysctl_set_new_value | ctx mem size | int | - | cgroup_sysctl
107 sk_storage_get | map btf_skc? value? any | value? | tracing | tracing syscall
107 sk_storage_get | map btf_skc? value? any | value? | - | storage_users
107 sk_storage_get | map ctx? value? any | value? | - | cgroup_sock
108 sk_storage_delete | map btf_skc? | int | tracing | tracing syscall
108 sk_storage_delete | map btf_skc? | int | - | storage_users
109 send_signal | any | int | - | *
110 tcp_gen_syncookie | btf_skc mem size mem size | int | gpl pkt | tc xdp
111 skb_output | btf map any mem size0 | int | gpl | btf
117 send_signal_thread | any | int | - | *
119 read_branch_records | ctx wmem? size0 any | int | gpl | perf_event
120 get_ns_current_pid_tgid | any any out size | int | - | *
121 xdp_output | btf map any mem size0 | int | gpl | btf
122 get_netns_cookie | ctx? | int | - | netns_users
123 get_current_ancestor_cgroup_id | any | int | - | *
124 sk_assign | ctx btf_skc any | int | - | tc
124 sk_assign | ctx sock? any | int | - | sk_lookup
126 seq_printf | btf mem size mem? size0 | int | gpl | tracing
127 seq_write | btf mem size0 | int | gpl | tracing
128 sk_cgroup_id | btf_skc | int | - | cgroup_skb
129 sk_ancestor_cgroup_id | btf_skc any | int | - | cgroup_skb
135 csum_level | ctx any | int | - | tc lwt_xmit
136 skc_to_tcp6_sock | btf_skc | btf?:tcp6_sock | cast | skc_users tracing syscall
137 skc_to_tcp_sock | btf_skc | btf?:tcp_sock | cast | skc_users tracing syscall
138 skc_to_tcp_timewait_sock | btf_skc | btf?:tcp_timewait_sock | cast | skc_users tracing syscall
139 skc_to_tcp_request_sock | btf_skc | btf?:tcp_request_sock | cast | skc_users tracing syscall
140 skc_to_udp6_sock | btf_skc | btf?:udp6_sock | cast | skc_users tracing syscall
141 get_task_stack | btf out size0 any | len | - | *
142 load_hdr_opt | ctx wmem size any | int | - | sock_ops
143 store_hdr_opt | ctx mem size any | int | changes | sock_ops
144 reserve_hdr_opt | ctx any any | int | - | sock_ops
145 inode_storage_get | map btf? value? any | value? | - | lsm
146 inode_storage_delete | map btf? | int | - | lsm
147 d_path | btf out size0 | int | tracing | btf
148 copy_from_user | out size0 any | int | sleep | *
149 snprintf_btf | wmem size mem size any | int | - | *
150 seq_printf_btf | btf mem size0 any | int | gpl | tracing
151 skb_cgroup_classid | ctx | int | - | tc
152 redirect_neigh | any mem? size0 any | int | - | tc
155 redirect_peer | any any | int | - | tc
156 task_storage_get | map btf? value? any | value? | - | *
157 task_storage_delete | map btf? | int | - | *
158 get_current_task_btf | - | btf:task_struct | gpl | *
159 bprm_opts_set | btf any | int | - | lsm
161 ima_inode_hash | btf out size | int | sleep | lsm
162 sock_from_file | btf | btf?:socket | - | btf
163 check_mtu | ctx any wfix4 any any | int | gpl | tc xdp
165 snprintf | wmem? size0 str mem? size0 | int | gpl | *
166 sys_bpf | any mem size | int | sleep | syscall
167 btf_find_by_name_kind | mem size any any | int | sleep | syscall
168 sys_close | any | int | sleep | syscall
173 get_func_ip | ctx | int | gpl probes | trace
174 get_attach_cookie | ctx | int | - | kprobe perf_event tracepoint raw lsm tracing
175 task_pt_regs | btf | btf:pt_regs | gpl | *
176 get_branch_snapshot | out size0 | int | gpl | *
177 trace_vprintk | mem size mem? size0 | int | gpl | *
178 skc_to_unix_sock | btf_skc | btf?:unix_sock | - | skc_users tracing syscall
179 kallsyms_lookup_name | mem size0 any outfix8 | int | - | syscall
183 get_func_arg | ctx any outfix8 | int | - | tracing
184 get_func_ret | ctx outfix8 | int | - | tracing
185 get_func_arg_cnt | ctx | int | - | tracing
186 get_retval | - | hook | - | cgroup!0,1,3,19,20,29,30,31,32,51,52,53 lsm
187 set_retval | any | int | result | cgroup!0,1,3,19,20,29,30,31,32,51,52,53 lsm
188 xdp_get_buff_len | btf | int | - | tracing syscall
191 copy_from_user_task | out size0 any btf any | int | gpl sleep | *
192 skb_set_tstamp | ctx any any | int | - | tc
193 ima_file_hash | btf out size | int | sleep | lsm
196 skc_to_mptcp_sock | skc | btf?:mptcp_sock | cast | skc_users tracing syscall
204 tcp_raw_gen_syncookie_ipv4 | fix20 mem size0 | int | gpl pkt | tc xdp
205 tcp_raw_gen_syncookie_ipv6 | fix40 mem size0 | int | gpl pkt | tc xdp
206 tcp_raw_check_syncookie_ipv4 | fix20 fix20 | int | gpl pkt | tc xdp
207 tcp_raw_check_syncookie_ipv6 | fix40 fix20 | int | gpl pkt | tc xdp
210 cgrp_storage_get | map btf? value? any | value? | - | *
211 cgrp_storage_delete | map btf? | int | - | *
"""


def _parsed(row: str) -> tuple[int, str, str, str, str, str]:
    head, args, ret, flags, types = (part.strip() for part in row.split("|"))
    number, name = head.split()
    return int(number), name, args.strip("-"), ret, flags.strip("-"), types


#: Sources: the func_proto functions and bpf_*_proto of net/core/filter.c,
#: kernel/trace/bpf_trace.c, kernel/bpf/helpers.c, cgroup.c and syscall.c.
DECLARED = tuple(prototype(*_parsed(row)) for row in _ROWS.strip().splitlines())
