; Debug exceptions of 32-bit code: single step, breakpoints, general detect, RF, MOV SS, task traps.
%include "kit.inc"

%macro BREAK 3                  ; address, bits of DR7 for its kind and length, its number
        mov eax, %1
        mov dr%3, eax
        mov eax, (2 << (2 * %3)) | ((%2) << (16 + 4 * %3))
        mov dr7, eax
%endmacro
%macro UNBREAK 0
        xor eax, eax
        mov dr7, eax
%endmacro
%define EXEC 0
%define WRITE1 1
%define WRITE2 5
%define WRITE4 13
%define ACCESS1 3
%define ACCESS4 15
%define PORT1 2
%define PORT4 14
%macro TFON 0
        pushfd
        or dword [esp], 0x100
        popfd
%endmacro
%macro TFOFF 0
        pushfd
        and dword [esp], ~0x100
        popfd
%endmacro

;= step-rep #00000001 ip=0000002a cs=00000008 fl=00010146 dr6=ffff4ff0 #00000001 ip=0000002a cs=00000008 fl=00010146 dr6=ffff4ff0 #00000001 ip=0000002c cs=00000008 fl=00000146 dr6=ffff4ff0 #00000001 ip=0000002d cs=00000008 fl=00000146 dr6=ffff4ff0 #00000001 ip=00000034 cs=00000008 fl=00000102 dr6=ffff4ff0 #00000001 ip=00000035 cs=00000008 fl=00000046 dr6=ffff4ff0 ok ## between elements RF is pushed as 1
;= step-fault #00000006 ip=00000027 cs=00000008 fl=00010146 #00000001 ip=0000002a cs=00000008 fl=00000146 dr6=ffff4ff0 #00000001 ip=0000002b cs=00000008 fl=00000146 dr6=ffff4ff0 #00000001 ip=00000032 cs=00000008 fl=00000102 dr6=ffff4ff0 #00000001 ip=00000033 cs=00000008 fl=00000046 dr6=ffff4ff0 ok ## faults push RF as 1
;= step-sti #00000001 ip=0000001e cs=00000008 fl=00000346 dr6=ffff4ff0 #00000001 ip=0000001f cs=00000008 fl=00000346 dr6=ffff4ff0 #00000001 ip=00000020 cs=00000008 fl=00000146 dr6=ffff4ff0 #00000001 ip=00000021 cs=00000008 fl=00000146 dr6=ffff4ff0 #00000001 ip=00000028 cs=00000008 fl=00000102 dr6=ffff4ff0 #00000001 ip=00000029 cs=00000008 fl=00000046 dr6=ffff4ff0 ok ## STI holds back interrupts, not traps
;= icebp #00000001 ip=00000015 cs=00000008 fl=00000046 dr6=ffff0ff0 ok ## QEMU makes it an invalid opcode
;= icebp-user #00000001 ip=00000011 cs=00000033 fl=00000046 ss=0000003b sp=0005f000 dr6=ffff0ff0 ## the same
;= int1-user #0000000d e=0000000a ip=00000010 cs=00000033 fl=00010046 ss=0000003b sp=0005f000 ## RF
;= exec-after-mov-ss ok ## SDM vol. 3, 7.8.3
;= exec-rep #00000001 ip=0000003c cs=00000008 fl=00000046 dr6=ffff0ff1 ok ## RF holds for all elements
;= exec-user #00000001 ip=0000003e cs=00000033 fl=00000046 ss=0000003b sp=0005f000 dr6=ffff0ff1 #00000030 ip=00000041 cs=00000033 fl=00000046 ss=0000003b sp=0005f000 #00000006 ip=00000042 cs=00000033 fl=00010046 ss=0000003b sp=0005f000 ## RF lasts one instruction
;= write-2 #00000001 ip=00000029 cs=00000008 fl=00000046 dr6=ffff0ff4 ok ## SDM vol. 3, 19.2.5: the length masks the address
;= rep-movs #00000001 ip=00000033 cs=00000008 fl=00010046 dr6=ffff0ff1 ecx=00000000 ok ## RF
;= rep-movs-read #00000001 ip=00000033 cs=00000008 fl=00010046 dr6=ffff0ff1 ok ## RF
;= data-step #00000001 ip=00000032 cs=00000008 fl=00000146 dr6=ffff4ff1 #00000001 ip=00000033 cs=00000008 fl=00000146 dr6=ffff4ff0 #00000001 ip=0000003a cs=00000008 fl=00000102 dr6=ffff4ff0 #00000001 ip=0000003b cs=00000008 fl=00000046 dr6=ffff4ff0 ok ## QEMU reports it in the middle of an instruction
;= mov-ss-data #00000001 ip=00000031 cs=00000008 fl=00000046 dr6=ffff0ff1 ok ## SDM vol. 3, 7.8.3
;= port-without-de ok ## undefined without CR4.DE
;= port-outs #00000001 ip=00000033 cs=00000008 fl=00010046 dr6=ffff0ff1 #00000001 ip=00000035 cs=00000008 fl=00000046 dr6=ffff0ff1 ok ## QEMU reports the last only
;= dr4-with-de #00000006 ip=00000000 cs=00000008 fl=00010046 ## RF
;= general-detect #00000001 ip=0000001c cs=00000008 fl=00010046 dr6=ffff2ff0 ## QEMU has none
;= general-detect-cleared 00000400 ## QEMU has none
;= dr6-bits ffff0ff0 ffffefff ffff0400 00000400 ok ## bit 12 is zero
;= dr-user #0000000d e=00000000 ip=00000010 cs=00000033 fl=00010046 ss=0000003b sp=0005f000 ## RF

