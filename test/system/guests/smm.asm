; System management mode: SMIs by the APM port, SMRAM, the save area, relocation, RSM, blocking.
; The handler is copied to 38000h first, then to A8000h, where SMRAM is relocated to.
%include "kit.inc"

%macro PCI 3                    ; register (with device and function), byte, out value
        mov eax, 0x80000000 | (%1)
        mov dx, 0xcf8
        out dx, eax
        mov dx, 0xcfc + ((%1) & 3)
        mov al, %3
        out dx, al
%endmacro
%macro SMRAM 1
        PCI 0x70 | 2, 0, %1
%endmacro
%define COMMAND 0x1000          ; what the handler is to do; results follow
%define R(n) (0x1010 + 4 * (n))

;= smram-closed 0000 ok ## QEMU without a display lets RAM show there
;= smram-hidden 0001 ok ## the same

main:   START
        SMRAM 0x02
        TO_PM32
        TRY "rsm-outside"
        rsm
        END
        TO_REAL
        PCI 0xb58 | 3, 0, 2     ; PIIX4 power management, DEVACTB: APM writes raise SMIs
        ; The first handler.
        mov ax, 0x3000
        mov es, ax
        mov si, SEG16(handler)
        mov di, 0x8000
        mov cx, handler_end - handler
        cld
.copy:  mov al, [cs:si]
        mov [es:di], al
        inc si
        inc di
        loop .copy
        xor ax, ax
        mov es, ax
        mov dword [COMMAND], 0
        TRY "first"
        mov ebx, 0x12345678
        mov ecx, 0xcafe
        mov al, 0x55
        out 0xb2, al
        SHOW " ran=", [COMMAND]
        SHOW " bx=", bx
        END
        SHOW "entry-ip ", [R(0)]
        SHOW " cs=", [R(1)]
        SHOW " ss=", [R(2)]
        SHOW " ds=", [R(3)]
        SHOW " fl=", [R(4)]
        SHOW " cr0=", [R(5)]
        NL
        SHOW "saved-revision ", [R(6)]
        SHOW " ", [R(6) + 2]
        SHOW " base=", [R(7) + 2]
        SHOW " bx=", [R(8)]
        SHOW " cx=", [R(9)]
        SHOW " cs=", [R(10)]
        SHOW " attr=", [R(10) + 2]
        SHOW " limit=", [R(11)]
        SHOW " csbase=", [R(12)]
        SHOW " ", [R(12) + 2]
        NL
        TRY "edit"              ; the handler changes registers in the save area
        mov dword [COMMAND], 1
        mov ebx, 0
        mov al, 0x55
        out 0xb2, al
        SHOW " bx=", bx
        END
        TRY "skip"              ; and where to go on
        mov dword [COMMAND], 2
        mov al, 0x55
        out 0xb2, al
        ud2
skipped:
        END
        TRY "blocked"           ; an SMI in SMM waits until after RSM
        mov dword [COMMAND], 3
        mov word [R(13)], 0
        mov al, 0x55
        out 0xb2, al
        SHOW " runs=", [R(13)]
        SHOW " at-first-end=", [R(14)]
        END
        TRY "acpi-commands"     ; those that switch ACPI mode are no SMIs here
        mov dword [COMMAND], 9
        mov al, 0xf1
        out 0xb2, al
        SHOW " ", [COMMAND]
        mov al, 0xf0
        out 0xb2, al
        END
        TRY "disabled"
        PCI 0xb58 | 3, 0, 0
        mov al, 0x55
        out 0xb2, al
        SHOW " ", [COMMAND]
        PCI 0xb58 | 3, 0, 2
        END

        ; SMRAM open: RAM shows at A0000h.
        mov ax, 0xa800
        mov es, ax
        TRY "smram-closed"
        mov word [es:0x7000], 0x1234
        mov ax, [es:0x7000]
        cmp ax, 0x1234
        sete al
        movzx ax, al
        SHOW " ", ax
        END
        SMRAM 0x4a
        TRY "smram-open"
        mov word [es:0x7000], 0x5678
        mov ax, [es:0x7000]
        SHOW " ", ax
        END
        mov si, SEG16(handler2)
        mov di, 0
        mov cx, handler2_end - handler2
.copy2: mov al, [cs:si]
        mov [es:di], al
        inc si
        inc di
        loop .copy2
        SMRAM 0x0a
        TRY "smram-hidden"
        mov ax, [es:0x7000]
        cmp ax, 0x5678
        setne al
        movzx ax, al
        SHOW " ", ax
        END
        TRY "relocate"
        mov dword [COMMAND], 4
        mov al, 0x55
        out 0xb2, al
        SHOW " ", [COMMAND]
        END
        TRY "relocated"         ; the second handler sees what is hidden
        mov dword [COMMAND], 0
        mov al, 0x55
        out 0xb2, al
        SHOW " ran=", [COMMAND]
        SHOW " cs=", [R(0)]
        SHOW " hidden=", [R(1)]
        END
        xor ax, ax
        mov es, ax
        TO_PM32
        LOAD_TSS
        TRY "from-pm"
        mov dword [COMMAND], 0
        mov eax, 0x55555555
        mov ebx, cr0
        out 0xb2, al
        mov edx, cr0
        sub edx, ebx
        SHOW " cr0=", edx
        SHOW " ran=", [COMMAND]
        END
        TRY "from-user"
        mov dword [COMMAND], 0
        RING3_FLAGS .u1, 0x3002
.u1:    mov eax, 0x55
        out 0xb2, al
        int 0x30
        END_QUIET
        SHOW "from-user-ran ", [COMMAND]
        NL
        TRY "halt-restart"      ; RSM goes back into HLT unless the handler says otherwise
        mov dword [COMMAND], 5
        mov eax, 0x55
        out 0xb2, al
        movzx eax, word [R(2)]
        SHOW " halted=", eax
        END
        TO_LONG
        TRY "from-long"
        mov dword [abs COMMAND], 6
        mov rbx, 0x123456789abcdef0
        mov r15, 0xfedcba9876543210
        mov eax, 0x55
        out 0xb2, al
        SHOW " rbx=", rbx
        SHOW " r15=", r15
        mov ecx, 0xc0000080
        rdmsr
        and eax, 0xd00
        SHOW " efer=", rax
        mov rax, cr4
        SHOW " cr4=", rax
        END
        SHOW "from-long-efer ", [abs R(3)]
        SHOW " cr3=", [abs R(5)]
        SHOW " attr=", [abs R(9)]
        NL
        FROM_LONG
        ; Back to the default place for the next pass.
        mov dword [COMMAND], 7
        mov eax, 0x55
        out 0xb2, al
        TRY "lock"              ; until a reset
        mov eax, 0x80000070
        mov edx, 0xcf8
        out dx, eax
        mov edx, 0xcfe
        mov al, 0x5a
        out dx, al
        in al, dx
        movzx ebx, al
        mov al, 0x02
        out dx, al
        in al, dx
        movzx ecx, al
        END_WITH ebx, ecx
;= lock 0000001a 0000001a ## QEMU does not lock
        FINISH32

bits 16
; At 3000:8000, DS = 0.
handler:
        cmp word [COMMAND], 1
        je .edit
        cmp word [COMMAND], 2
        je .skip
        cmp word [COMMAND], 3
        je .again
        cmp word [COMMAND], 4
        je .move
        cmp word [COMMAND], 9
        je .count
        pushfd                  ; SP is the interrupted code's, SS = 0
        pop dword [R(4)]
        call .ip
.ip:    pop ax
        sub ax, .ip - handler
        mov [R(0)], ax
        mov [R(1)], cs
        mov [R(2)], ss
        mov [R(3)], ds
        mov eax, cr0
        and al, 0x0d
        mov [R(5)], ax
        mov eax, [cs:0xfefc]
        mov [R(6)], eax
        mov eax, [cs:0xff00]
        mov [R(7)], eax
        mov eax, [cs:0xffe0]
        mov [R(8)], eax
        mov eax, [cs:0xfff0]
        mov [R(9)], eax
        mov eax, [cs:0xfe10]
        mov [R(10)], eax
        mov eax, [cs:0xfe14]
        mov [R(11)], eax
        mov eax, [cs:0xfe18]
        mov [R(12)], eax
        mov word [COMMAND], 0x600d
        rsm
.edit:  mov dword [cs:0xffe0], 0x4321
        rsm
.skip:  mov dword [cs:0xff78], SEG16(skipped)
        rsm
.again: inc word [R(13)]
        cmp word [R(13)], 1
        jne .done
        mov al, 0x55
        out 0xb2, al
        nop
        nop
        mov ax, [R(13)]
        mov [R(14)], ax
.done:  rsm
.move:  mov dword [cs:0xff00], 0xa0000
        rsm
.count: inc word [COMMAND]
        rsm
handler_end:
; At A000:8000.
handler2:
        cmp word [COMMAND], 5
        je .halted
        cmp word [COMMAND], 6
        je .long
        cmp word [COMMAND], 7
        je .back
        mov [R(0)], cs
        mov ax, [cs:0xf000]
        mov [R(1)], ax
        mov word [COMMAND], 0x600e
        rsm
.halted: movzx ax, byte [cs:0xfec9]
        mov [R(2)], ax
        rsm
.long:  mov eax, [cs:0xfed0]
        mov [R(3)], eax
        mov dword [R(4)], 0
        mov eax, [cs:0xff50]
        mov [R(5)], eax
        mov dword [R(6)], 0
        mov eax, [cs:0xff78]
        mov [R(7)], eax
        mov dword [R(8)], 0
        mov eax, [cs:0xfe10]
        mov [R(9)], eax
        mov dword [R(10)], 0
        rsm
.back:  mov dword [cs:0xff00], 0x30000
        rsm
handler2_end:
bits 32
