; A .COM program: texts and keys, strings, and the timer by the BIOS's hook.
        cpu 8086
        org 100h

%macro SAY 1
        mov dx, %1
        mov ah, 9
        int 21h
%endmacro

        ; The version, and the command's tail.
        mov ah, 30h
        int 21h
        add [major], al
        SAY version
        mov ah, 40h
        mov bx, 1
        mov cl, [80h]
        xor ch, ch
        mov dx, 81h
        int 21h
        SAY line

        ; Strings. A copy to where it overlaps its source, backwards.
        std
        mov si, letters + 5
        mov di, letters + 7
        mov cx, 6
        rep movsb
        cld
        SAY letters
        ; The place of a letter, and of the first difference.
        mov di, letters
        mov al, 'e'
        mov cx, 9
        repne scasb
        mov ax, di
        sub ax, letters + 1
        call digit
        mov si, letters
        mov di, others
        mov cx, 9
        repe cmpsb
        mov ax, si
        sub ax, letters + 1
        call digit
        ; A store that wraps at the segment's end: its two halves, read by themselves.
        push es
        mov bx, 1000h
        mov ah, 4Ah                     ; it was given all memory
        int 21h
        mov ah, 48h
        int 21h
        jc failed
        mov es, ax
        mov di, 0FFFEh
        mov ax, 3231h
        mov cx, 2
        rep stosw
        mov al, [es:0FFFEh]
        call char
        mov al, [es:1]
        call char
        mov ah, 49h
        int 21h
        pop es
        SAY line

        ; A character in colour, by the BIOS and by hand, and both as the BIOS reads them.
        mov ah, 0Fh
        int 10h                         ; bh: the page
        mov ah, 3
        int 10h
        mov [cursor], dx
        mov ah, 2
        mov dx, 0048h                   ; row 0, column 72
        int 10h
        mov ax, 0940h                   ; '@'
        mov bl, 1Eh
        mov cx, 3
        int 10h
        push es
        mov ax, 0B800h
        mov es, ax
        mov word [es:75 * 2], 2F23h     ; '#'
        cmp word [es:74 * 2], 1E40h
        pop es
        jne failed
        mov ah, 2
        mov dl, 75
        int 10h
        mov ah, 8
        int 10h
        cmp ax, 2F23h
        jne failed
        mov ah, 2
        mov dx, [cursor]
        int 10h

        ; The timer: eighteen times a second the BIOS calls 1Ch.
        mov ax, 351Ch
        int 21h
        mov [old], bx
        mov [old + 2], es
        xor ah, ah
        int 1Ah
        mov [since], dx
        mov dx, tick
        mov ax, 251Ch
        int 21h
wait_ticks:
        hlt
        cmp byte [ticks], 4
        jb wait_ticks
        push ds
        lds dx, [old]
        mov ax, 251Ch
        int 21h
        pop ds
        xor ah, ah
        int 1Ah
        sub dx, [since]
        cmp dx, 3
        jb failed
        SAY ticked

        ; With an argument: a name, from the keyboard.
        cmp byte [80h], 1
        jbe quit
        SAY question
        mov dx, answer
        mov ah, 0Ah
        int 21h
        SAY line
        SAY greeting
        mov bx, answer + 2
        mov al, [answer + 1]
        xor ah, ah
        add bx, ax
        mov byte [bx], '$'
        SAY answer + 2
        SAY line
quit:   ret                             ; to int 20h, at the prefix's start

failed: SAY bad
        mov ax, 4C01h
        int 21h

digit:  add al, '0'
char:   mov dl, al
        mov ah, 2
        int 21h
        ret

tick:   inc byte [cs:ticks]
        jmp far [cs:old]

version         db 'DOS '
major           db '0:$'
line            db 13, 10, '$'
letters         db 'abcdefgh $'
others          db 'ababcxyz '
ticked          db 'ticks', 13, 10, '$'
question        db 'Your name: $'
greeting        db 'Hello, $'
bad             db 'bad', 13, 10, '$'
old             dd 0
since           dw 0
cursor          dw 0
ticks           db 0
answer          db 20, 0