main:   START
        mov dword [V_FLAGS], ~0
        TO_PM32
        LOAD_TSS
        mov byte [IDT32 + 3 * 8 + 5], 0xee

        TRY "step"
        STEPPING 20
        TFON
        nop
        nop
        TFOFF
        nop
        STEPPED
        END
        TRY "step-branch"
        STEPPING 20
        TFON
        jmp short .s1
        nop
.s1:    call .s2
        TFOFF
        STEPPED
        jmp .s3
.s2:    ret
.s3:    END
        TRY "step-rep"          ; a trap after each element
        STEPPING 20
        mov edi, 0x1000
        mov ecx, 3
        cld
        xor eax, eax
        TFON
        rep stosb
        TFOFF
        STEPPED
        END
        TRY "step-rep-zero"
        STEPPING 20
        xor ecx, ecx
        TFON
        rep stosb
        TFOFF
        STEPPED
        END
        TRY "step-mov-ss"       ; no trap between MOV SS and the next instruction
        STEPPING 20
        mov eax, ss
        TFON
        mov ss, eax
        nop
        TFOFF
        STEPPED
        END
        TRY "step-int"          ; the handler is not stepped through; the trap comes after IRET's next instruction
        STEPPING 20
        TFON
        int 0x30
        nop
        TFOFF
        STEPPED
        END
        TRY "step-popf-clears"
        STEPPING 20
        pushfd
        TFON
        popfd
        nop
        STEPPED
        END
        TRY "step-iret-sets"
        STEPPING 20
        pushfd
        or dword [esp], 0x100
        push dword CODE32
        push dword .s4
        iretd
.s4:    nop
        TFOFF
        STEPPED
        END
        TRY "step-fault"        ; the fault comes first, without a trap
        STEPPING 9
        mov dword [V_HOOK], .skip
        TFON
        ud2
        nop
        TFOFF
        STEPPED
        jmp .s5
.skip:  call log32
        cmp dword [ebp + 32], 6
        jne .s6
        add dword [ebp + 40], 2
        inc dword [V_COUNT]
.s6:    ret
.s5:    END
        mov dword [V_HOOK], 0
        TRY "step-io"
        STEPPING 20
        TFON
        in al, 0x80
        TFOFF
        STEPPED
        END
        TRY "step-cpuid"
        STEPPING 20
        xor eax, eax
        TFON
        cpuid
        TFOFF
        STEPPED
        END
        TRY "step-sti"
        STEPPING 20
        TFON
        sti
        nop
        cli
        TFOFF
        STEPPED
        END
        TRY "step-div"
        STEPPING 20
        mov eax, 9
        cdq
        mov ecx, 2
        TFON
        div ecx
        TFOFF
        STEPPED
        END
        TRY "step-fpu"
        fninit
        STEPPING 20
        TFON
        fld1
        fstp st0
        TFOFF
        STEPPED
        END
        TRY "icebp"
        STEPPING 1
        db 0xf1
        STEPPED
        END
        TRY "icebp-user"        ; whatever the gate's DPL
  %ifdef QEMU
        jmp .u1
  %endif
        RING3 .u1
