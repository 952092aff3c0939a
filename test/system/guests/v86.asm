; Virtual-8086 mode: what IOPL permits, the way in and out, VME and PVI.
%include "kit.inc"

%macro V86 2                    ; label of 16-bit code, EFLAGS (VM is added); DS = 100h, SS = 200h, SP = F0h
        push dword 0x500        ; GS, FS, DS, ES
        push dword 0x400
        push dword 0x100
        push dword 0x300
        push dword 0x200
        push dword 0xf0
        push dword (%2) | 0x20002
        push dword 0x1000
        push dword SEG16(%1)
        iretd
%endmacro
%macro RUN 3                    ; name, EFLAGS, 16-bit instructions up to an exception; EAX and EBX are told
        TRY %1
        xor eax, eax
        xor ebx, ebx
        V86 %%v, %2
bits 16
%%v:    %3
        ud2
bits 32
        END_WITH eax, ebx
%endmacro
%macro POPF_OF 2
        push %1 %2
  %ifidn %1, word
        popf
  %else
        popfd
  %endif
%endmacro
%define IOPL3 0x3000
%define VIF 0x80000
%define VIP 0x100000

        jmp main
far86:  mov bp, sp
        mov ax, [bp]
        mov bx, [bp + 2]
        ud2
int60:  mov bp, sp
        mov ax, [bp + 4]
        mov bx, [bp + 2]
        ud2
main:   START
        mov word [0x60 * 4], SEG16(int60)
        mov word [0x60 * 4 + 2], 0x1000
        TO_PM32
        LOAD_TSS
        mov ebp, 0
        TRY "enter"
        V86 .v1, 0
bits 16
.v1:    mov ax, cs
        mov bx, ds
        mov cx, ss
        mov dx, gs
        ud2
bits 32
        END_WITH eax, ebx, ecx, edx
        TRY "segments-after"    ; null in the handler
        V86 .v2, 0
bits 16
.v2:    ud2
bits 32
        END_WITH ebp
        RUN "mov-segment", 0, {mov ax, 0x1234}
        TRY "address"
        mov byte [0x1234], 0x77
        V86 .v3, 0
bits 16
.v3:    mov al, [0x234]
        mov bx, 0x123
        mov es, bx
        mov bl, [es:4]
        ud2
bits 32
        END_WITH eax, ebx
        TRY "limit"
        V86 .v4, 0
bits 16
.v4:    mov ax, [0xffff]
bits 32
        END_QUIET
;= limit #0000000d e=00000000 ip=ffff002e cs=00001000 fl=00020002 ss=00000200 sp=000000f0 ## QEMU does not look at limits
        RUN "cli", 0, cli
        RUN "sti", 0, sti
        RUN "pushf", 0, pushf
        RUN "popf", 0, popf
        RUN "iret", 0, iret
        RUN "int", 0, {int 0x60}
        RUN "int3", 0, int3
        mov byte [IDT32 + 3 * 8 + 5], 0xee
        RUN "int3-open", 0, int3
        RUN "hlt", IOPL3, hlt
        RUN "cli-iopl3", IOPL3 | 0x200, {cli}
        RUN "sti-iopl3", IOPL3, {sti}
        TRY "pushf-iopl3"
        V86 .v5, IOPL3 | 0x200
bits 16
.v5:    pushf
        pop ax
        pushfd
        pop ebx
        ud2
bits 32
        END_WITH eax, ebx
        TRY "popf-iopl3"        ; IOPL stays
        V86 .v6, IOPL3
bits 16
.v6:    push word 0x0ed7
        popf
        ud2
bits 32
        END_QUIET
        TRY "iret-iopl3"
        V86 .v7, IOPL3
bits 16
.v7:    push word 0x0246
        push word 0x1000
        push word SEG16(.v8)
        iret
        nop
