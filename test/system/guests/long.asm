; Long mode: 64-bit and compatibility mode, gates, IST, system calls, canonical addresses, paging rights.
%include "kit.inc"
%define S1 (SPARE)
%define G1 (SPARE + 16)         ; 16 bytes
%macro SET 4
        mov dword [abs gdt + (%1 & ~7)], ((%2) & 0xffff) << 16 | ((%3) & 0xffff)
        mov dword [abs gdt + (%1 & ~7) + 4], ((%2) & 0xff000000) | (((%2) >> 16) & 0xff) | ((%4) << 8) | ((%3) & 0xf0000)
%endmacro
%macro MSR 2
        mov ecx, %1
        mov rax, %2
        mov rdx, rax
        shr rdx, 32
        wrmsr
%endmacro
%define HIGHBAD 0x800000000000
%macro PAGE_AT 2                ; address below 4 MiB, entry
        mov rax, %2
        mov [abs PTE64(%1)], rax
        invlpg [%1]
%endmacro

;= l-and-d #0000000d e=00000068 ip=0000001d cs=00000018 fl=00000046 ## QEMU takes it
;= gate-type-32 #0000000d e=0000018a ip=00000008 cs=00000018 fl=00000046 ## SDM vol. 3, 7.13: the vector times 8
;= gate-offset #0000000d e=00000000 ip=00000013 cs=00000018 fl=00000046 ## SDM vol. 2, INT
;= iret-noncanonical #0000000d e=00000000 ip=00000016 cs=00000018 fl=00000046 ## SDM vol. 2, IRET
;= syscall r11=00003046 cs=00000018 ss=00000020 rsp=0005f000 fl=00003046 ## QEMU forgets arithmetic flags
;= syscall-tf r11=00003146 cs=00000018 ss=00000020 rsp=0005f000 fl=00003046 ## the same
;= reserved-bit #0000000e e=00000009 ip=0000001a cs=00000018 fl=00003046 cr2=00094000 ## SDM vol. 3, 5.7: bit 0 is set
;= pcid 00100000 00100005 00100000 ok ## QEMU has none
;= invpcid-type #0000000d e=00000000 ip=00000005 cs=00000018 fl=00003046 ## the same
;= invpcid-reserved #0000000d e=00000000 ip=00000011 cs=00000018 fl=00003046 ## the same
;= invpcid-noncanonical #0000000d e=00000000 ip=00000020 cs=00000018 fl=00003046 ## the same
;= pcide-off-paging #0000000d e=00000000 ip=00000008 cs=00000018 fl=00003047 ## the same
;= pae-off #0000000d e=00000000 ip=00000008 cs=00000018 fl=00003047 ## QEMU lets it happen
;= paging-off-64 #0000000d e=00000000 ip=00000008 cs=00000018 fl=00003047 ## QEMU lets it happen
;= lme-while-paging #0000000d e=00000000 ip=0000000b cs=00000018 fl=00003047 ## QEMU lets it happen
;= cr3-reserved #0000000d e=00000000 ip=00000008 cs=00000018 fl=00003046 ## QEMU lets it happen
;= cr4-reserved #0000000d e=00000000 ip=00000008 cs=00000018 fl=00003046 ## QEMU lets it happen
;= cr8-reserved #0000000d e=00000000 ip=00000005 cs=00000018 fl=00003046 ## QEMU lets it happen
;= dr7-high #0000000d e=00000000 ip=0000000a cs=00000018 fl=00003046 ## QEMU lets it happen

main:   START
        TO_PM32
        TO_LONG
        mov byte [abs IDT64 + 3 * 16 + 5], 0xee
        ; --- Addresses.
        TRY "noncanonical-read"
        mov rbx, HIGHBAD
        mov eax, [rbx]
        END
        TRY "noncanonical-stack"
        mov rbp, HIGHBAD
        mov eax, [rbp]
        END
;= noncanonical-stack #0000000c e=00000000 ip=0000000a cs=00000018 fl=00000046 ## SDM vol. 2, MOV: #SS(0); QEMU has #GP
        TRY "noncanonical-gs"
        mov rax, HIGHBAD
        mov rdx, rax
        shr rdx, 32
        mov ecx, 0xc0000101
        wrmsr
        END
;= noncanonical-gs #0000000d e=00000000 ip=00000016 cs=00000018 fl=00000006 ## QEMU takes it
        TRY "lidt-noncanonical"
        mov rax, HIGHBAD
        mov [0x1002], rax
  %ifdef QEMU
        times 8 nop
  %else
        lidt [0x1000]
  %endif
        END