.u1:
  %ifndef QEMU
        db 0xf1
  %endif
        END_QUIET
        TRY "int1-user"         ; but INT 1 is subject to it
        RING3 .u2
.u2:    int 1
        END_QUIET

        ; Instruction breakpoints.
        TRY "exec"
        RESUMING 5
        BREAK .x1, EXEC, 0
        nop
.x1:    nop
        nop
        UNBREAK
        STEPPED
        END
        TRY "exec-not-reached"
        RESUMING 5
        BREAK .x2 + 1, EXEC, 1
.x2:    mov ebx, 0x12345678
        UNBREAK
        STEPPED
        END
        TRY "exec-without-rf"   ; it comes again
        STEPPING 3
        BREAK .x3, EXEC, 2
.x3:    nop
        END_QUIET
        STEPPED
        UNBREAK
        TRY "exec-loop"
        RESUMING 9
        BREAK .x4, EXEC, 3
        mov ecx, 3
.x4:    loop .x4
        UNBREAK
        STEPPED
        END
        TRY "exec-after-mov-ss" ; put off, and lost
        RESUMING 5
        BREAK .x5, EXEC, 0
        mov eax, ss
        mov ss, eax
.x5:    nop
        UNBREAK
        STEPPED
        END
        TRY "exec-two"          ; both are told, also the one that is not enabled
        RESUMING 5
        mov eax, .x6
        mov dr1, eax
        BREAK .x6, EXEC, 0
.x6:    nop
        UNBREAK
        STEPPED
        END
        TRY "exec-step"
        RESUMING 9
        BREAK .x7, EXEC, 0
        TFON
.x7:    nop
        TFOFF
        UNBREAK
        STEPPED
        END
        TRY "exec-rep"          ; once, not at each element
        RESUMING 9
        BREAK .x8, EXEC, 0
        mov edi, 0x1000
        mov ecx, ds
        mov es, ecx
        mov ecx, 4
.x8:    rep stosb
        UNBREAK
        STEPPED
        END
        TRY "exec-invalid"      ; before the exception of the instruction
        BREAK .x9, EXEC, 0
.x9:    ud2
        END_QUIET
        UNBREAK
        TRY "exec-user"
        RESUMING 2
        BREAK .x10, EXEC, 0
        RING3 .x10
.x10:   nop
        int 0x30
        nop
        ud2
        END_QUIET
        STEPPED
        UNBREAK
        mov eax, DATA
        mov es, ax
        TRY "iret-rf"           ; IRET with RF: one instruction without
        RESUMING 9
        BREAK .x11, EXEC, 0
        pushfd
        or dword [esp], 0x10000
        push dword CODE32
        push dword .x11
        iretd
.x11:   nop
        jmp .x12