.v8:    ud2
bits 32
        END_QUIET
        RUN "int-iopl3-dpl0", IOPL3, {int 0x60}
        RUN "int-iopl3", IOPL3, {int 0x30}
        RUN "lldt", IOPL3, {lldt ax}
        RUN "sldt", IOPL3, {sldt ax}
        RUN "lar", IOPL3, {lar ax, bx}
        RUN "arpl", IOPL3, {arpl ax, bx}
        RUN "mov-cr0", IOPL3, {mov eax, cr0}
        RUN "rdmsr", IOPL3, {rdmsr}
        RUN "lmsw", IOPL3, {lmsw ax}
        RUN "smsw", 0, {smsw ax}
        RUN "lgdt", IOPL3, {lgdt [0]}
        RUN "wbinvd", IOPL3, {wbinvd}
        RUN "far-call", 0, {call 0x1000:SEG16(far86)}
        RUN "divide", 0, {div bl}
        RUN "sysenter", 0, {sysenter}

        ; Ports are a matter of the map alone, whatever IOPL.
        RUN "out-allowed", 0, {out 0x80, al}
        or byte [TSS32 + 0x68 + 0x80 / 8], 1
        RUN "out-forbidden", IOPL3, {out 0x80, al}
        RUN "out-word-across", 0, {out 0x7f, ax}
        RUN "out-before", 0, {out 0x7f, al}
        and byte [TSS32 + 0x68 + 0x80 / 8], ~1

        ; Handlers at other levels.
        TRY "conforming-handler"
        mov dword [gdt + SPARE], 0x0000ffff
        mov dword [gdt + SPARE + 4], 0x00cf9f00
        mov word [IDT32 + 6 * 8 + 2], SPARE
        V86 .v9, 0
bits 16
.v9:    ud2
bits 32
        END_QUIET
;= conforming-handler #0000000d e=00000069 ip=ffff004b cs=00001000 fl=00020002 ss=00000200 sp=000000f0 ## QEMU does not set EXT for an earlier exception
        mov word [IDT32 + 6 * 8 + 2], CODE32

        ; VME.
%ifndef QEMU
        mov eax, cr4
        or eax, 3
        mov cr4, eax
%endif
        mov word [TSS32 + 0x66], 0x88
        mov eax, ds
        mov es, eax
        mov edi, TSS32 + 0x68
        mov ecx, 8
        xor eax, eax
        cld
        rep stosd
%macro RUN_VME 3
  %ifdef QEMU
        TRY %1
        END
  %else
        RUN %1, %2, {%3}
  %endif
%endmacro
        RUN_VME "vme-cli", VIF, {cli}
;= vme-cli #00000006 ip=ffff0033 cs=00001000 fl=00020002 ss=00000200 sp=000000f0 00000000 00000000 ## QEMU has no VME
        RUN_VME "vme-sti", 0, {sti}
;= vme-sti #00000006 ip=ffff0033 cs=00001000 fl=000a0002 ss=00000200 sp=000000f0 00000000 00000000 ## VME
        RUN_VME "vme-sti-vip", VIP, {sti}
;= vme-sti-vip #0000000d e=00000000 ip=ffff0032 cs=00001000 fl=00120002 ss=00000200 sp=000000f0 00000000 00000000 ## VME
        RUN_VME "vme-pushf", VIF, {pushf}
;= vme-pushf #00000006 ip=ffff0033 cs=00001000 fl=000a0002 ss=00000200 sp=000000ee 00000000 00000000 ## VME
%ifdef QEMU
        TRY "vme-pushf-value"
        END
        TRY "vme-popf"
        END
        TRY "vme-iret"
        END
%else
        TRY "vme-pushf-value"
        V86 .e1, VIF
bits 16
.e1:    pushf
        pop ax
        cli
        pushf
        pop bx
        ud2
bits 32
        END_WITH eax, ebx
        TRY "vme-popf"
        V86 .e2, 0
bits 16
.e2:    push word 0x7246
        popf
        ud2
bits 32
        END_QUIET
        TRY "vme-iret"
        V86 .e3, 0
bits 16
.e3:    push word 0x7246
        push word 0x1000
        push word SEG16(.e4)
        iret
.e4:    ud2
bits 32
        END_QUIET