;= lidt-noncanonical #0000000d e=00000000 ip=00000012 cs=00000018 fl=00000046 ## QEMU takes it
        ; --- Segments.
        TRY "null-segments"     ; are fine for data, and for SS at ring 0
        xor eax, eax
        mov ds, eax
        mov es, eax
        mov ss, eax
        push rax
        pop rax
        mov eax, [0x1000]
        mov eax, DATA
        mov ss, eax
        END
        TRY "no-limit"
        mov eax, [0x30000]
        END
        TRY "push-es"
        db 0x06
        END
        TRY "far-jump-direct"
        db 0xea
        END
        TRY "pusha"
        db 0x60
        END
        TRY "into"
        db 0xce
        END
        TRY "l-and-d"
        SKIP_QEMU
        SET S1, 0, 0xfffff, 0xe09b
        push S1
        push .ld
        o64 retf
.ld:    END_QUIET
        ; --- Interrupts.
        TRY "frame-aligned"
        mov rsp, TOP0 - 3
        int 0x30
        END_QUIET
        TRY "ist"
        mov qword [TSS64 + 0x24], 0x5c005
        mov byte [IDT64 + 0x31 * 16 + 4], 1
        mov qword [V_HOOK], .hook
        int 0x31
.hook:  SHOW " rsp=", rsp
        mov qword [abs V_HOOK], 0
        mov rsp, [abs V_STACK]
        jmp .hooked
.hooked: END
        TRY "gate-type-32"      ; 16-bit gates are not gates here
        mov byte [IDT64 + 0x31 * 16 + 5], 0x86
        int 0x31
        END
        TRY "gate-offset"
        mov byte [IDT64 + 0x31 * 16 + 5], 0x8e
        mov dword [IDT64 + 0x31 * 16 + 8], 0x8000
        int 0x31
        END
        TRY "gate-code32"
        mov dword [IDT64 + 0x31 * 16 + 8], 0
        mov word [IDT64 + 0x31 * 16 + 2], CODE32
        int 0x31
        END
        TRY "int-user"
        RING3 .u1
.u1:    mov ax, ss
        int 0x30
        END_QUIET
        TRY "user-iret-ring0"
        RING3 .u2
.u2:    push DATA
        push TOP0
        push 2
        push CODE64
        push .u1
        iretq
        END_QUIET
        TRY "iret-nt"
        pushfq
        or dword [rsp], 0x4000
        popfq
        iretq
        END
        push 2
        popfq
        TRY "iret-null-ss"
        push 0
        push TOP0
        push 2
        push CODE64
        push .i1
        iretq
.i1:    mov ax, ss
        mov ebx, DATA
        mov ss, ebx
        END
        TRY "iret-null-ss-user"
        push 3
        push TOP0
        push 2
        push USER64
        push .i1
        iretq
        END
        TRY "iret-noncanonical"
        push DATA
        push TOP0
        push 2
        push CODE64
        mov rax, HIGHBAD
        push rax
        iretq
        END
        TRY "rex-retf"
        push CODE64
        push .r1
        o64 retf
.r1:    END
        ; --- Compatibility mode.
        TRY "compat"
        push CODE32
        push .c1
        o64 retf
bits 32
.c1:    mov eax, DATA
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov eax, [0x1000]
        inc eax                 ; 40h is not a prefix here
        db 0x06                 ; push es
        pop eax
        SHOW " es=", eax
        jmp CODE64:.c2
bits 64
.c2:    END
        TRY "compat-user"
        push USERD
        push TOP3
        push 2
        push USER32
        push .c3
        iretq
bits 32
.c3:    mov eax, USERD
        mov ds, ax
        mov eax, esp
        int 0x30
bits 64
        END_QUIET
        TRY "compat-task"       ; there are none
        push CODE32
        push .c4
        o64 retf
bits 32
.c4:    call TSS:0
bits 64
        END_QUIET
        ; --- Call gates.
        mov rax, gate64
        mov word [G1 + gdt], ax
        mov word [G1 + gdt + 2], CODE64
        mov word [G1 + gdt + 4], 0xec00
        shr rax, 16
        mov [G1 + gdt + 6], ax
        mov qword [G1 + gdt + 8], 0
        TRY "call-gate"
        call far dword [abs gateptr]
        END
        TRY "call-gate-user"
        RING3 .g1
