; Protected mode: checks when segment registers are loaded and used; LAR, LSL, VERR, VERW, ARPL.
%include "kit.inc"

%define S1 (SPARE)
%define S2 (SPARE + 8)
%define S3 (SPARE + 16)
%macro SET 4                    ; selector, base, limit, attributes
        mov dword [gdt + (%1 & ~7)], ((%2) & 0xffff) << 16 | ((%3) & 0xffff)
        mov dword [gdt + (%1 & ~7) + 4], ((%2) & 0xff000000) | (((%2) >> 16) & 0xff) | ((%4) << 8) | ((%3) & 0xf0000)
%endmacro
%macro LIMITS 5                 ; name, selector, offset, size word, what
%endmacro

main:   START
        TO_PM32
        LOAD_TSS

        ; Limits, byte-granular.
        SET S1, 0x70000, 0xfff, 0x4093
        mov eax, S1
        mov es, ax
        TRY "limit-last"
        mov al, [es:0xfff]
        END
        TRY "limit-byte-after"
        mov al, [es:0x1000]
        END
;= limit-byte-after #0000000d e=00000000 ip=00000000 cs=00000008 fl=00000046 ## QEMU does not look at limits
        TRY "limit-dword-across"
        mov eax, [es:0xffd]
        END
;= limit-dword-across #0000000d e=00000000 ip=00000000 cs=00000008 fl=00000046 ## limits
        TRY "limit-write"
        mov dword [es:0x1000], eax
        END
;= limit-write #0000000d e=00000000 ip=00000000 cs=00000008 fl=00000046 ## limits
        TRY "limit-wraps"       ; offset 4 GiB - 1
        mov ax, [es:0xffffffff]
        END
;= limit-wraps #0000000d e=00000000 ip=00000000 cs=00000008 fl=00000046 ## limits
        TRY "limit-lgdt"
        lgdt [es:0xffc]
        END
;= limit-lgdt #0000000d e=00000000 ip=00000000 cs=00000008 fl=00000046 ## limits
        lgdt [gdtr]
        TRY "limit-invlpg"      ; no access: no check
        invlpg [es:0x5000]
        END
        TRY "limit-lea"
        lea eax, [es:0x5000]
        END
        TRY "limit-fxsave"
        mov eax, cr4
        or eax, 0x200
        mov cr4, eax
        fxsave [es:0xe10]
        END
;= limit-fxsave #0000000d e=00000000 ip=0000000b cs=00000008 fl=00000006 ## limits
        mov eax, cr4
        and eax, ~0x200
        mov cr4, eax
        TRY "limit-scasb"       ; registers tell how far it came
        mov edi, 0xffc
        mov ecx, 10
        mov al, 0x55
        cld
        repne scasb
        END
        SHOW "limit-scasb-left ecx=", ecx
        SHOW " edi=", edi
        NL
;= limit-scasb #0000000d e=00000000 ip=0000000d cs=00000008 fl=00000006 ## limits
;= limit-scasb-left ecx=00000006 edi=00001000 ## limits

        ; Expand-down: everything above the limit.
        SET S1, 0x70000, 0xfff, 0x4097
        mov eax, S1
        mov es, ax
        TRY "down-at-limit"
        mov al, [es:0xfff]
        END
;= down-at-limit #0000000d e=00000000 ip=00000000 cs=00000008 fl=00000046 ## limits
        TRY "down-above"
        mov al, [es:0x1000]
        END
        TRY "down-big-top"
        mov eax, [es:0xfffc]
        mov eax, [es:0x10000]
        END
        SET S1, 0x70000, 0xfff, 0x0097
        mov eax, S1
        mov es, ax
        TRY "down-small-top"    ; without B: up to FFFFh
        mov eax, [es:0xfffc]
        END
        TRY "down-small-over"
        mov eax, [es:0xfffd]
        END
;= down-small-over #0000000d e=00000000 ip=00000000 cs=00000008 fl=00000046 ## limits
        ; Page-granular.
        SET S1, 0x70000, 0x1, 0xc093
        mov eax, S1
        mov es, ax
        TRY "pages-last"
        mov al, [es:0x1fff]
        END
        TRY "pages-over"
        mov al, [es:0x2000]
        END
