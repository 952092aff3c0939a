; An .EXE program of four segments, whose places are filled in when it is loaded: far calls of three kinds, files,
; memory, another program, the timer by its interrupt, and memory beyond 1 MiB from real mode.
        cpu 386
        org 0

PARAGRAPH equ 16
%define PARAGRAPHS(bytes) (((bytes) + 15) / 16)

header: db 'MZ'
        dw (image_end - header) % 512, (image_end - header + 511) / 512
        dw (relocations_end - relocations) / 4
        dw PARAGRAPHS(image - header)
        dw PARAGRAPHS(1024)             ; at least for the stack
        dw PARAGRAPHS(1024)             ; at most
        dw STACK, 1024
        dw 0
        dw 0, MAIN
        dw relocations - header, 0
relocations:
        dw data_1 - main, MAIN
        dw far_1 - main, MAIN
        dw far_2 - data, DATA
        dw far_4 - data, DATA
        dw far_3 - other, OTHER
relocations_end:
        align 16, db 0
image:

MAIN    equ 0
OTHER   equ (other - image) / 16
DATA    equ (data - image) / 16
STACK   equ PARAGRAPHS(image_end - image)
%define TEXT(label) ((label) - data)

%macro SAY 1
        mov dx, TEXT(%1)
        mov ah, 9
        int 21h
%endmacro
%macro FAIL_IF 1
        j%1 failed
%endmacro

; --- The first code segment. ---
main:
        mov ax, DATA
data_1  equ $ - 2
        mov ds, ax

        ; A far call by address, one through memory, and one by a return.
        call OTHER:twice - other
far_1   equ $ - 2
        call far [TEXT(pointer)]
        push cs
        push back - main
        push word [TEXT(pointer) + 2]
        push twice - other
        retf
back:   SAY called
        push 1234h
        push 5678h
        call far [TEXT(sum_pointer)]    ; takes its arguments away
        cmp ax, 68ACh
        FAIL_IF ne

        ; A file: its size, its middle, all of it, what is not there.
        mov dx, TEXT(file_name)
        mov ax, 3D00h
        int 21h
        FAIL_IF c
        mov bx, ax
        mov ax, 4202h
        xor cx, cx
        xor dx, dx
        int 21h
        cmp ax, 1500
        FAIL_IF ne
        mov ax, 4200h
        mov dx, 510
        int 21h
        mov ah, 3Fh
        mov cx, 4
        mov dx, TEXT(buffer)
        int 21h
        cmp ax, 4
        FAIL_IF ne
        SAY buffer
        mov ax, 4200h
        xor cx, cx
        xor dx, dx
        int 21h
        push bx
        mov bx, 200h
        mov ah, 48h
        int 21h
        pop bx
        FAIL_IF c
        mov es, ax
        push ds
        sub ax, 200h                    ; the same place, far from a segment's start
        mov ds, ax
        mov dx, 2001h
        mov ah, 3Fh
        mov cx, 0FFFFh
        int 21h
        mov si, dx
        xor dx, dx
        mov cx, ax
        sub cx, 2
add_up: lodsb
        xor ah, ah
        add dx, ax
        loop add_up
        lodsw                           ; the file's last word
        pop ds
        cmp dx, ax
        FAIL_IF ne
        mov ah, 49h
        int 21h
        mov ah, 3Eh
        int 21h
        mov dx, TEXT(no_name)
        mov ax, 3D00h
        int 21h
        FAIL_IF nc
        cmp ax, 2
        FAIL_IF ne

        ; Memory: two blocks, of which the first grows when the second is gone.
        mov ah, 48h
        mov bx, 10h
        int 21h
        FAIL_IF c
        mov si, ax
        mov ah, 48h
        mov bx, 10h
        int 21h
        FAIL_IF c
        mov di, ax
        mov es, si
        mov ah, 4Ah
        mov bx, 18h
        int 21h
        FAIL_IF nc
        cmp bx, 10h
        FAIL_IF ne
        mov es, di
        mov ah, 49h
        int 21h
        mov es, si
        mov ah, 4Ah
        mov bx, 18h
        int 21h
        FAIL_IF c
        SAY allocated

        ; Another program, and how it ended.
        push ds
        pop es
        mov word [TEXT(block) + 2], TEXT(no_tail)
        mov [TEXT(block) + 4], ds
        mov bx, TEXT(block)
        mov dx, TEXT(child)
        mov ax, 4B00h
        int 21h
        FAIL_IF c
        mov ah, 4Dh
        int 21h
        test ax, ax
        FAIL_IF nz

        ; The timer at 1000 times a second, by int 8 itself. Each eighth interrupt goes on to the BIOS.
        mov ax, 3508h
        int 21h
        mov [TEXT(old)], bx
        mov [TEXT(old) + 2], es
        push ds
        push cs
        pop ds
        mov dx, timer - main
        mov ax, 2508h
        int 21h
        pop ds
        mov ax, 1193
        call set_timer