.x12:   pushfd
        pop eax
        SHOW " fl=", eax
        UNBREAK
        STEPPED
        END

        ; Data breakpoints.
        mov dword [0x1000], 0
        TRY "write"
        STEPPING 9
        BREAK 0x1000, WRITE4, 0
        mov eax, [0x1000]
        mov [0x1000], eax
        nop
        mov [0x1003], al
        mov [0x0ffd], eax
        mov [0x1004], eax
        mov [0x0ffc], eax
        UNBREAK
        STEPPED
        END
        TRY "access"
        STEPPING 9
        BREAK 0x1001, ACCESS1, 1
        mov al, [0x1000]
        mov al, [0x1001]
        mov ax, [0x1000]
        mov al, [0x1002]
        add dword [0x1000], 1
        UNBREAK
        STEPPED
        END
        TRY "write-2"           ; the address is aligned by the length
        STEPPING 9
        BREAK 0x1003, WRITE2, 2
        mov [0x1002], al
        mov [0x1004], al
        UNBREAK
        STEPPED
        END
        TRY "push"
        STEPPING 9
        BREAK TOP0 - 4, WRITE4, 3
        push eax
        pop eax
        UNBREAK
        STEPPED
        END
        TRY "rep-movs"
        STEPPING 9
        BREAK 0x1105, WRITE1, 0
        mov esi, 0x1000
        mov edi, 0x1100
        mov ecx, 8
        rep movsb
        UNBREAK
        STEPPED
        SHOW " ecx=", ecx
        END
        TRY "rep-movs-read"
        STEPPING 9
        BREAK 0x1004, ACCESS4, 0
        mov esi, 0x1000
        mov edi, 0x1100
        mov ecx, 4
        rep movsd
        UNBREAK
        STEPPED
        END
        TRY "data-step"
        STEPPING 9
        BREAK 0x1000, WRITE4, 0
        TFON
        mov [0x1000], eax
        TFOFF
        UNBREAK
        STEPPED
        END
        TRY "mov-ss-data"       ; reported after the instruction that follows
        STEPPING 9
        mov [0x1000], ss
        BREAK 0x1000, ACCESS1, 0
        mov ss, [0x1000]
        nop
        nop
        UNBREAK
        STEPPED
        END
        TRY "cmpxchg"
        STEPPING 9
        BREAK 0x1000, WRITE4, 0
        lock cmpxchg [0x1000], ebx
        xchg [0x1000], ebx
        UNBREAK
        STEPPED
        END
        TRY "fpu-store"
        STEPPING 9
        BREAK 0x1000, WRITE4, 0
        fld1
        fstp qword [0x0ffc]
        UNBREAK
        STEPPED
        END
        TRY "same-page"         ; others on the page are not reported
        STEPPING 9
        BREAK 0x1000, ACCESS4, 0
        mov ecx, 100
.d1:    inc dword [0x1080]
        loop .d1
        UNBREAK
        STEPPED
        END
        TRY "disabled"
        STEPPING 9
        BREAK 0x1000, WRITE4, 0
        UNBREAK
        mov [0x1000], eax
        STEPPED
        END

        ; Ports.
        TRY "port-without-de"
        STEPPING 9
        BREAK 0x80, PORT1, 0
        out 0x80, al
        UNBREAK
        STEPPED
        END
        mov eax, cr4
        or eax, 8
        mov cr4, eax
        TRY "port"
        STEPPING 9
        BREAK 0x80, PORT1, 0
        out 0x80, al
        in al, 0x81
        in al, 0x80
        UNBREAK
        STEPPED
        END
        TRY "port-outs"
        STEPPING 9
        BREAK 0x80, PORT1, 0
        mov edx, 0x80
        mov esi, 0x1000
        mov ecx, 2
        rep outsb
        UNBREAK
        STEPPED
        END
        TRY "dr4-with-de"
        mov eax, dr4
        END
        mov eax, cr4
        and eax, ~8
        mov cr4, eax
        TRY "dr4"
        mov eax, dr4
        SHOW " ", eax
        mov eax, dr5
        SHOW " ", eax
        END

        ; Registers.
        TRY "general-detect"
        STEPPING 0
        mov eax, 0x2000
        mov dr7, eax
        mov eax, dr0
        END_QUIET
        STEPPED
        mov eax, dr7
        SHOW "general-detect-cleared ", eax
        NL
        TRY "dr6-bits"
        xor eax, eax
        mov dr6, eax
        mov eax, dr6
        SHOW " ", eax
        mov eax, -1
        mov dr6, eax
        mov eax, dr6
        SHOW " ", eax
        mov eax, 0xffff0ff0
        mov dr6, eax
        mov eax, 0xffffdfff     ; all of DR7 but GD
        and eax, 0xffff0000
        mov dr7, eax
        mov eax, dr7
        SHOW " ", eax
        xor eax, eax
        mov dr7, eax
        mov eax, dr7
        SHOW " ", eax
        END
        TRY "dr-user"
        RING3 .u3
.u3:    mov eax, dr0
        END_QUIET
        TRY "shadow-sti"
        STEPPING 3
        sti
        nop
        cli
        STEPPED
        END
        FINISH32
