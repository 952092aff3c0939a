; Protected mode: call gates, interrupt and trap gates of 16 and 32 bits, far returns, stack switches.
%include "kit.inc"
%macro SET 4                    ; selector, base, limit, attributes
        mov dword [gdt + (%1 & ~7)], ((%2) & 0xffff) << 16 | ((%3) & 0xffff)
        mov dword [gdt + (%1 & ~7) + 4], ((%2) & 0xff000000) | (((%2) >> 16) & 0xff) | ((%4) << 8) | ((%3) & 0xf0000)
%endmacro
%macro GATE 5                   ; where, selector, label, parameters, attributes
        mov word [%1], (%3) - $$
        mov word [%1 + 2], %2
        mov byte [%1 + 4], %4
        mov byte [%1 + 5], %5
        mov word [%1 + 6], ((%5) >> 3) & 1      ; 16-bit gates have no upper half
%endmacro
%define G1 (SPARE)
%define G2 (SPARE + 8)
%define C16 (SPARE + 16)
%define CONF (SPARE + 24)
%macro FRAME 1                  ; that many words of the stack from EBP on
  %assign i 0
  %rep %1
        SHOW " ", [ebp + 4 * i]
    %assign i i + 1
  %endrep
%endmacro

main:   START
        TO_PM32
        LOAD_TSS
        SET C16, 0x10000, 0xffff, 0x9b
        SET CONF, 0, 0xfffff, 0xc09f

        ; From the same level.
        GATE gdt + G1, CODE32, near32, 3, 0x8c
        TRY "gate-same-level"   ; parameters are not copied
        push dword 0x11111111
        call G1:0x12345
        add esp, 4
        END
        TRY "gate-jmp"
        GATE gdt + G1, CODE32, .jumped, 0, 0x8c
        jmp G1:0
.jumped: END
        TRY "gate-absent"
        GATE gdt + G1, CODE32, near32, 0, 0x0c
        call G1:0
        END
        TRY "gate-null-target"
        GATE gdt + G1, 0, near32, 0, 0x8c
        call G1:0
        END
        TRY "gate-data-target"
        GATE gdt + G1, DATA, near32, 0, 0x8c
        call G1:0
        END
        TRY "gate-beyond-target"
        GATE gdt + G1, 0x1f8, near32, 0, 0x8c
        call G1:0
        END
        TRY "gate-rpl3"
        GATE gdt + G1, CODE32, near32, 0, 0x8c
        call (G1 + 3):0
        END
        TRY "gate-16"
        GATE gdt + G1, C16, near16, 0, 0x84
        call G1:0
        END
        TRY "gate-outer-target"
        GATE gdt + G1, USER32, near32, 0, 0xec
        call G1:0
        END
        TRY "call-tss-type"     ; an LDT is nothing to call
        SET G1, 0, 0xfff, 0x82
        call G1:0
        END

        ; From ring 3 inwards.
        GATE gdt + G1, CODE32, inner32, 3, 0xec
        TRY "gate-inner"
        RING3 .u1
.u1:    push dword 0x33333333
        push dword 0x22222222
        push dword 0x11111111
        mov ecx, 0xcccccccc
        call (G1 + 3):0
        mov eax, ds
        mov ebx, es
        int 0x30
        END_QUIET
        TRY "gate-inner-dpl"
        GATE gdt + G1, CODE32, inner32, 0, 0x8c
        RING3 .u2
.u2:    call (G1 + 3):0
        END_QUIET
        TRY "gate-inner-jmp"
        GATE gdt + G1, CODE32, inner32, 0, 0xec
        RING3 .u3
.u3:    jmp (G1 + 3):0
        END_QUIET
        TRY "gate-inner-16"
        GATE gdt + G1, C16, inner16, 2, 0xe4
        RING3 .u4
.u4:    push dword 0x22221111
        call (G1 + 3):0
        int 0x30
        END_QUIET
        TRY "gate-conforming"
        GATE gdt + G1, CONF, conforming, 1, 0xec
        RING3 .u5