%endif
;= vme-pushf-value #00000006 ip=ffff0033 cs=00001000 fl=00020002 ss=00000200 sp=000000f0 00003202 00003002 ## VME
;= vme-popf #00000006 ip=ffff0032 cs=00001000 fl=000a4046 ss=00000200 sp=000000f0 ## VME
;= vme-iret #00000006 ip=ffff0038 cs=00001000 fl=000a4046 ss=00000200 sp=000000f0 ## VME
        RUN_VME "vme-popf-tf", 0, {POPF_OF word, 0x100}
;= vme-popf-tf #0000000d e=00000000 ip=ffff0035 cs=00001000 fl=00020002 ss=00000200 sp=000000ee 00000000 00000000 ## VME
        RUN_VME "vme-popf-vip", VIP, {POPF_OF word, 0x200}
;= vme-popf-vip #0000000d e=00000000 ip=ffff0035 cs=00001000 fl=00120002 ss=00000200 sp=000000ee 00000000 00000000 ## VME
        RUN_VME "vme-pushfd", 0, {pushfd}
;= vme-pushfd #0000000d e=00000000 ip=ffff0032 cs=00001000 fl=00020002 ss=00000200 sp=000000f0 00000000 00000000 ## VME
        RUN_VME "vme-popfd", 0, {popfd}
;= vme-popfd #0000000d e=00000000 ip=ffff0032 cs=00001000 fl=00020002 ss=00000200 sp=000000f0 00000000 00000000 ## VME
        RUN_VME "vme-iretd", 0, {iretd}
;= vme-iretd #0000000d e=00000000 ip=ffff0032 cs=00001000 fl=00020002 ss=00000200 sp=000000f0 00000000 00000000 ## VME
        RUN_VME "vme-int", VIF | 0x200, {int 0x60}
;= vme-int #00000006 ip=fffee5db cs=00001000 fl=00020202 ss=00000200 sp=000000ea 00003202 00001000 ## VME
        RUN_VME "vme-int-iopl3", IOPL3 | 0x200, {int 0x60}
;= vme-int-iopl3 #00000006 ip=fffee555 cs=00001000 fl=00023002 ss=00000200 sp=000000ea 00003202 00001000 ## VME
        mov byte [TSS32 + 0x68 + 0x60 / 8], 1
        RUN_VME "vme-int-intercepted", 0, {int 0x60}
;= vme-int-intercepted #0000000d e=00000000 ip=ffff0032 cs=00001000 fl=00020002 ss=00000200 sp=000000f0 00000000 00000000 ## VME
        mov byte [TSS32 + 0x68 + 0x30 / 8], 1
        RUN_VME "vme-int-intercepted-iopl3", IOPL3, {int 0x30}
;= vme-int-intercepted-iopl3 #00000030 ip=ffff0034 cs=00001000 fl=00023002 ss=00000200 sp=000000f0 00000000 00000000 ## VME
        ; PVI.
%macro RUN_PVI 3
        TRY %1
  %ifdef QEMU
        END
  %else
        RING3_FLAGS %%u, %2 | 2
%%u:    %3
        ud2
        END_QUIET
  %endif
%endmacro
        RUN_PVI "pvi-sti", 0, {sti}
;= pvi-sti #00000006 ip=00000012 cs=00000033 fl=00080002 ss=0000003b sp=0005f000 ## QEMU has no PVI
        RUN_PVI "pvi-cli", VIF, {cli}
;= pvi-cli #00000006 ip=00000015 cs=00000033 fl=00000002 ss=0000003b sp=0005f000 ## PVI
        RUN_PVI "pvi-sti-vip", VIP, {sti}
;= pvi-sti-vip #0000000d e=00000000 ip=00000014 cs=00000033 fl=00100002 ss=0000003b sp=0005f000 ## PVI
        RUN_PVI "pvi-popf", 0, {POPF_OF dword, 0x246}
;= pvi-popf #00000006 ip=00000017 cs=00000033 fl=00000046 ss=0000003b sp=0005f000 ## PVI
%ifndef QEMU
        mov eax, cr4
        and eax, ~3
        mov cr4, eax
%endif
        FINISH32