;= pages-over #0000000d e=00000000 ip=00000000 cs=00000008 fl=00000046 ## limits

        ; Types.
        SET S1, 0, 0xfffff, 0xc091      ; read-only data
        SET S2, 0, 0xfffff, 0xc099      ; execute-only code
        SET S3, 0, 0xfffff, 0xc09b      ; readable code
        mov eax, S1
        mov es, ax
        TRY "read-only-read"
        mov al, [es:0x1000]
        END
        TRY "read-only-write"
        mov [es:0x1000], al
        END
;= read-only-write #0000000d e=00000000 ip=00000000 cs=00000008 fl=00000046 ## QEMU does not look at types in use
        TRY "read-only-stos"
        mov edi, 0x1000
        mov ecx, 2
        rep stosb
        END
;= read-only-stos #0000000d e=00000000 ip=0000000a cs=00000008 fl=00000046 ## types
        TRY "ss-read-only"
        mov eax, S1
        mov ss, ax
        END
        TRY "es-execute-only"
        mov eax, S2
        mov es, ax
        END
        TRY "es-readable-code"
        mov eax, S3
        mov es, ax
        mov al, [es:0x1000]
        END
        TRY "write-code"
        mov [es:0x1000], al
        END
;= write-code #0000000d e=00000000 ip=00000000 cs=00000008 fl=00000046 ## types
        TRY "write-cs"
        mov [cs:0x1000], al
        END
;= write-cs #0000000d e=00000000 ip=00000000 cs=00000008 fl=00000046 ## types
        TRY "ss-code"
        mov eax, S3
        mov ss, ax
        END
        TRY "es-system"
        mov eax, TSS
        mov es, ax
        END
        TRY "es-beyond-gdt"
        mov eax, 0x1f8
        mov es, ax
        END
        TRY "es-no-ldt"
        mov eax, 0x0c
        mov es, ax
        END
        TRY "ss-null"
        xor eax, eax
        mov ss, ax
        END
        TRY "ss-null-rpl"
        mov eax, 3
        mov ss, ax
        END
        TRY "es-null"
        mov es, ax
        mov ax, es
        SHOW " es=", eax
        END
        TRY "null-read"
        mov al, [es:0]
        END
;= null-read #0000000d e=00000000 ip=00000000 cs=00000008 fl=00000046 ## QEMU does not look at null selectors in use
        TRY "null-far-jump"
        jmp 0:main32
        END
        TRY "jmp-beyond-gdt"
        jmp 0x1f8:main32
        END
        TRY "jmp-data"
        jmp DATA:main32
        END
        TRY "jmp-rpl3"
        jmp (CODE32 + 3):main32
        END
        TRY "jmp-user-code"
        jmp USER32:main32
        END
        TRY "jmp-limit"
        SET S1, 0, 0x1000, 0x409b
        jmp S1:0x1001
        END
        ; Not present.
        SET S1, 0, 0xfffff, 0xc013
        SET S2, 0, 0xfffff, 0xc01b
        TRY "es-absent"
        mov eax, S1
        mov es, ax
        END
        TRY "ss-absent"
        mov ss, ax
        END
        TRY "jmp-absent"
        jmp S2:main32
        END
        ; Privilege.
        TRY "ss-dpl3"
        mov eax, USERD
        mov ss, ax
        END
        TRY "ss-rpl3"
        mov eax, DATA + 3
        mov ss, ax
        END
        TRY "es-rpl3-dpl0"
        mov es, ax
        END
        TRY "es-dpl3"
        mov eax, USERD & ~3
        mov es, ax
        END
        TRY "accessed-bit"
        SET S1, 0, 0xfffff, 0xc092
        mov eax, S1
        mov es, ax
        movzx eax, byte [gdt + S1 + 5]
        SHOW " type=", eax
        END
        TRY "pop-ds-bad"        ; the stack pointer stays
        push dword 0x1f8
        mov ebx, esp
        pop ds
        END
        TRY "lds-bad"
        mov dword [0x1000], 0x11111111
        mov dword [0x1004], TSS
        mov eax, 0x22222222
        lds eax, [0x1000]
        END
        SHOW "lds-kept eax=", eax
        NL
        TRY "mov-to-cs"
        db 0x8e, 0xc8
        END
        TRY "segment-6"
        db 0x8e, 0xf0
        END
        TRY "mov-from-segment"  ; a 32-bit register is written whole, memory with 16 bits
        mov eax, -1
        mov [0x1000], eax
        mov eax, ss
        SHOW " eax=", eax
        mov [0x1000], ss
        SHOW " mem=", [0x1000]
        mov eax, -1
        mov ax, ss
        SHOW " ax=", eax
        END
        TRY "push-es"           ; the upper half of the word is left alone
        mov dword [esp - 4], 0x12345678
        push es
        pop eax
        SHOW " eax=", eax
        END