.u5:    call (G1 + 3):0
        int 0x30
        END_QUIET
        TRY "gate-old-stack-short"      ; parameters lie beyond the old stack's limit
        GATE gdt + G1, CODE32, inner32, 4, 0xec
        SET G2, 0, 0x1007, 0x40f3
        RING3 .u7
.u7:    mov eax, G2 + 3
        mov ss, ax
        mov esp, 0x1000
        call (G1 + 3):0
        END_QUIET
;= gate-old-stack-short #0000000c e=00000000 ip=00000059 cs=00000033 fl=00000046 ss=00000073 sp=00001000 ## QEMU does not look at limits

        ; Far returns.
        TRY "retf-same"
        push dword CODE32
        push dword .r1
        retf
.r1:    END
        TRY "retf-release"
        push dword 0x77777777
        push dword CODE32
        push dword .r2
        mov ebp, esp
        retf 4
.r2:    sub ebp, esp
        SHOW " ", ebp
        END
        TRY "retf-outer"
        push dword USERD
        push dword TOP3
        push dword USER32
        push dword .r3
        retf
.r3:    int 0x30
        END_QUIET
        TRY "retf-outer-release"        ; from both stacks
        push dword USERD
        push dword TOP3 - 64
        push dword 0x88888888
        push dword 0x77777777
        push dword USER32
        push dword .r4
        retf 8
.r4:    int 0x30
        END_QUIET
        TRY "retf-null"
        push dword 0
        push dword .r3
        retf
        END
        TRY "retf-data"
        push dword DATA
        push dword .r3
        retf
        END
        TRY "retf-outer-ss-null"
        push dword 3
        push dword TOP3
        push dword USER32
        push dword .r3
        retf
        END
        TRY "retf-outer-ss-dpl"
        push dword DATA
        push dword TOP3
        push dword USER32
        push dword .r3
        retf
        END
        TRY "retf-dpl"
        push dword CODE32 + 3
        push dword .r3
        retf
        END
        TRY "retf-limit"
        push dword C16
        push dword 0x10000
  %ifdef QEMU
        nop
  %else
        retf
  %endif
        END
;= retf-limit #0000000d e=00000000 ip=00000007 cs=00000008 fl=00000046 ## limits
        TRY "retf-inner-from-user"
        RING3 .u8
.u8:    push dword CODE32
        push dword .r3
        retf
        END_QUIET

        ; Interrupts.
        mov byte [IDT32 + 3 * 8 + 5], 0xee
        mov byte [IDT32 + 4 * 8 + 5], 0xee
        TRY "int-from-user"
        RING3 .u9
.u9:    push dword 0x246
        popfd
        stc
        int 0x30
        END_QUIET
        TRY "int3-from-user"
        RING3 .u10
.u10:   int3
        END_QUIET
        TRY "into-from-user"
        RING3 .u11
.u11:   mov al, 0x7f
        inc al
        into
        END_QUIET
        TRY "trap-gate"
        sti
        GATE IDT32 + 0x31 * 8, CODE32, flags, 0, 0xef
        int 0x31
        cli
        END
        TRY "interrupt-gate"
        sti
        GATE IDT32 + 0x31 * 8, CODE32, flags, 0, 0xee
        int 0x31
        cli
        END
        TRY "interrupt-gate-16"
        GATE IDT32 + 0x31 * 8, C16, flags16, 0, 0xe6
        int 0x31
        END
        TRY "gate-type-0"
        mov byte [IDT32 + 0x31 * 8 + 5], 0x80
        int 0x31
        END
        TRY "gate-call-type"
        mov byte [IDT32 + 0x31 * 8 + 5], 0x8c
        int 0x31
        END
        TRY "int-gate-absent"
        mov byte [IDT32 + 0x31 * 8 + 5], 0x0e
        int 0x31
        END
        TRY "int-gate-null"
        GATE IDT32 + 0x31 * 8, 0, flags, 0, 0x8e
        int 0x31
        END
        TRY "int-gate-data"
        GATE IDT32 + 0x31 * 8, DATA, flags, 0, 0x8e
        int 0x31
        END
        TRY "int-gate-outer"    ; a handler may not be less privileged
        GATE IDT32 + 0x31 * 8, USER32, flags, 0, 0x8e
        int 0x31
        END
        TRY "int-gate-limit"
        GATE IDT32 + 0x31 * 8, C16, flags, 0, 0x8e
  %ifndef QEMU
        int 0x31
  %endif
        END
