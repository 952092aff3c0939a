; Real mode: wrapping of offsets, stacks and segments, limits, unreal mode, interrupts.
%include "kit.inc"

main:   START
        mov ax, 0x7000
        mov es, ax
        mov word [es:0xffff - 1], 0x1122
        mov byte [es:0xffff], 0x33
        mov byte [es:0], 0x44
        mov word [es:2], 0x5566
        TRY "offset-16-wraps"   ; BX+SI wraps to 16 bits
        mov bx, 0xfff0
        mov si, 0x0012
        mov ax, [es:bx + si]
        SHOW " ax=", ax
        END
        TRY "word-at-ffff"      ; crosses the limit: #GP
        mov ax, [es:0xffff]
        END
;= word-at-ffff #000d ip=0000 cs=1000 fl=0046 ## QEMU does not look at limits
        TRY "dword-at-fffd"
        mov eax, [es:0xfffd]
        END
;= dword-at-fffd #000d ip=0000 cs=1000 fl=0046 ## limits
        TRY "stack-at-ffff"     ; #SS
        mov bp, 0xffff
        mov ax, [bp]
        END
;= stack-at-ffff #000c ip=0003 cs=1000 fl=0046 ## limits
        TRY "offset-32-over-limit"
        mov ebx, 0x10000
        mov al, [es:ebx]
        END
;= offset-32-over-limit #000d ip=0006 cs=1000 fl=0046 ## limits
        TRY "push-at-1"         ; a push of two bytes at FFFFh: #SS, and no stack for its handler: wraps
        xor ax, ax
        mov sp, 0
        push ax
        mov bp, sp
        mov sp, 0xfff0
        SHOW " sp=", bp
        END
        TRY "pop-wraps"
        mov sp, 0xfffe
        pop ax
        mov bp, sp
        mov sp, 0xfff0
        SHOW " sp=", bp
        END
        TRY "pusha-wraps"
        mov sp, 8
        pusha
        mov bp, sp
        mov sp, 0xfff0
        SHOW " sp=", bp
        END
        TRY "push-dword-sp-4"
        mov sp, 4
        push dword 0x12345678
        mov bp, sp
        mov sp, 0xfff0
        SHOW " sp=", bp
        END
        TRY "push-sp"
        mov sp, 0xffe0
        push sp
        pop ax
        SHOW " ax=", ax
        END
        TRY "hma"               ; FFFF:10 is 100000h with the A20 gate open
        mov ax, 0xffff
        mov fs, ax
        mov word [fs:0x10], 0xa5a5
        mov ax, [fs:0x10]
        SHOW " ax=", ax
        END
        TRY "divide-error"
        xor bx, bx
        mov ax, 1
        div bx
        END
        TRY "invalid-opcode"
        ud2
        END
        TRY "bound"
        mov word [0x1000], 3
        mov word [0x1002], 7
        mov ax, 8
        bound ax, [0x1000]
        END
        TRY "bound-inside"
        mov ax, -1
        mov word [0x1000], -2
        bound ax, [0x1000]
        END
        TRY "int3"
        int3
        END
        TRY "into"
        mov al, 0x7f
        add al, 1
        into
        END
        TRY "into-no"
        xor al, al
        into
        END
        TRY "icebp"
        db 0xf1
        END
;= icebp #0001 ip=0001 cs=1000 fl=0046 dr6=0ff0 ## QEMU makes it an invalid opcode
        TRY "lldt"              ; not recognised in real mode
        xor ax, ax
        lldt ax
        END
        TRY "sldt"
        sldt ax
        END
        TRY "str"
        str ax
        END
        TRY "arpl"
        arpl ax, bx
        END
        TRY "lar"
        lar ax, bx
        END
        TRY "verr"
        verr ax
        END
        TRY "sysenter"
        sysenter
        END
        TRY "lock-register"
        db 0xf0, 0x01, 0xc0
        END
        TRY "too-long"
        times 15 db 0x66
        nop
        END
        TRY "mov-cr1"
        db 0x0f, 0x20, 0xc8
        END
        TRY "mov-to-cs"
        db 0x8e, 0xc8
        END
        TRY "mov-cr0-pg-without-pe"
        mov eax, cr0
        or eax, 0x80000000
  %ifndef QEMU
        mov cr0, eax
  %endif
        END
;= mov-cr0-pg-without-pe #000d ip=0009 cs=1000 fl=0082 ## QEMU lets it happen
        TRY "mov-cr0-nw-without-cd"
        mov eax, cr0
        and eax, ~0x40000000
        or eax, 0x20000000
  %ifndef QEMU
        mov cr0, eax
  %endif
        END
