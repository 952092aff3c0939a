; Hardware task switches: JMP, CALL, INT and IRET through TSSs of 32 and 16 bits, and task gates.
%include "kit.inc"
%macro SET 4                    ; selector, base, limit, attributes
        mov dword [gdt + (%1 & ~7)], ((%2) & 0xffff) << 16 | ((%3) & 0xffff)
        mov dword [gdt + (%1 & ~7) + 4], ((%2) & 0xff000000) | (((%2) >> 16) & 0xff) | ((%4) << 8) | ((%3) & 0xf0000)
%endmacro
%define T1 (SPARE)              ; 32-bit
%define T2 (SPARE + 8)          ; 16-bit
%define TG (SPARE + 16)         ; task gate
%define TLDT (SPARE + 24)
%define TSS1 0x72000
%define TSS2 0x73000

; Fills the 32-bit TSS: entry, CS, SS, flags.
%macro TASK32 4
        mov dword [TSS1 + 32], %1
        mov dword [TSS1 + 76], %2
        mov dword [TSS1 + 80], %3
        mov dword [TSS1 + 36], %4
        mov dword [TSS1 + 40], 0xa0a0a0a0
        mov byte [gdt + T1 + 5], 0x89
%endmacro

;= call eax=a0a0a0a0 ecx=c1c1c1c1 edx=d2d2d2d2 ebx=b3b3b3b3 esp=00035ffc ebp=b5b5b5b5 esi=56565656 edi=d7d7d7d7 fl=00004002 gs=0000003b link=00000048 tr=00000068 back eax=00000000 ebx=12345678 fl=00000046 ok ## QEMU keeps arithmetic flags of the task that was left
;= call-saved-eip 000000de fl=00000002 eax=77777777 ## the same
;= gate eax=a0a0a0a0 ecx=c1c1c1c1 edx=d2d2d2d2 ebx=b3b3b3b3 esp=00035ffc ebp=b5b5b5b5 esi=56565656 edi=d7d7d7d7 fl=00004002 gs=0000003b link=00000048 tr=00000068 ok ## the same
;= iret-jmp-nt eax=a0a0a0a0 ecx=c1c1c1c1 edx=d2d2d2d2 ebx=b3b3b3b3 esp=00035ffc ebp=b5b5b5b5 esi=56565656 edi=d7d7d7d7 fl=00004002 gs=0000003b link=00000048 tr=00000068 saved=00000002 ok ## the same
;= bad-fs #0000000a e=00000048 ip=0000077b cs=00000008 fl=00004002 ## the same, and the fault is at the new task's first instruction
;= ldt ldtr=00000080 gs=0000000c type=00000093 after=00000000 ok ## QEMU does not mark segments accessed
;= ring3 #00000030 ip=0000005a cs=00000033 fl=00004002 ss=0000003b sp=00036000 ## arithmetic flags
;= v86 #00000006 ip=00000234 cs=00001000 fl=00024002 ss=00004000 sp=00000ff0 ## arithmetic flags
;= trap #00000001 ip=000004c1 cs=00000008 fl=00004002 dr6=ffff8ff0 eax=a0a0a0a0 ecx=c1c1c1c1 edx=d2d2d2d2 ebx=b3b3b3b3 esp=00035ffc ebp=b5b5b5b5 esi=56565656 edi=d7d7d7d7 fl=00004002 gs=00000000 link=00000048 tr=00000068 ok ## QEMU has no such trap

