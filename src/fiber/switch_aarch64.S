/* The switch for AArch64 with the procedure call standard of ARM (AAPCS64), on ELF and Mach-O alike. What it keeps stands
 * in switch.h; of the floating point control register all of it, flush-to-zero as well. x18, which belongs to the
 * platform, is left alone: the thread's own stays what it is.
 *
 * A stack that was left holds, from its stack pointer upwards:
 *      0   floating point control (8 bytes), 8 bytes of room
 *     16   x19 to x28
 *     96   x29, and where to go on
 *    112   d8 to d15
 *
 * The control register is written only if it differs: reading it is cheap, writing it is not on many processors.
 *
 * Marks. Where branch targets are protected (BTI), an indirect jump may land on a mark only, and behind a call, where a
 * stack goes on, there is none; returns may land anywhere. So code that is compiled for protection resumes by a return,
 * which the processor predicts wrongly, and other code by a jump. Where return addresses are signed (PAC), so is the one
 * that waits here, with the stack pointer that it is resumed with; threads of a process share the key. The note at the end
 * claims what this file was compiled for. Guarded control stacks (GCS) are not claimed, as shadow stacks are not on
 * x86-64. */

#define JOIN2(a, b) a##b
#define JOIN(a, b)  JOIN2(a, b)
#define NAME(name)  JOIN(__USER_LABEL_PREFIX__, name)

#if defined(__ELF__)
#define FUNCTION(name) .type NAME(name), %function
#define HIDDEN(name)   .hidden NAME(name)
#define END(name)      .size NAME(name), . - NAME(name)
#else
#define FUNCTION(name)
#define HIDDEN(name) .private_extern NAME(name)
#define END(name)
#endif

/* All of these are hints: processors that know nothing of them do nothing. */
#if defined(__ARM_FEATURE_BTI_DEFAULT)
#define MARK_CALL hint 34 /* bti c */
#else
#define MARK_CALL
#endif
#if defined(__ARM_FEATURE_PAC_DEFAULT)
#define SIGN   hint 25 /* paciasp */
#define VERIFY hint 29 /* autiasp */
#define SIGNED .cfi_negate_ra_state
#else
#define SIGN
#define VERIFY
#define SIGNED
#endif

    .text

/* void switch_stacks(void **save_sp, void *load_sp) */
    .globl NAME(switch_stacks)
    HIDDEN(switch_stacks)
    FUNCTION(switch_stacks)
    .p2align 5
