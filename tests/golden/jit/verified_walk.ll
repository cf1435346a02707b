define internal i64 @sub_0(ptr %s, i64 %frame, i64 %a0, i64 %a1, i64 %a2, i64 %a3, i64 %a4, i64 %a5) nounwind {
entry:
  %r0 = alloca i64
  %r1 = alloca i64
  %r2 = alloca i64
  %r3 = alloca i64
  %r4 = alloca i64
  %r5 = alloca i64
  %r6 = alloca i64
  %r7 = alloca i64
  %r8 = alloca i64
  %r9 = alloca i64
  store i64 %a0, ptr %r0
  store i64 %a1, ptr %r1
  store i64 %a2, ptr %r2
  store i64 %a3, ptr %r3
  store i64 %a4, ptr %r4
  store i64 %a5, ptr %r5
  store i64 0, ptr %r6
  store i64 0, ptr %r7
  store i64 0, ptr %r8
  store i64 0, ptr %r9
  %at.arg = getelementptr i64, ptr %s, i64 16
  %at.result = getelementptr i64, ptr %s, i64 15
  %at.presence = getelementptr i64, ptr %s, i64 13
  %at.kern = getelementptr i64, ptr %s, i64 12
  %at.may_goto = getelementptr i64, ptr %s, i64 4
  %presence = load i64, ptr %at.presence
  %kern = load i64, ptr %at.kern
  %may_goto = load i64, ptr %at.may_goto
  %loops = alloca i64
  %loops.rest = alloca i64
  %loops.few = icmp ult i64 %may_goto, 1048576
  %loops.first = select i1 %loops.few, i64 %may_goto, i64 1048576
  %loops.later = sub i64 %may_goto, %loops.first
  store i64 %loops.first, ptr %loops
  store i64 %loops.later, ptr %loops.rest
  br label %b0
b0:
  ; insn 0: may_goto
  %v.3 = load i64, ptr %loops
  %v.4 = icmp eq i64 %v.3, 0
  br i1 %v.4, label %ask.2, label %again.1, !prof !1
ask.2:
  %v.5 = load i64, ptr %loops.rest
  store i64 %v.5, ptr %at.arg
  call void @call_out(ptr %s, i64 %frame, i64 0)
  %v.7 = load i64, ptr %s
  %v.8 = icmp ne i64 %v.7, 0
  br i1 %v.8, label %stop, label %go.6, !prof !1
go.6:
  %v.9 = load i64, ptr %at.result
  %v.10 = load i64, ptr %loops.rest
  %v.11 = sub i64 %v.10, %v.9
  store i64 %v.11, ptr %loops.rest
  store i64 %v.9, ptr %loops
  %v.12 = icmp eq i64 %v.9, 0
  br i1 %v.12, label %b4, label %again.1
again.1:
  %v.13 = load i64, ptr %loops
  %v.14 = sub i64 %v.13, 1
  store i64 %v.14, ptr %loops
  br label %b1
b1:
  ; insn 1: mov32_reg
  %v.15 = load i64, ptr %r1
  %v.16 = trunc i64 %v.15 to i32
  %v.17 = zext i32 %v.16 to i64
  store i64 %v.17, ptr %r1
  ; insn 2: arena_ldxdw
  %v.21 = and i64 %v.17, 4294967295
  %v.22 = add i64 %v.21, 8
  %v.23 = ashr i64 %v.22, 12
  %v.24 = inttoptr i64 %presence to ptr
  %v.25 = getelementptr i8, ptr %v.24, i64 %v.23
  %v.26 = load volatile i8, ptr %v.25
  %v.27 = icmp ne i8 %v.26, 0
  %v.28 = add i64 %v.22, 7
  %v.29 = ashr i64 %v.28, 12
  %v.30 = inttoptr i64 %presence to ptr
  %v.31 = getelementptr i8, ptr %v.30, i64 %v.29
  %v.32 = load volatile i8, ptr %v.31
  %v.33 = icmp ne i8 %v.32, 0
  %v.34 = and i1 %v.27, %v.33
  br i1 %v.34, label %present.18, label %slow.19, !prof !0
slow.19:
  %v.35 = load i64, ptr %r1
  %v.36 = call i64 @ask(ptr %s, i64 %frame, i64 %v.35, i64 1)
  switch i64 %v.36, label %stop [ i64 1, label %present.18 i64 2, label %absent.20 ]
present.18:
  %v.38 = load i64, ptr %r1
  %v.39 = and i64 %v.38, 4294967295
  %v.40 = add i64 %v.39, 8
  %v.41 = add i64 %kern, %v.40
  %v.42 = inttoptr i64 %v.41 to ptr
  %v.43 = load volatile i64, ptr %v.42, align 1
  store i64 %v.43, ptr %r1
  br label %done.37
absent.20:
  store i64 0, ptr %r1
  br label %done.37
done.37:
  ; insn 3: jne_imm
  %v.44 = load i64, ptr %r1
  %v.45 = icmp ne i64 %v.44, 0
  br i1 %v.45, label %b0, label %b4
b4:
  ; insn 4: mov_imm
  store i64 0, ptr %r0
  ; insn 5: exit
  ret i64 0
stop:
  ret i64 0
}

define i64 @bpf_main(ptr %s, i64 %r1, i64 %r2) nounwind {
  %r0 = call i64 @sub_0(ptr %s, i64 0, i64 0, i64 %r1, i64 %r2, i64 0, i64 0, i64 0)
  ret i64 %r0
}

!0 = !{!"branch_weights", i32 1048576, i32 1}
!1 = !{!"branch_weights", i32 1, i32 1048576}
!2 = !{}