;= int-gate-limit #0000000d e=00000000 ip=00000029 cs=00000008 fl=00000046 ## limits
        TRY "int-gate-code-absent"
        SET G2, 0, 0xfffff, 0xc01b
        GATE IDT32 + 0x31 * 8, G2, flags, 0, 0x8e
        int 0x31
        END
        TRY "int-beyond-idt"
        int 0xff
        lidt [shortidt]
        int 0x3f
        END
        TRY "int-beyond-short"
        lidt [shortidt]
        int 0x3f
        END
        lidt [idtr32]
        TRY "exception-absent-gate"     ; #UD becomes #NP with the external bit
        and byte [IDT32 + 6 * 8 + 5], 0x7f
        ud2
        END
;= exception-absent-gate #0000000b e=00000033 ip=00000007 cs=00000008 fl=00000002 ## QEMU does not set EXT for an earlier exception
        or byte [IDT32 + 6 * 8 + 5], 0x80
        TRY "int-conforming-from-user"
        GATE IDT32 + 0x31 * 8, CONF, conforming_int, 0, 0xee
        RING3 .u12
.u12:   int 0x31
        int 0x30
        END_QUIET
        TRY "iret-outer-flags"  ; IOPL and IF come back only at ring 0
        push dword USERD
        push dword TOP3
        push dword 0x3a57       ; IOPL 3, IF, OF and more
        push dword USER32
        push dword .i1
        iretd
.i1:    cli
        push dword 0x46
        popfd
        int 0x30
        END_QUIET
        TRY "iret-16"
        pushf
        push word CODE32
        push word SEG16(.i2)    ; an offset of 16 bits cannot reach this program: into C16
        mov word [esp + 2], C16
        o16 iret
bits 16
.i2:    jmp dword CODE32:.i3
bits 32
.i3:    END
        TRY "iret-nt-bad-link"
        pushfd
        or dword [esp], 0x4000
        popfd
        mov word [TSS32], 0
        iretd
        END
        pushfd
        and dword [esp], ~0x4000
        popfd
        TRY "iret-stack-limit"
        SET G2, 0, 0xfff, 0x4093
        mov eax, G2
        mov ss, ax
        mov esp, 0xffc
        iretd
        END
;= iret-stack-limit #0000000c e=00000000 ip=00000020 cs=00000008 fl=00003046 ## QEMU does not look at limits
        FINISH32

shortidt: dw 0x100
        dd IDT32

near32: mov ebp, esp
        FRAME 3
        retf
inner32: mov ebp, esp
        FRAME 7
        mov eax, ss
        SHOW " ss=", eax
        mov eax, cs
        SHOW " cs=", eax
        mov eax, USERD
        mov es, ax              ; survives the return, DS of ring 0 does not
        mov eax, DATA
        mov ds, ax
        retf 12
conforming:
        mov eax, cs
        mov ebp, esp
        mov edx, [ebp + 4]
        retf
conforming_int:
        mov ecx, cs
        iretd
flags:  pushfd
        pop eax
        SHOW " inside=", eax
        mov eax, [esp + 8]
        SHOW " pushed=", eax
        iretd
; A return address of 16 bits does not lead back to this program.
abandon: mov ds, [cs:stack32]
        mov esp, [ss:V_STACK]
        jmp [ss:V_RESUME]
bits 16                         ; the kit's 16-bit output needs a 16-bit stack: on to 32-bit code
near16: jmp dword CODE32:.on
bits 32
.on:    mov ebp, esp
        FRAME 1
        jmp abandon
bits 16
inner16: jmp dword CODE32:.on
bits 32
.on:    mov ebp, esp
        FRAME 3
        mov eax, ss
        SHOW " ss=", eax
        jmp abandon
bits 16
flags16: jmp dword CODE32:.on
bits 32
.on:    mov ebp, esp
        FRAME 2
        jmp abandon
