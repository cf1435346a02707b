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
  %at.budget = getelementptr i64, ptr %s, i64 2
  %at.arg = getelementptr i64, ptr %s, i64 16
  %at.result = getelementptr i64, ptr %s, i64 15
  %at.addr = getelementptr i64, ptr %s, i64 1
  %at.caller = getelementptr i64, ptr %s, i64 21
  %at.stack_top = getelementptr i64, ptr %s, i64 6
  %stack_top = load i64, ptr %at.stack_top
  %fp.down = mul i64 %frame, 512
  %fp = sub i64 %stack_top, %fp.down
  %fp.low = sub i64 %fp, 512
  %fp.frame = inttoptr i64 %fp.low to ptr
  call void @llvm.memset.inline.p0.i64(ptr %fp.frame, i8 0, i64 512, i1 false)
  br label %b0
b0:
  %v.1 = load i64, ptr %at.budget
  %v.2 = sub i64 %v.1, 2
  store i64 %v.2, ptr %at.budget
  %v.5 = icmp slt i64 %v.2, 0
  br i1 %v.5, label %refill.3, label %charged.4, !prof !1
refill.3:
  call void @call_out(ptr %s, i64 %frame, i64 0)
  %v.7 = load i64, ptr %s
  %v.8 = icmp ne i64 %v.7, 0
  br i1 %v.8, label %stop, label %go.6, !prof !1
go.6:
  br label %charged.4
charged.4:
  ; insn 0: stxw
  %v.9 = load i64, ptr %r1
  %v.10 = add i64 %v.9, 4
  %v.11 = call i64 @access(ptr %s, i64 %frame, i64 %v.10, i64 9, i64 0, i64 2)
  %v.13 = icmp ne i64 %v.11, 0
  br i1 %v.13, label %go.12, label %stop, !prof !0
go.12:
  %v.14 = load i64, ptr %r1
  %v.15 = add i64 %v.14, 4
  %v.16 = inttoptr i64 %v.15 to ptr
  %v.17 = load i64, ptr %r2
  %v.18 = trunc i64 %v.17 to i32
  store volatile i32 %v.18, ptr %v.16, align 1
  ; insn 1: call_helper
  %v.19 = getelementptr i64, ptr %at.arg, i64 0
  store i64 %v.14, ptr %v.19
  %v.20 = getelementptr i64, ptr %at.arg, i64 1
  store i64 %v.17, ptr %v.20
  %v.21 = load i64, ptr %r3
  %v.22 = getelementptr i64, ptr %at.arg, i64 2
  store i64 %v.21, ptr %v.22
  %v.23 = load i64, ptr %r4
  %v.24 = getelementptr i64, ptr %at.arg, i64 3
  store i64 %v.23, ptr %v.24
  %v.25 = load i64, ptr %r5
  %v.26 = getelementptr i64, ptr %at.arg, i64 4
  store i64 %v.25, ptr %v.26
  call void @call_out(ptr %s, i64 %frame, i64 1)
  %v.28 = load i64, ptr %s
  %v.29 = icmp ne i64 %v.28, 0
  br i1 %v.29, label %stop, label %go.27, !prof !1
go.27:
  %v.30 = load i64, ptr %at.result
  store i64 %v.30, ptr %r0
  store i64 0, ptr %r1
  store i64 0, ptr %r2
  store i64 0, ptr %r3
  store i64 0, ptr %r4
  store i64 0, ptr %r5
  br label %b2
b2:
  %v.31 = load i64, ptr %at.budget
  %v.32 = sub i64 %v.31, 1
  store i64 %v.32, ptr %at.budget
  %v.35 = icmp slt i64 %v.32, 0
  br i1 %v.35, label %refill.33, label %charged.34, !prof !1
refill.33:
  call void @call_out(ptr %s, i64 %frame, i64 2)
  %v.37 = load i64, ptr %s
  %v.38 = icmp ne i64 %v.37, 0
  br i1 %v.38, label %stop, label %go.36, !prof !1
go.36:
  br label %charged.34
charged.34:
  ; insn 2: call_local
  %v.41 = icmp ult i64 %frame, 15
  br i1 %v.41, label %call.39, label %deep.40, !prof !0
