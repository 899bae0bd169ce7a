/* The switch for x86-64 with the System V calling convention, on ELF and Mach-O alike. What it keeps and what it costs
 * stands in switch.h.
 *
 * A stack that was left holds, from its stack pointer upwards:
 *      0   x87 control word (2 bytes), 6 bytes of room
 *      8   r15, r14, r13, r12, rbx, rbp
 *     56   where to go on
 *
 * Control-flow enforcement. Indirect branch tracking: the jump that resumes is `notrack`, like a compiler's jump
 * tables, because it lands behind a call, where no endbr64 stands; all other landing places have one; so the note at
 * the end claims IBT. Shadow stacks: it does not claim SHSTK, because each fiber would need a shadow stack of its own,
 * and a return after a switch would find the wrong address on the thread's. Programs that link this file are thereby
 * not marked, and the loader runs them without shadow stack; dlopen refuses the library in a process which has them
 * switched on for good. Others map a shadow stack for each coroutine (Ruby, PHP: two system calls and a mapping a
 * fiber), or fall back to swapcontext (OpenSSL), which does the same inside: whoever needs shadow stacks builds the
 * portable variant. */

#define JOIN2(a, b) a##b
#define JOIN(a, b)  JOIN2(a, b)
#define NAME(name)  JOIN(__USER_LABEL_PREFIX__, name)

#if defined(__ELF__)
#define FUNCTION(name) .type NAME(name), @function
#define HIDDEN(name)   .hidden NAME(name)
#define END(name)      .size NAME(name), . - NAME(name)
#else
#define FUNCTION(name)
#define HIDDEN(name) .private_extern NAME(name)
#define END(name)
#endif

    .text

/* void switch_stacks(void **save_sp, void *load_sp) */
    .globl NAME(switch_stacks)
    HIDDEN(switch_stacks)
    FUNCTION(switch_stacks)
    .p2align 5
NAME(switch_stacks):
    .cfi_startproc
    endbr64
    pushq %rbp
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rbp, 0
    pushq %rbx
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rbx, 0
    pushq %r12
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r12, 0
    pushq %r13
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r13, 0
    pushq %r14
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r14, 0
    pushq %r15
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r15, 0
    subq $8, %rsp
    .cfi_adjust_cfa_offset 8
    fnstcw (%rsp)
    movzwl (%rsp), %eax
    movq %rsp, (%rdi)
    /* Both stacks have the same layout here, so what was said about the frame stays true. */
    movq %rsi, %rsp
    cmpw %ax, (%rsp)
    jne 2f
1:
    addq $8, %rsp
    .cfi_adjust_cfa_offset -8
    popq %r15
    .cfi_adjust_cfa_offset -8
    .cfi_same_value %r15
    popq %r14
    .cfi_adjust_cfa_offset -8
    .cfi_same_value %r14
    popq %r13
    .cfi_adjust_cfa_offset -8
    .cfi_same_value %r13
    popq %r12
    .cfi_adjust_cfa_offset -8
    .cfi_same_value %r12
    popq %rbx
    .cfi_adjust_cfa_offset -8
    .cfi_same_value %rbx
    popq %rbp
    .cfi_adjust_cfa_offset -8
    .cfi_same_value %rbp
    popq %rcx
    .cfi_adjust_cfa_offset -8
    .cfi_register %rip, %rcx
    notrack jmp *%rcx
    .cfi_endproc
    END(switch_stacks)

/* Rare. Makes the control word that of the resumed stack, and the rounding direction and the masks of MXCSR agree with
 * it. Exception flags are cleared first: one left by the other stack would trap here as soon as it is unmasked. */
    FUNCTION(switch_control)
NAME(switch_control):
    .cfi_startproc
    .cfi_def_cfa %rsp, 64
    .cfi_offset %r15, -56
    .cfi_offset %r14, -48
    .cfi_offset %r13, -40
    .cfi_offset %r12, -32
    .cfi_offset %rbx, -24
    .cfi_offset %rbp, -16
2:
    fnclex
    fldcw (%rsp)
    movzwl (%rsp), %eax
    movl %eax, %ecx
    andl $0x3f, %eax            /* masks: bits 0 to 5, in MXCSR 7 to 12 */
    shll $7, %eax
    andl $0xc00, %ecx           /* rounding: bits 10 and 11, in MXCSR 13 and 14 */
    shll $3, %ecx
    orl %eax, %ecx
    stmxcsr 4(%rsp)
    movl 4(%rsp), %eax
    andl $~0x7fbf, %eax         /* without masks, rounding and flags */
    orl %ecx, %eax
    movl %eax, 4(%rsp)
    ldmxcsr 4(%rsp)
    jmp 1b
    .cfi_endproc
    END(switch_control)

/* void *switch_frame(void *top, void (*entry)(void *argument), void *argument) */
    .globl NAME(switch_frame)
    HIDDEN(switch_frame)
    FUNCTION(switch_frame)
    .p2align 4
NAME(switch_frame):
    .cfi_startproc
    endbr64
    andq $-16, %rdi
    leaq -80(%rdi), %rax
    leaq NAME(switch_start)(%rip), %rcx
    movq $0, (%rax)
    fnstcw (%rax)
    movq $0, 8(%rax)
    movq $0, 16(%rax)
    movq $0, 24(%rax)
    movq %rdx, 32(%rax)         /* r12: the argument */
    movq %rsi, 40(%rax)         /* rbx: the entry */
    movq $0, 48(%rax)           /* rbp: frame pointers end here */
    movq %rcx, 56(%rax)
    movq $0, 64(%rax)           /* the stack pointer at switch_start; a multiple of 16 */
    movq $0, 72(%rax)
    ret
    .cfi_endproc
    END(switch_frame)

/* The first thing on a new stack. Nobody called it: unwinding ends here. */
    FUNCTION(switch_start)
    .p2align 4
NAME(switch_start):
    .cfi_startproc
    .cfi_undefined %rip
    endbr64
    movq %r12, %rdi
    callq *%rbx
    ud2
    .cfi_endproc
    END(switch_start)

#if defined(__ELF__)
    .section .note.GNU-stack, "", @progbits

/* NT_GNU_PROPERTY_TYPE_0 with GNU_PROPERTY_X86_FEATURE_1_AND = IBT. */
    .section .note.gnu.property, "a", @note
    .p2align 3
    .long 4                     /* length of the name */
    .long 16                    /* length of the description */
    .long 5
    .asciz "GNU"
    .long 0xc0000002
    .long 4
    .long 1
    .long 0
#endif
