/* The switch for x86-64 with the calling convention of Windows. What it keeps and what it costs stands in switch.h; the same
 * for another assembler in switch_x86_64_win64.asm.
 *
 * A stack that was left holds, from its stack pointer upwards:
 *      0   xmm6 to xmm15
 *     a0   MXCSR (4 bytes), x87 control word (2 bytes), 2 bytes of room
 *     a8   of the thread block: the upper end of the stack, how far down it is committed, its lower end
 *     c0   of the thread block: frames of exception handlers, which this instruction set does not use, but Wine does
 *     c8   r15, r14, r13, r12, rsi, rdi, rbx, rbp
 *    108   where to go on
 *
 * The system looks at the thread block when a stack has to grow or has overflowed, and when it looks for the handler of an
 * exception; so its four words belong to the stack. How far down a stack is committed changes while it runs. Not switched
 * is the thread block's pointer to the system's own fiber: what that says is true for the thread, and so is the flag beside
 * it that says whether it counts.
 *
 * Unlike elsewhere MXCSR is read in each switch: this system's C libraries change the rounding there alone. Its exception
 * flags belong to the thread. */

    .text

/* void switch_stacks(void **save_sp, void *load_sp) */
    .globl switch_stacks
    .def switch_stacks; .scl 2; .type 32; .endef
    .p2align 5
    .seh_proc switch_stacks
switch_stacks:
    pushq %rbp
    .seh_pushreg %rbp
    pushq %rbx
    .seh_pushreg %rbx
    pushq %rdi
    .seh_pushreg %rdi
    pushq %rsi
    .seh_pushreg %rsi
    pushq %r12
    .seh_pushreg %r12
    pushq %r13
    .seh_pushreg %r13
    pushq %r14
    .seh_pushreg %r14
    pushq %r15
    .seh_pushreg %r15
    subq $0xc8, %rsp
    .seh_stackalloc 0xc8
    movaps %xmm6, (%rsp)
    .seh_savexmm %xmm6, 0
    movaps %xmm7, 0x10(%rsp)
    .seh_savexmm %xmm7, 0x10
    movaps %xmm8, 0x20(%rsp)
    .seh_savexmm %xmm8, 0x20
    movaps %xmm9, 0x30(%rsp)
    .seh_savexmm %xmm9, 0x30
    movaps %xmm10, 0x40(%rsp)
    .seh_savexmm %xmm10, 0x40
    movaps %xmm11, 0x50(%rsp)
    .seh_savexmm %xmm11, 0x50
    movaps %xmm12, 0x60(%rsp)
    .seh_savexmm %xmm12, 0x60
    movaps %xmm13, 0x70(%rsp)
    .seh_savexmm %xmm13, 0x70
    movaps %xmm14, 0x80(%rsp)
    .seh_savexmm %xmm14, 0x80
    movaps %xmm15, 0x90(%rsp)
    .seh_savexmm %xmm15, 0x90
    .seh_endprologue
    stmxcsr 0xa0(%rsp)
    fnstcw 0xa4(%rsp)
    movq %gs:0x08, %rax
    movq %rax, 0xa8(%rsp)
    movq %gs:0x10, %rax
    movq %rax, 0xb0(%rsp)
    movq %gs:0x1478, %rax
    movq %rax, 0xb8(%rsp)
    movq %gs:0, %rax
    movq %rax, 0xc0(%rsp)
    movl 0xa0(%rsp), %r8d
    movzwl 0xa4(%rsp), %r9d
    movq %rsp, (%rcx)
    /* Both stacks have the same layout here, so what was said about the frame stays true. */
    movq %rdx, %rsp
    movq 0xa8(%rsp), %rax
    movq %rax, %gs:0x08
    movq 0xb0(%rsp), %rax
    movq %rax, %gs:0x10
    movq 0xb8(%rsp), %rax
    movq %rax, %gs:0x1478
    movq 0xc0(%rsp), %rax
    movq %rax, %gs:0
    cmpw %r9w, 0xa4(%rsp)
    jne .Lx87_control_differs
.Lx87_control_is_set:
    movl 0xa0(%rsp), %eax
    xorl %r8d, %eax
    testl $~0x3f, %eax
    jne .Lmxcsr_differs
.Lresume:
    movaps (%rsp), %xmm6
    movaps 0x10(%rsp), %xmm7
    movaps 0x20(%rsp), %xmm8
    movaps 0x30(%rsp), %xmm9
    movaps 0x40(%rsp), %xmm10
    movaps 0x50(%rsp), %xmm11
    movaps 0x60(%rsp), %xmm12
    movaps 0x70(%rsp), %xmm13
    movaps 0x80(%rsp), %xmm14
    movaps 0x90(%rsp), %xmm15
    addq $0xc8, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rsi
    popq %rdi
    popq %rbx
    popq %rbp
    popq %rcx
    jmp *%rcx

/* Rare. Exception flags of the x87 are cleared first: one left by the other stack would trap here as soon as it is
 * unmasked. Those of MXCSR never trap by themselves. */
.Lx87_control_differs:
    fnclex
    fldcw 0xa4(%rsp)
    jmp .Lx87_control_is_set
.Lmxcsr_differs:
    andl $~0x3f, %eax
    xorl %r8d, %eax             /* the control of the resumed stack, the flags of the thread */
    movl %eax, 0xa0(%rsp)
    ldmxcsr 0xa0(%rsp)
    jmp .Lresume
    .seh_endproc

/* void *switch_frame(void *top, void (*entry)(void *argument), void *argument, void *low) */
    .globl switch_frame
    .def switch_frame; .scl 2; .type 32; .endef
    .p2align 4
    .seh_proc switch_frame
switch_frame:
    .seh_endprologue
    movq %rcx, %r10
    andq $-16, %r10
    leaq -0x140(%r10), %rax
    leaq switch_start(%rip), %r11
    stmxcsr 0xa0(%rax)
    fnstcw 0xa4(%rax)
    movw $0, 0xa6(%rax)
    movq %rcx, 0xa8(%rax)
    movq %r9, 0xb0(%rax)
    movq %r9, 0xb8(%rax)
    movq $-1, 0xc0(%rax)        /* no frames */
    movq $0, 0xc8(%rax)
    movq $0, 0xd0(%rax)
    movq $0, 0xd8(%rax)
    movq %r8, 0xe0(%rax)        /* r12: the argument */
    movq $0, 0xe8(%rax)
    movq $0, 0xf0(%rax)
    movq %rdx, 0xf8(%rax)       /* rbx: the entry */
    movq $0, 0x100(%rax)        /* rbp: frame pointers end here */
    movq %r11, 0x108(%rax)
    /* The stack pointer at switch_start is 110, a multiple of 16: 32 bytes for whoever is called, 8 of room, and where an
     * unwinder expects the return address: nobody called. */
    movq $0, 0x138(%rax)
    ret
    .seh_endproc

/* The first thing on a new stack. What no handler takes ends here, as it does where the system starts a thread. */
    .def switch_start; .scl 3; .type 32; .endef
    .p2align 4
    .seh_proc switch_start
switch_start:
    .seh_handler switch_unhandled, @except
    .seh_stackalloc 0x28
    .seh_endprologue
    movq %r12, %rcx
    callq *%rbx
    ud2
    .seh_endproc