deep.40:
  store i64 0, ptr %at.addr
  store i64 3, ptr %s
  br label %stop
call.39:
  %v.42 = getelementptr i64, ptr %at.caller, i64 %frame
  store i64 2, ptr %v.42
  %v.43 = add i64 %frame, 1
  %v.44 = load i64, ptr %r0
  %v.45 = load i64, ptr %r1
  %v.46 = load i64, ptr %r2
  %v.47 = load i64, ptr %r3
  %v.48 = load i64, ptr %r4
  %v.49 = load i64, ptr %r5
  %v.50 = call i64 @sub_4(ptr %s, i64 %v.43, i64 %v.44, i64 %v.45, i64 %v.46, i64 %v.47, i64 %v.48, i64 %v.49)
  store i64 %v.50, ptr %r0
  store i64 0, ptr %r1
  store i64 0, ptr %r2
  store i64 0, ptr %r3
  store i64 0, ptr %r4
  store i64 0, ptr %r5
  %v.52 = load i64, ptr %s
  %v.53 = icmp ne i64 %v.52, 0
  br i1 %v.53, label %stop, label %go.51, !prof !1
go.51:
  br label %b3
b3:
  %v.54 = load i64, ptr %at.budget
  %v.55 = sub i64 %v.54, 1
  store i64 %v.55, ptr %at.budget
  %v.58 = icmp slt i64 %v.55, 0
  br i1 %v.58, label %refill.56, label %charged.57, !prof !1
refill.56:
  call void @call_out(ptr %s, i64 %frame, i64 3)
  %v.60 = load i64, ptr %s
  %v.61 = icmp ne i64 %v.60, 0
  br i1 %v.61, label %stop, label %go.59, !prof !1
go.59:
  br label %charged.57
charged.57:
  ; insn 3: exit
  %v.62 = load i64, ptr %r0
  ret i64 %v.62
stop:
  ret i64 0
}

define internal i64 @sub_4(ptr %s, i64 %frame, i64 %a0, i64 %a1, i64 %a2, i64 %a3, i64 %a4, i64 %a5) nounwind {
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
  %at.budget = getelementptr i64, ptr %s, i64 2
  %at.stack_top = getelementptr i64, ptr %s, i64 6
  %stack_top = load i64, ptr %at.stack_top
  %fp.down = mul i64 %frame, 512
  %fp = sub i64 %stack_top, %fp.down
  %fp.low = sub i64 %fp, 512
  %fp.frame = inttoptr i64 %fp.low to ptr
  call void @llvm.memset.inline.p0.i64(ptr %fp.frame, i8 0, i64 512, i1 false)
  br label %b4
b4:
  %v.1 = load i64, ptr %at.budget
  %v.2 = sub i64 %v.1, 2
  store i64 %v.2, ptr %at.budget
  %v.5 = icmp slt i64 %v.2, 0
  br i1 %v.5, label %refill.3, label %charged.4, !prof !1
refill.3:
  call void @call_out(ptr %s, i64 %frame, i64 4)
  %v.7 = load i64, ptr %s
  %v.8 = icmp ne i64 %v.7, 0
  br i1 %v.8, label %stop, label %go.6, !prof !1
go.6:
  br label %charged.4
charged.4:
  ; insn 4: sdiv32_reg
  %v.9 = load i64, ptr %r0
  %v.10 = trunc i64 %v.9 to i32
  %v.11 = load i64, ptr %r1
  %v.12 = trunc i64 %v.11 to i32
  %v.13 = icmp eq i32 %v.12, 0
  %v.14 = icmp eq i32 %v.12, -1
  %v.15 = or i1 %v.13, %v.14
  %v.16 = select i1 %v.15, i32 1, i32 %v.12
  %v.17 = sdiv i32 %v.10, %v.16
  %v.18 = sub i32 0, %v.10
  %v.19 = select i1 %v.14, i32 %v.18, i32 %v.17
  %v.20 = select i1 %v.13, i32 0, i32 %v.19
  %v.21 = zext i32 %v.20 to i64
  store i64 %v.21, ptr %r0
  ; insn 5: exit
  ret i64 %v.21
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
