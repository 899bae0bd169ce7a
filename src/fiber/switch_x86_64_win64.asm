; The switch for x86-64 with the calling convention of Windows, for MASM: the same as switch_x86_64_win64.S, which explains
; it. A change there is a change here.

EXTERN switch_unhandled:PROC

.code

; void switch_stacks(void **save_sp, void *load_sp)
ALIGN 16
switch_stacks PROC FRAME
    push rbp
    .pushreg rbp
    push rbx
    .pushreg rbx
    push rdi
    .pushreg rdi
    push rsi
    .pushreg rsi
    push r12
    .pushreg r12
    push r13
    .pushreg r13
    push r14
    .pushreg r14
    push r15
    .pushreg r15
    sub rsp, 0c8h
    .allocstack 0c8h
    movaps xmmword ptr [rsp + 00h], xmm6
    .savexmm128 xmm6, 00h
    movaps xmmword ptr [rsp + 010h], xmm7
    .savexmm128 xmm7, 010h
    movaps xmmword ptr [rsp + 020h], xmm8
    .savexmm128 xmm8, 020h
    movaps xmmword ptr [rsp + 030h], xmm9
    .savexmm128 xmm9, 030h
    movaps xmmword ptr [rsp + 040h], xmm10
    .savexmm128 xmm10, 040h
    movaps xmmword ptr [rsp + 050h], xmm11
    .savexmm128 xmm11, 050h
    movaps xmmword ptr [rsp + 060h], xmm12
    .savexmm128 xmm12, 060h
    movaps xmmword ptr [rsp + 070h], xmm13
    .savexmm128 xmm13, 070h
    movaps xmmword ptr [rsp + 080h], xmm14
    .savexmm128 xmm14, 080h
    movaps xmmword ptr [rsp + 090h], xmm15
    .savexmm128 xmm15, 090h
    .endprolog
    stmxcsr dword ptr [rsp + 0a0h]
    fnstcw word ptr [rsp + 0a4h]
    mov rax, qword ptr gs:[8]
    mov qword ptr [rsp + 0a8h], rax
    mov rax, qword ptr gs:[10h]
    mov qword ptr [rsp + 0b0h], rax
    mov rax, qword ptr gs:[1478h]
    mov qword ptr [rsp + 0b8h], rax
    mov rax, qword ptr gs:[0]
    mov qword ptr [rsp + 0c0h], rax
    mov r8d, dword ptr [rsp + 0a0h]
    movzx r9d, word ptr [rsp + 0a4h]
    mov qword ptr [rcx], rsp
    mov rsp, rdx
    mov rax, qword ptr [rsp + 0a8h]
    mov qword ptr gs:[8], rax
    mov rax, qword ptr [rsp + 0b0h]
    mov qword ptr gs:[10h], rax
    mov rax, qword ptr [rsp + 0b8h]
    mov qword ptr gs:[1478h], rax
    mov rax, qword ptr [rsp + 0c0h]
    mov qword ptr gs:[0], rax
    cmp word ptr [rsp + 0a4h], r9w
    jne x87_control_differs
x87_control_is_set:
    mov eax, dword ptr [rsp + 0a0h]
    xor eax, r8d
    test eax, 0ffffffc0h
    jne mxcsr_differs
resume:
    movaps xmm6, xmmword ptr [rsp + 00h]
    movaps xmm7, xmmword ptr [rsp + 010h]
    movaps xmm8, xmmword ptr [rsp + 020h]
    movaps xmm9, xmmword ptr [rsp + 030h]
    movaps xmm10, xmmword ptr [rsp + 040h]
    movaps xmm11, xmmword ptr [rsp + 050h]
    movaps xmm12, xmmword ptr [rsp + 060h]
    movaps xmm13, xmmword ptr [rsp + 070h]
    movaps xmm14, xmmword ptr [rsp + 080h]
    movaps xmm15, xmmword ptr [rsp + 090h]
    add rsp, 0c8h
    pop r15
    pop r14
    pop r13
    pop r12
    pop rsi
    pop rdi
    pop rbx
    pop rbp
    pop rcx
    jmp rcx
x87_control_differs:
    fnclex
    fldcw word ptr [rsp + 0a4h]
    jmp x87_control_is_set
mxcsr_differs:
    and eax, 0ffffffc0h
    xor eax, r8d
    mov dword ptr [rsp + 0a0h], eax
    ldmxcsr dword ptr [rsp + 0a0h]
    jmp resume
switch_stacks ENDP

; The first thing on a new stack. Its frame is there already: nothing is executed to make it.
ALIGN 16
switch_start PROC FRAME:switch_unhandled
    .allocstack 28h
    .endprolog
    mov rcx, r12
    call rbx
    ud2
switch_start ENDP

; void *switch_frame(void *top, void (*entry)(void *argument), void *argument, void *low)
ALIGN 16
switch_frame PROC
    mov r10, rcx
    and r10, -16
    lea rax, [r10 - 140h]
    lea r11, switch_start
    stmxcsr dword ptr [rax + 0a0h]
    fnstcw word ptr [rax + 0a4h]
    mov word ptr [rax + 0a6h], 0
    mov qword ptr [rax + 0a8h], rcx
    mov qword ptr [rax + 0b0h], r9
    mov qword ptr [rax + 0b8h], r9
    mov qword ptr [rax + 0c0h], -1
    mov qword ptr [rax + 0c8h], 0
    mov qword ptr [rax + 0d0h], 0
    mov qword ptr [rax + 0d8h], 0
    mov qword ptr [rax + 0e0h], r8
    mov qword ptr [rax + 0e8h], 0
    mov qword ptr [rax + 0f0h], 0
    mov qword ptr [rax + 0f8h], rdx
    mov qword ptr [rax + 100h], 0
    mov qword ptr [rax + 108h], r11
    mov qword ptr [rax + 138h], 0
    ret
switch_frame ENDP

END