wait_timer:
        hlt
        cmp word [TEXT(count)], 50
        jb wait_timer
        xor ax, ax
        call set_timer
        push ds
        lds dx, [TEXT(old)]
        mov ax, 2508h
        int 21h
        pop ds
        SAY timed

        ; Memory beyond 1 MiB: FS gets a limit of 4 GiB in protected mode, and keeps it in real mode.
        mov ax, 2401h
        int 15h
        FAIL_IF c
        cli
        xor eax, eax
        mov ax, ds
        shl eax, 4
        add eax, TEXT(table)
        mov [TEXT(table) + 2], eax
        lgdt [TEXT(table)]
        mov eax, cr0
        inc ax
        mov cr0, eax
        mov bx, 8
        mov fs, bx
        dec ax
        mov cr0, eax
        xor bx, bx
        mov fs, bx
        sti
        mov ebx, 300000h
        mov ecx, 1000
fill:   mov [fs:ebx + ecx * 4], ecx
        loop fill, ecx
        mov ah, 0Bh                     ; the limit outlives a call of the system
        int 21h
        mov ecx, 1000
        xor eax, eax
add_words:
        add eax, [fs:ebx + ecx * 4]
        loop add_words, ecx
        cmp eax, 500500
        FAIL_IF ne
        SAY beyond

        mov ax, 4C2Ah
        int 21h

failed: SAY bad
        mov ax, 4C01h
        int 21h

; ax: the timer's divisor
set_timer:
        push ax
        mov al, 36h
        out 43h, al
        pop ax
        out 40h, al
        mov al, ah
        out 40h, al
        ret

timer:  push ax
        push ds
        mov ax, cs
        add ax, DATA
        mov ds, ax
        inc word [TEXT(count)]
        test byte [TEXT(count)], 7
        jz .chain
        mov al, 20h
        out 20h, al
        pop ds
        pop ax
        iret
.chain: pushf
        call far [TEXT(old)]
        pop ds
        pop ax
        iret

        align 16, db 0

; --- The second one. ---
other:
twice:  push ds
        mov dx, DATA
far_3   equ $ - 2
        mov ds, dx
        mov ah, 2
        mov dl, '.'
        int 21h
        pop ds
        retf

sum:    push bp
        mov bp, sp
        mov ax, [bp + 6]
        add ax, [bp + 8]
        pop bp
        retf 4

        align 16, db 0

; --- Data. ---
data:
pointer         dw twice - other, OTHER
far_2           equ pointer + 2
sum_pointer     dw sum - other, OTHER
far_4           equ sum_pointer + 2
file_name       db 'c:\numbers.txt', 0
no_name         db 'NUMBERS', 0
child           db 'HELLO.COM', 0
no_tail         db 0, 13
block           times 14 db 0
buffer          db '....', 13, 10, '$'
called          db ' called', 13, 10, '$'
allocated       db 'allocated', 13, 10, '$'
timed           db 'timed', 13, 10, '$'
beyond          db 'beyond 1 MiB', 13, 10, '$'
bad             db 'bad', 13, 10, '$'
old             dd 0
count           dw 0
table           dw 15                   ; the null descriptor's place has its own address
                dd 0
                dw 0
                dw 0FFFFh, 0, 9200h, 0CFh
image_end:
