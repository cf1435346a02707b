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
  %fp-8 = alloca [8 x i8], align 8
  call void @llvm.memset.inline.p0.i64(ptr %fp-8, i8 0, i64 8, i1 false)
  br label %b0
b0:
  ; insn 0: stdw
  %v.1 = getelementptr i8, ptr %fp-8, i64 0
  store i64 0, ptr %v.1, align 1
  br label %b1
b1:
  ; insn 1: ldxdw
  %v.2 = getelementptr i8, ptr %fp-8, i64 0
  %v.3 = load i64, ptr %v.2, align 1
  store i64 %v.3, ptr %r0
  ; insn 2: add_reg
  %v.4 = load i64, ptr %r1
  %v.5 = add i64 %v.3, %v.4
  store i64 %v.5, ptr %r0
  ; insn 3: stxdw
  %v.6 = getelementptr i8, ptr %fp-8, i64 0
  store i64 %v.5, ptr %v.6, align 1
  ; insn 4: sub_imm
  %v.7 = sub i64 %v.4, 1
  store i64 %v.7, ptr %r1
  ; insn 5: jne_imm
  %v.8 = icmp ne i64 %v.7, 0
  br i1 %v.8, label %b1, label %b6
b6:
  ; insn 6: exit
  %v.9 = load i64, ptr %r0
  ret i64 %v.9
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