;= push-es eax=12340068 ok ## Intel's processors write 16 bits, AMD's and QEMU 32
        TRY "branch-beyond-limit"
        SET S1, 0, 0, 0x409b
        mov word [gdt + S1], branches.end - 1 - $$
        mov byte [gdt + S1 + 6], 0x41
        mov dword [V_START], branches
        jmp S1:branches
        END
;= branch-beyond-limit #0000000d e=00000000 ip=00000002 cs=00000068 fl=00000046 ## limits

        ; LAR, LSL and so on.
        SET S1, 0x1234, 0xabc, 0x4093
        SET S2, 0, 0xfffff, 0xc09f      ; conforming
        SET S3, 0, 0, 0
%macro DESCRIBE 2
        TRY %1
        mov ebx, %2
        mov eax, 0xdeadbeef
        lar eax, ebx
        pushfd
        and eax, ~0xf0000       ; these bits are undefined
        SHOW " lar=", eax
        mov eax, 0xdeadbeef
        popfd
        lsl eax, ebx
        pushfd
        SHOW " lsl=", eax
        popfd
        setz al
        verr bx
        setz ah
        verw bx
        setz cl
        movzx ecx, cl
        shl ecx, 16
        movzx eax, ax
        or eax, ecx
        SHOW " zf=", eax
        END
%endmacro
        DESCRIBE "describe-null", 0
        DESCRIBE "describe-code", CODE32
        DESCRIBE "describe-data", DATA
        DESCRIBE "describe-small", S1
        DESCRIBE "describe-small-rpl3", S1 + 3
        DESCRIBE "describe-conforming-rpl3", S2 + 3
        DESCRIBE "describe-empty", S3
        DESCRIBE "describe-beyond", 0x1f8
        DESCRIBE "describe-tss", TSS
        DESCRIBE "describe-user", USERD
        SET S3, 0, 0xfff, 0x82
        DESCRIBE "describe-ldt", S3
        SET S3, 0x80000, 0x1234, 0x8c
        DESCRIBE "describe-call-gate", S3
        SET S3, 0x80000, 0x1234, 0x85
        DESCRIBE "describe-task-gate", S3
        SET S3, 0x80000, 0x1234, 0x8e
        DESCRIBE "describe-interrupt-gate", S3
        SET S3, 0, 0xfff, 0x81
        DESCRIBE "describe-tss16", S3
        TRY "lar-16"
        mov eax, 0xdeadbeef
        mov ebx, DATA
        lar ax, bx
        SHOW " eax=", eax
        lsl ax, bx
        SHOW " eax=", eax
        END
        TRY "arpl"
        mov eax, 0x10
        mov ebx, 0x2b
        arpl ax, bx
        setz cl
        SHOW " eax=", eax
        arpl ax, bx
        setz ch
        movzx ecx, cx
        SHOW " zf=", ecx
        END

        ; LLDT and LTR.
        SET S1, 0x71000, 0x17, 0x82
        mov dword [0x71000], 0x0000ffff
        mov dword [0x71004], 0x00cf9300
        mov dword [0x71008], 0x0000ffff
        mov dword [0x7100c], 0x00cff200
        TRY "lldt"
        mov eax, S1
        lldt ax
        sldt ebx
        SHOW " ldtr=", ebx
        mov eax, 4
        mov es, ax
        mov eax, 12
        mov fs, ax
        movzx eax, byte [0x7100d]
        SHOW " type=", eax
        END
        TRY "ldt-beyond"
        mov eax, 0x1c
        mov es, ax
        END
        TRY "lldt-null"
        xor eax, eax
        lldt ax
        END
        TRY "ldt-gone"
        mov eax, 12
        mov es, ax
        END
        TRY "lldt-tss"
        mov eax, TSS
        lldt ax
        END
        TRY "lldt-in-ldt"
        mov eax, S1 + 4
        lldt ax
        END
        TRY "lldt-absent"
        and byte [gdt + S1 + 5], 0x7f
        mov eax, S1
        lldt ax
        END
        TRY "ltr-busy"
        mov eax, TSS
        ltr ax
        END
        TRY "ltr-null"
        xor eax, eax
  %ifndef QEMU
        ltr ax
  %endif
        END