.g1:    call far dword [abs gateptr3]
        mov ax, ss
        int 0x30
        END_QUIET
        TRY "call-gate-upper-type"
        mov byte [G1 + gdt + 13], 0x12
        call far dword [abs gateptr]
        END
        mov byte [G1 + gdt + 13], 0
        TRY "call-gate-code32"
        mov word [G1 + gdt + 2], CODE32
        call far dword [abs gateptr]
        END
        ; --- System calls.
        TRY "syscall-disabled"
        syscall
        END
        mov ecx, 0xc0000080
        rdmsr
        or al, 1
        wrmsr
        MSR 0xc0000081, 0x0033001800000000      ; SYSRET to 33h + 16 and 33h + 8, SYSCALL to 18h and 20h
        MSR 0xc0000082, entry64
        MSR 0xc0000083, entry32
        MSR 0xc0000084, 0x700
        TRY "syscall"
        RING3_FLAGS .s1, 0x3046
.s1:    syscall
        nop
        END_QUIET
        TRY "syscall-compat"
        push USERD
        push TOP3
        push 2
        push USER32
        push .s2
        iretq
bits 32
.s2:    syscall
bits 64
        END_QUIET
        TRY "sysret"
        mov ecx, .s3
        mov r11d, 0x10346
        o64 sysret
.s3:    int 0x30
        END_QUIET
        TRY "sysret-32"
        mov ecx, .s4
        mov r11d, 0x46
        o32 sysret
bits 32
.s4:    int 0x30
bits 64
        END_QUIET
        TRY "sysret-user"
        RING3 .s5
.s5:    o64 sysret
        END_QUIET
        TRY "syscall-tf"        ; masked: no trap in the kernel
        RING3_FLAGS .s6, 0x3146
.s6:    syscall
        END_QUIET
        ; --- Rights of pages.
        TRY "nx"
        PAGE_AT 0x90000, (0x8000000000090007)
        mov byte [0x90000], 0xc3
        mov rax, 0x90000
        mov qword [V_START], 0
        call rax
        END
        TRY "read-only-supervisor"
        PAGE_AT 0x91000, 0x91005
        mov [0x91000], eax
        END
        TRY "read-only-wp"
        mov rax, cr0
        bts rax, 16
        mov cr0, rax
        mov [0x91000], eax
        END
        mov rax, cr0
        btr rax, 16
        mov cr0, rax
        TRY "not-present"
        PAGE_AT 0x92000, 0
        mov eax, [0x92ffe]
        END
        TRY "across"            ; the second page is missing
        PAGE_AT 0x91000, 0x91007
        mov qword [0x91ff8], 0
        mov rbx, 0x91ffc
        mov rax, -1
        mov [rbx], rax
        END
        SHOW "across-left ", [0x91ff8]
        NL
        TRY "supervisor-page"
        PAGE_AT 0x93000, 0x93003
        RING3 .p1
.p1:    mov eax, [0x93000]
        END_QUIET
        TRY "user-write"
        PAGE_AT 0x93000, 0x93005
        RING3 .p2
.p2:    mov [0x93000], eax
        END_QUIET
        TRY "user-fetch-nx"
        mov qword [V_START], 0
        RING3 0x90000
        END_QUIET
        TRY "reserved-bit"
        PAGE_AT 0x94000, (0x0008000000094007)
        mov eax, [0x94000]
        END
        TRY "accessed-dirty"
        PAGE_AT 0x95000, 0x95007
        mov rbx, [PTE64(0x95000)]
        SHOW " ", rbx
        mov eax, [0x95000]
        mov rbx, [PTE64(0x95000)]
        SHOW " ", rbx
        mov [0x95000], eax
        mov rbx, [PTE64(0x95000)]
        SHOW " ", rbx
        END
        TRY "probe-write-fault" ; CMPXCHG writes even when it fails: no, but it needs the right to
        PAGE_AT 0x96000, 0x96005
        mov rax, cr0
        bts rax, 16
        mov cr0, rax
        mov eax, 1
        cmpxchg [0x96000], ebx
        END
        mov rax, cr0
        btr rax, 16
        mov cr0, rax
        PAGE_AT 0x97000, 0x97007
        mov rax, cr4
        btr rax, 20
        mov cr4, rax
        ; SMAP: this program's pages become the supervisor's.
        mov rdi, PTE64(0)
        mov ecx, 0x60
.sup:   and byte [rdi], ~4
        add rdi, 8
        loop .sup
        mov rax, cr3
        mov cr3, rax
        mov rax, cr4
        or eax, 0x300000
        mov cr4, rax
        TRY "smap-read"
        mov eax, [0x97000]
        END
        TRY "smap-stac"
        stac
        mov eax, [0x97000]
        clac
        END
        TRY "smap-write"
        mov [0x97000], eax
        END
        TRY "smep-fetch"
        mov rax, 0x97000
        mov qword [V_START], 0
        jmp rax
        END
        TRY "smap-implicit"     ; descriptor tables are read whatever AC says
        mov word [0x96000], 1
        stac
        clac
        END
        mov rax, cr4
        and eax, ~0x300000
        mov cr4, rax
        mov rdi, PTE64(0)
        mov ecx, 0x60