NAME(switch_stacks):
    .cfi_startproc
    MARK_CALL
    SIGN
    SIGNED
    sub sp, sp, #176
    .cfi_def_cfa_offset 176
    stp x19, x20, [sp, #16]
    .cfi_offset x19, -160
    .cfi_offset x20, -152
    stp x21, x22, [sp, #32]
    .cfi_offset x21, -144
    .cfi_offset x22, -136
    stp x23, x24, [sp, #48]
    .cfi_offset x23, -128
    .cfi_offset x24, -120
    stp x25, x26, [sp, #64]
    .cfi_offset x25, -112
    .cfi_offset x26, -104
    stp x27, x28, [sp, #80]
    .cfi_offset x27, -96
    .cfi_offset x28, -88
    stp x29, x30, [sp, #96]
    .cfi_offset x29, -80
    .cfi_offset x30, -72
    stp d8, d9, [sp, #112]
    .cfi_offset d8, -64
    .cfi_offset d9, -56
    stp d10, d11, [sp, #128]
    .cfi_offset d10, -48
    .cfi_offset d11, -40
    stp d12, d13, [sp, #144]
    .cfi_offset d12, -32
    .cfi_offset d13, -24
    stp d14, d15, [sp, #160]
    .cfi_offset d14, -16
    .cfi_offset d15, -8
    mrs x3, fpcr
    str x3, [sp]
    mov x4, sp
    str x4, [x0]
    /* Both stacks have the same layout here, so what was said about the frame stays true. */
    mov sp, x1
    ldr x4, [sp]
    cmp x3, x4
    b.ne 2f
1:
    ldp d14, d15, [sp, #160]
    ldp d12, d13, [sp, #144]
    ldp d10, d11, [sp, #128]
    ldp d8, d9, [sp, #112]
    ldp x29, x30, [sp, #96]
    ldp x27, x28, [sp, #80]
    ldp x25, x26, [sp, #64]
    ldp x23, x24, [sp, #48]
    ldp x21, x22, [sp, #32]
    ldp x19, x20, [sp, #16]
    add sp, sp, #176
    .cfi_remember_state
    .cfi_def_cfa_offset 0
    .cfi_restore x19
    .cfi_restore x20
    .cfi_restore x21
    .cfi_restore x22
    .cfi_restore x23
    .cfi_restore x24
    .cfi_restore x25
    .cfi_restore x26
    .cfi_restore x27
    .cfi_restore x28
    .cfi_restore x29
    .cfi_restore x30
    .cfi_restore d8
    .cfi_restore d9
    .cfi_restore d10
    .cfi_restore d11
    .cfi_restore d12
    .cfi_restore d13
    .cfi_restore d14
    .cfi_restore d15
    VERIFY
    SIGNED
#if defined(__ARM_FEATURE_BTI_DEFAULT)
    ret
#else
    br x30
#endif
    .cfi_restore_state
2:
    msr fpcr, x4
    b 1b
    .cfi_endproc
    END(switch_stacks)

/* void *switch_frame(void *top, void (*entry)(void *argument), void *argument) */
    .globl NAME(switch_frame)
    HIDDEN(switch_frame)
    FUNCTION(switch_frame)
    .p2align 4
NAME(switch_frame):
    .cfi_startproc
    MARK_CALL
    and x16, x0, #-16           /* the stack pointer at switch_start */
    sub x0, x16, #176
    mrs x3, fpcr
    adr x17, NAME(switch_start)
#if defined(__ARM_FEATURE_PAC_DEFAULT)
    hint 8                      /* pacia1716 */
#endif
    stp x3, xzr, [x0]
    stp x1, x2, [x0, #16]       /* x19: the entry, x20: the argument */
    stp xzr, xzr, [x0, #32]
    stp xzr, xzr, [x0, #48]
    stp xzr, xzr, [x0, #64]
    stp xzr, xzr, [x0, #80]
    stp xzr, x17, [x0, #96]     /* x29: frame pointers end here */
    stp xzr, xzr, [x0, #112]
    stp xzr, xzr, [x0, #128]
    stp xzr, xzr, [x0, #144]
    stp xzr, xzr, [x0, #160]
    ret
    .cfi_endproc
    END(switch_frame)

/* The first thing on a new stack. Nobody called it: unwinding ends here. */
    FUNCTION(switch_start)
    .p2align 4
NAME(switch_start):
    .cfi_startproc
    .cfi_undefined x30
    mov x0, x20
    blr x19
    brk #1
    .cfi_endproc
    END(switch_start)

#if defined(__ELF__)
    .section .note.GNU-stack, "", %progbits

#if defined(__ARM_FEATURE_BTI_DEFAULT) || defined(__ARM_FEATURE_PAC_DEFAULT)
#if defined(__ARM_FEATURE_BTI_DEFAULT)
#define CLAIM_BTI 1
#else
#define CLAIM_BTI 0
#endif
#if defined(__ARM_FEATURE_PAC_DEFAULT)
#define CLAIM_PAC 2
#else
#define CLAIM_PAC 0
#endif
/* NT_GNU_PROPERTY_TYPE_0 with GNU_PROPERTY_AARCH64_FEATURE_1_AND. */
    .section .note.gnu.property, "a", %note
    .p2align 3
    .word 4                     /* length of the name */
    .word 16                    /* length of the description */
    .word 5
    .asciz "GNU"
    .word 0xc0000000
    .word 4
    .word CLAIM_BTI + CLAIM_PAC
    .word 0
#endif
#endif