;= mov-cr0-nw-without-cd #000d ip=000f cs=1000 fl=0002 ## QEMU lets it happen
        TRY "smsw"
        smsw ax
        and ax, 0xff
        SHOW " ax=", ax
        END
        TRY "far-call"
        push cs
        call .near
        jmp .over
.near:  mov bp, sp
        SHOW " cs=", [bp + 2]
        retf
.over:  END
        TRY "far-jump-32"       ; an offset beyond 64 KiB: #GP
        jmp dword 0x1000:0x12345
        END
;= far-jump-32 #000d ip=0000 cs=1000 fl=0046 ## limits
        TRY "jump-beyond"       ; EIP of 16-bit code with operand size 32
        mov eax, 0x10000
  %ifndef QEMU
        jmp eax
  %endif
        END
;= jump-beyond #000d ip=0006 cs=1000 fl=0046 ## QEMU does not look at the limit of CS
        TRY "loop-cx"
        mov ecx, 0x10001
        loop .never
        jmp .once
.never: SAY " jumped"
.once:  SHOW " cx=", cx
        END
        TRY "int-beyond-idt"
        lidt [cs:SEG16(shortidt)]
        int 0x20
        END
        o32 lidt [cs:SEG16(idtr16)]
        TRY "int-flags"         ; IF and TF are cleared on the way in, and come back
        mov word [0x21 * 4], SEG16(int21)
        mov word [0x21 * 4 + 2], 0x1000
        sti
        int 0x21
        pushf
        cli
        pop ax
        and ax, 0x300
        SHOW " back=", ax
        END
        TRY "iret-flags"        ; all of IOPL and NT can be set
        pushf
        push cs
        push word SEG16(.there)
        mov bp, sp
        or word [bp + 4], 0x7000
        iret
.there: pushf
        pop ax
        push ax
        and ax, 0x7fff
        SHOW " fl=", ax
        pop ax
        and ax, 0x0fff
        push ax
        popf
        END
        TRY "popf-16"
        pushfd
        pop eax
        or eax, 0x3f4000
        push eax
        popfd
        pushfd
        pop eax
        and eax, 0xffff4000
        ror eax, 16
        SHOW " high=", ax
        rol eax, 16
        SHOW " low=", ax
        push dword 2
        popfd
        END
        TRY "lss"
        mov dword [0x1000], 0x4000fff0
        lss sp, [0x1000]
        mov ax, ss
        SHOW " ss=", ax
        END
        TRY "enter-leave"
        mov sp, 0xff00
        mov bp, 0xfe00
        mov word [ss:0xfdfe], 0x7777
        enter 16, 2
        SHOW " bp=", bp
        mov ax, [bp - 2]
        SHOW " outer=", ax
        leave
        mov ax, sp
        SHOW " sp=", ax
        mov sp, 0xfff0
        END
        TRY "movs-wraps"
        mov ax, 0x7000
        mov es, ax
        push ds
        mov ds, ax
        mov si, 0xfffe
        mov di, 0x10
        mov cx, 2
        cld
        rep movsw
        mov ax, [0x10]
        mov bx, [0x12]
        pop ds
        SHOW " ", ax
        SHOW " ", bx
        SHOW " si=", si
        END
        TRY "movs-over-limit"   ; the second word lies across the limit
        push ds
        mov ds, ax
        mov si, 0xfffd
        mov cx, 2
        rep movsw
        pop ds
        END
;= movs-over-limit #000d ip=0009 cs=1000 fl=0046 ## limits
        xor ax, ax
        mov ds, ax
        SHOW "movs-left cx=", cx
        SHOW " si=", si
        NL
;= movs-left cx=0001 si=ffff ## limits

        ; Unreal mode: a limit of 4 GiB that real mode keeps.
        o32 lgdt [cs:SEG16(gdtr)]
        mov eax, cr0
        inc ax
        mov cr0, eax
        mov bx, DATA
        mov es, bx
        mov fs, bx
        dec ax
        mov cr0, eax
        TRY "unreal"
        xor ax, ax
        mov es, ax
        mov ebx, 0x180000
        mov dword [es:ebx], 0x600df00d
        mov eax, [es:ebx]
        SHOW " ax=", ax
        END
        TRY "unreal-selector"
        mov ax, es
        SHOW " es=", ax
        END
        TRY "unreal-gs"         ; still 64 KiB
        mov eax, [gs:ebx]
        END
;= unreal-gs #000d ip=0000 cs=1000 fl=0046 ## limits
        jmp done16

int21:  push bp
        mov bp, sp
        push ax
        mov ax, [bp + 6]
        and ax, 0x300
        SHOW " pushed=", ax
        pushf
        pop ax
        and ax, 0x300
        SHOW " inside=", ax
        pop ax
        pop bp
        iret
shortidt:  dw 0x20 * 4 - 1
        dd 0