.usr:   or byte [rdi], 4
        add rdi, 8
        loop .usr
        mov rax, cr3
        mov cr3, rax
        ; --- Global pages and PCIDs.
        TRY "global"
        PAGE_AT 0x98000, 0x98107
        mov eax, [0x98000]
        mov dword [0x98000], 0x98
        mov dword [0x99000], 0x99
        mov rax, 0x99107
        mov [PTE64(0x98000)], rax
        mov rax, cr3
        mov cr3, rax
        mov ebx, [0x98000]
        invlpg [0x98000]
        mov ebx, [0x98000]
        SHOW " then=", rbx
        END
        TRY "pcid"
        SKIP_QEMU
        mov rax, cr4
        bts rax, 17
        mov cr4, rax
        mov rax, cr3
        SHOW " ", rax
        or eax, 5
        mov cr3, rax
        mov rax, cr3
        SHOW " ", rax
        mov rax, PAGES
        bts rax, 63
        mov cr3, rax
        mov rax, cr3
        SHOW " ", rax
        END
        TRY "invpcid-type"
        SKIP_QEMU
        mov eax, 4
        invpcid rax, [0x1000]
        END
        TRY "invpcid-reserved"
        SKIP_QEMU
        mov qword [0x1000], 0x1000
        mov eax, 1
        invpcid rax, [0x1000]
        END
        TRY "invpcid-noncanonical"
        SKIP_QEMU
        mov qword [0x1000], 0
        mov rbx, HIGHBAD
        mov [0x1008], rbx
        xor eax, eax
        invpcid rax, [0x1000]
        END
        TRY "pcide-off-paging"  ; #GP while PCIDs are in use
        SKIP_QEMU
        mov rax, cr0
        btr rax, 31
        mov cr0, rax
        END
        mov rax, cr4
        btr rax, 17
        mov cr4, rax
        TRY "pae-off"
        SKIP_QEMU
        mov rax, cr4
        btr rax, 5
        mov cr4, rax
        END
        TRY "paging-off-64"
        SKIP_QEMU
        mov rax, cr0
        btr rax, 31
        mov cr0, rax
        END
        TRY "lme-while-paging"
        SKIP_QEMU
        mov ecx, 0xc0000080
        rdmsr
        btr eax, 8
        wrmsr
        END
        TRY "cr3-reserved"
        SKIP_QEMU
        mov rax, cr3
        bts rax, 60
        mov cr3, rax
        END
        TRY "cr4-reserved"
        SKIP_QEMU
        mov rax, cr4
        bts rax, 31
        mov cr4, rax
        END
        TRY "cr8"
        mov eax, 9
        mov cr8, rax
        mov rax, cr8
        SHOW " ", rax
        xor eax, eax
        mov cr8, rax
        END
        TRY "cr8-reserved"
        SKIP_QEMU
        mov eax, 16
        mov cr8, rax
        END
        TRY "dr7-high"
        SKIP_QEMU
        mov rax, 0x100000000
        mov dr7, rax
        END
        TRY "swapgs"
        MSR 0xc0000101, 0x1111
        MSR 0xc0000102, 0xffff800000002222
        swapgs
        mov ecx, 0xc0000101
        rdmsr
        SHOW " ", rax
        SHOW " ", rdx
        END
        TRY "fsgsbase-off"
        rdfsbase rax
        END
        FINISH64

bits 64
gate64: SHOW " cs=", [rsp + 8]
        mov ax, ss
        movzx eax, ax
        SHOW " ss=", rax
        SHOW " rsp=", rsp
        test byte [rsp + 8], 3
        jz .same
        SHOW " oldsp=", [rsp + 16]
        SHOW " oldss=", [rsp + 24]
.same:  o64 retf
gateptr: dd 0
        dw G1
gateptr3: dd 0
        dw G1 + 3
entry64: SHOW " r11=", r11
        mov ax, cs
        movzx eax, ax
        SHOW " cs=", rax
        mov ax, ss
        movzx eax, ax
        SHOW " ss=", rax
        SHOW " rsp=", rsp
        pushfq
        pop rax
        SHOW " fl=", rax
        mov rsp, [abs V_STACK]
        jmp [abs V_RESUME]
entry32: SAY " compat"
        jmp entry64
bits 32