main:   START
        TO_PM32
        LOAD_TSS
        SET T1, TSS1, 0x67, 0x89
        SET T2, TSS2, 0x2b, 0x81
        mov dword [gdt + TG], T1 << 16
        mov dword [gdt + TG + 4], 0x8500
        mov edi, TSS1
        mov ecx, 0x2000 / 4
        xor eax, eax
        cld
        rep stosd
        mov dword [TSS1 + 4], TOPTSS - 0x1000
        mov dword [TSS1 + 8], DATA
        mov dword [TSS1 + 40], 0xa0a0a0a0
        mov dword [TSS1 + 44], 0xc1c1c1c1
        mov dword [TSS1 + 48], 0xd2d2d2d2
        mov dword [TSS1 + 52], 0xb3b3b3b3
        mov dword [TSS1 + 56], TOP0 - 0x2000
        mov dword [TSS1 + 60], 0xb5b5b5b5
        mov dword [TSS1 + 64], 0x56565656
        mov dword [TSS1 + 68], 0xd7d7d7d7
        mov dword [TSS1 + 72], DATA
        mov dword [TSS1 + 84], DATA
        mov dword [TSS1 + 88], 0
        mov dword [TSS1 + 92], USERD
        mov word [TSS1 + 102], 0x68

        TRY "call"
        TASK32 task1, CODE32, DATA, 2
        mov ebx, 0x12345678
        call T1:0
        SHOW " back eax=", eax
        SHOW " ebx=", ebx
        pushfd
        pop eax
        SHOW " fl=", eax
        END
        call types
        sub dword [TSS1 + 32], task1
        SHOW "call-saved-eip ", [TSS1 + 32]
        SHOW " fl=", [TSS1 + 36]
        SHOW " eax=", [TSS1 + 40]
        NL
        TRY "ts-set"
        mov eax, cr0
        and eax, 8
        SHOW " ", eax
        clts
        END
        TRY "jmp"
        TASK32 task1jmp, CODE32, DATA, 0x4002
        jmp T1:0
        SAY " back"
        END
        call types
        TRY "call-busy"
        mov byte [gdt + T1 + 5], 0x8b
        call T1:0
        END
        TRY "call-absent"
        mov byte [gdt + T1 + 5], 0x09
        call T1:0
        END
        TRY "call-short"
        mov byte [gdt + T1 + 5], 0x89
        mov byte [gdt + T1], 0x66
        call T1:0
        END
        mov byte [gdt + T1], 0x67
        TRY "call-dpl"
        RING3 .u1
.u1:    call (T1 + 3):0
        END_QUIET
        TRY "gate"
        TASK32 task1, CODE32, DATA, 2
        call TG:0
        END
        TRY "gate-user"         ; the gate's privilege counts, not the TSS's
        TASK32 task1, CODE32, DATA, 2
        or byte [gdt + TG + 5], 0x60
        RING3 .u2
.u2:    call (TG + 3):0
        int 0x30
        END_QUIET
        TRY "int-gate"
        TASK32 task1, CODE32, DATA, 2
        mov dword [IDT32 + 0x31 * 8], T1 << 16
        mov dword [IDT32 + 0x31 * 8 + 4], 0xe500
        int 0x31
        SAY " back"
        END
        TRY "exception-gate"    ; with an error code on the new stack
        TASK32 taskgp, CODE32, DATA, 2
        mov dword [IDT32 + 13 * 8], T1 << 16
        mov dword [IDT32 + 13 * 8 + 4], 0x8500
        mov eax, 0x1f8
        mov fs, ax
.after: SAY " back"
        END
        sub dword [TSS32 + 32], main
        SHOW "exception-saved ", [TSS32 + 32]
        SHOW " fl=", [TSS32 + 36]
        NL
        call restore13

        TRY "iret-jmp-nt"       ; NT cleared in what IRET saves
        TASK32 task1, CODE32, DATA, 2
        call T1:0
        SHOW " saved=", [TSS1 + 36]
        END
        TRY "bad-fs"
        TASK32 task1, CODE32, DATA, 2
        mov dword [TSS1 + 88], TSS
        call T1:0
        END
        mov dword [TSS1 + 88], 0
        call reload
        TRY "ldt"
        SET TLDT, 0x71000, 0xf, 0x82
        mov dword [0x71008], 0x0000ffff
        mov dword [0x7100c], 0x00cf9200
        TASK32 taskldt, CODE32, DATA, 2
        mov dword [TSS1 + 96], TLDT
        mov dword [TSS1 + 92], 0x0c
        call T1:0
        sldt eax
        SHOW " after=", eax
        END
        mov dword [TSS1 + 96], 0
        mov dword [TSS1 + 92], 0
        TRY "ring3"
        TASK32 .user, USER32, USERD, 2
        mov dword [TSS1 + 72], USERD
        mov dword [TSS1 + 84], USERD
        call T1:0
        jmp .user_end
.user:  mov ecx, ds
        int 0x30
.user_end:
        END
        mov dword [TSS1 + 72], DATA
        mov dword [TSS1 + 84], DATA
        call reload
        TRY "v86"
        TASK32 0x234, 0x1000, 0x4000, 0x20002
        mov dword [V_START], 0
        mov dword [TSS1 + 56], 0xff0
        mov byte [0x10234], 0x0f
        mov byte [0x10235], 0x0b
        call T1:0
        END
        mov dword [TSS1 + 56], TOP0 - 0x2000
        call reload
        TRY "trap"              ; T: a debug exception before the first instruction
        TASK32 task1, CODE32, DATA, 2
        mov byte [TSS1 + 100], 1
        STEPPING 3
        call T1:0
        STEPPED
        END
        mov byte [TSS1 + 100], 0
        TRY "local-breakpoints"
        TASK32 task1, CODE32, DATA, 2
        mov eax, 0x3ff
        mov dr7, eax
        call T1:0
        mov eax, dr7
        SHOW " dr7=", eax
        xor eax, eax
        mov dr7, eax
        END
        TRY "iret-no-link"
        pushfd
        or dword [esp], 0x4000
        popfd
        mov word [TSS32], TLDT
        iretd
        END
        pushfd
        and dword [esp], ~0x4000
        popfd
        TRY "iret-not-busy"
        pushfd
        or dword [esp], 0x4000
        popfd
        mov word [TSS32], T1
        mov byte [gdt + T1 + 5], 0x89
        iretd
        END
        pushfd
        and dword [esp], ~0x4000
        popfd

        ; 16 bits.
        mov word [TSS2 + 14], SEG16(task16)
        mov word [TSS2 + 16], 2
        mov word [TSS2 + 18], 0x1616
        mov word [TSS2 + 26], 0xff00
        mov word [TSS2 + 34], DATA
        mov word [TSS2 + 36], CODE16
        mov word [TSS2 + 38], DATA
        mov word [TSS2 + 40], DATA
        TRY "call-16"
        mov ebx, 0x12345678
        call T2:0
        SHOW " ebx=", ebx
        movzx eax, word [TSS2 + 18]
        SHOW " ax=", eax
        movzx eax, word [TSS2]
        SHOW " link=", eax
        END
        call types
        ; CR3.
        call map32
        mov dword [PAGES + 0x4000], PAGES + 0x5007
        mov esi, PAGES + 0x1000
        mov edi, PAGES + 0x5000
        mov ecx, 1024
        rep movsd
        mov dword [PAGES + 0x5000 + 0x90 * 4], 0x91007
        mov dword [0x90000], 0x90909090
        mov dword [0x91000], 0x91919191
        mov eax, PAGES
        mov cr3, eax
        mov [TSS32 + 28], eax
        mov eax, cr0
        or eax, 0x80000000
        mov cr0, eax
        TRY "cr3"
        TASK32 taskcr3, CODE32, DATA, 2
        mov dword [TSS1 + 28], PAGES + 0x4000
        SHOW " ", [0x90000]
        call T1:0
        SHOW " ", [0x90000]
        mov eax, cr3
        SHOW " cr3=", eax
        END
        mov eax, cr0
        and eax, 0x7fffffff
        mov cr0, eax
        mov esp, TOP0
        FINISH32

types:  movzx eax, byte [gdt + TSS + 5]
        SHOW "types ", eax
        movzx eax, byte [gdt + T1 + 5]
        SHOW " ", eax
        movzx eax, byte [gdt + T2 + 5]
        SHOW " ", eax
        str eax
        SHOW " tr=", eax
        pushfd
        pop eax
        and eax, 0x4000
        SHOW " nt=", eax
        NL
        ret
; After a fault in another task: the first task's TSS is made current again.
reload: pushfd
        and dword [esp], ~0x4000
        popfd
        mov byte [gdt + TSS + 5], 0x89
        mov eax, TSS
        ltr ax
        mov eax, DATA
        mov ds, eax
        mov es, eax
        mov fs, eax
        mov gs, eax
        xor eax, eax
        lldt ax
        clts
        ret
restore13:
        mov eax, [IDT32 + 12 * 8]
        add eax, stub32_13 - stub32_12
        mov [IDT32 + 13 * 8], eax
        mov eax, [IDT32 + 12 * 8 + 4]
        mov [IDT32 + 13 * 8 + 4], eax
        ret

task1:  pushfd
        SHOW " eax=", eax
        SHOW " ecx=", ecx
        SHOW " edx=", edx
        SHOW " ebx=", ebx
        SHOW " esp=", esp
        SHOW " ebp=", ebp
        SHOW " esi=", esi
        SHOW " edi=", edi
        pop eax
        SHOW " fl=", eax
        mov eax, gs
        SHOW " gs=", eax
        movzx eax, word [TSS1]
        SHOW " link=", eax
        str eax
        SHOW " tr=", eax
        mov eax, 0x77777777
        iretd
task1jmp:
        SAY " there"
        pushfd
        and dword [esp], ~0x4000
        popfd
        jmp TSS:0
taskgp: pop eax
        SHOW " error=", eax
        mov eax, [TSS32 + 32]
        add dword [TSS32 + 32], 2
        iretd
taskldt:
        sldt eax
        SHOW " ldtr=", eax
        mov eax, gs
        SHOW " gs=", eax
        movzx eax, byte [0x7100d]
        SHOW " type=", eax
        iretd
taskcr3:
        SHOW " in=", [0x90000]
        iretd
bits 16
task16: push ax
        pop bx
        mov ax, 0x6161
        iret
bits 32