;= ltr-null #0000000d e=00000000 ip=00000002 cs=00000008 fl=00000046 ## QEMU takes it
        TRY "ltr-ldt"
        mov eax, S1
        ltr ax
        END
        TRY "str"
        mov eax, -1
        str eax
        SHOW " eax=", eax
        mov eax, -1
        str ax
        SHOW " ax=", eax
        END

        ; From ring 3.
        TRY "user-es-kernel"
        RING3 .u1
.u1:    mov eax, DATA
        mov es, ax
        END_QUIET
        TRY "user-ss-kernel"
        RING3 .u2
.u2:    mov eax, DATA
        mov ss, ax
        END_QUIET
        TRY "user-segments"     ; those of the kernel are null after the return
        RING3 .u3
.u3:    mov eax, ds
        mov ebx, es
        add eax, ebx
        int 0x30
        END_QUIET
        TRY "user-lldt"
        RING3 .u4
.u4:    lldt ax
        END_QUIET
        TRY "user-hlt"
        RING3 .u5
.u5:    hlt
        END_QUIET
        TRY "user-cli"
        RING3 .u6
.u6:    cli
        END_QUIET
        TRY "user-mov-cr"
        RING3 .u7
.u7:    mov eax, cr0
        END_QUIET
        ;= user-mov-cr5 #00000006 ip=00000010 cs=00000033 fl=00000046 ss=0000003b sp=0005f000 ## a register that is not there is found first, as on processors
        TRY "user-mov-cr5"      ; #UD comes first
        RING3 .u8
.u8:    db 0x0f, 0x20, 0xe8
        END_QUIET
        TRY "user-invalid-lock"
        RING3 .u9
.u9:    db 0xf0
        hlt
        END_QUIET
;= user-invalid-lock #00000006 ip=00000010 cs=00000033 fl=00000046 ss=0000003b sp=0005f000 ## QEMU looks at privilege first
        TRY "user-sgdt"         ; allowed without UMIP
        RING3 .u10
.u10:   mov eax, USERD
        mov ds, ax
        sgdt [0x1000]
        sidt [0x1008]
        smsw eax
        str ebx
        sldt ecx
        int 0x30
        END_QUIET
        SHOW "user-sgdt-limit ", [0x1000]
        NL
        TRY "user-jmp-kernel"
        RING3 .u11
.u11:   jmp CODE32:main32
        END_QUIET
        TRY "user-int-dpl"
        RING3 .u12
.u12:   int 0x20
        END_QUIET
        TRY "user-int-absent"
        mov byte [IDT32 + 0x31 * 8 + 5], 0x6e
        RING3 .u13
.u13:   int 0x31
        END_QUIET
        TRY "user-popf"
        RING3 .u14
.u14:   push dword 0x3246
        popfd
        int 0x30
        END_QUIET
        TRY "user-rdtsc-tsd"
        mov eax, cr4
        or eax, 4
        mov cr4, eax
        RING3 .u15
.u15:   rdtsc
        END_QUIET
        mov eax, cr4
        and eax, ~4
        mov cr4, eax
        TRY "user-conforming"
        SET S2, 0, 0xfffff, 0xc09f
        RING3 .u16
.u16:   jmp S2:.u17
.u17:   int 0x30
        END_QUIET
        TRY "umip"
        mov eax, cr4
        or eax, 0x800
        mov cr4, eax
        sgdt [0x1000]
        RING3 .u18
.u18:   smsw eax
        END_QUIET
        TRY "umip-sidt"
        RING3 .u19
.u19:   sidt [cs:0x1000]
        END_QUIET
main32: FINISH32

bits 32
branches:
        xor eax, eax
        jz .end
        nop
.end:   int3
