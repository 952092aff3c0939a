; A small DOS: a boot sector, and what it loads from the sectors behind it. It has the interrupts 20h, 21h and 29h
; as far as the programs of the tests ask for them, runs .COM and .EXE files, and allocates memory by MCBs as
; DOS does. Everything printed also goes to the first serial port. The disk (disk.ts): this code, one sector of
; directory (32 bytes a file: name, dd first sector, dd bytes), the files' sectors.
;
; Runs the lines of the file RUN.BAT, then ends the machine by the debug exit port: status 3, or 5 when
; something has gone wrong.

        cpu 386
        org 0

SEGMENT_AT equ 0060h            ; where the system runs
EXIT_PORT equ 0F4h
COM1    equ 3F8h
SYSTEM  equ 8                   ; owner of the system's own memory
FILES   equ 8
FIRST_FILE equ 5                ; handles below that are the console

; What a caller's registers are at, from bp.
%define AT_ES   word [bp]
%define AT_DS   word [bp + 2]
%define AT_DI   word [bp + 4]
%define AT_SI   word [bp + 8]
%define AT_BX   word [bp + 20]
%define AT_DX   word [bp + 24]
%define AT_CX   word [bp + 28]
%define AT_AX   word [bp + 32]
%define AT_AL   byte [bp + 32]
%define AT_AH   byte [bp + 33]
%define AT_FLAGS word [bp + 40]

; --- The boot sector, at 7C00h. ---

boot:   xor ax, ax
        mov ss, ax
        mov sp, 7C00h
        mov ds, ax
        mov ah, 42h
        mov si, 7C00h + packet
        int 13h
        jc boot_failed
        mov [SEGMENT_AT * 16 + drive], dl
        jmp SEGMENT_AT:start
boot_failed:
        mov al, 2
        out EXIT_PORT, al
        hlt
packet: dw 16, (SYSTEM_SIZE - 512) / 512, 512, SEGMENT_AT
        dq 1
        times 510 - ($ - $$) db 0
        dw 0AA55h

; --- The shell. ---

start:  cli
        mov ax, cs
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, stack_top
        sti
        cld
        xor ax, ax
        mov fs, ax
        mov word [fs:20h * 4], int20
        mov [fs:20h * 4 + 2], cs
        mov word [fs:21h * 4], int21
        mov [fs:21h * 4 + 2], cs
        mov word [fs:29h * 4], int29
        mov [fs:29h * 4 + 2], cs
        mov word [fs:2Fh * 4], int2f
        mov [fs:2Fh * 4 + 2], cs
        ; The first block of memory begins where the system ends.
        int 12h                         ; ax = KiB
        shl ax, 6
        mov bx, cs
        add bx, (system_memory + 15) / 16
        mov [first_block], bx
        mov es, bx
        sub ax, bx
        dec ax
        mov byte [es:0], 'Z'
        mov word [es:1], 0
        mov [es:3], ax
        mov ax, cs
        mov es, ax
        ; The directory stays in memory.
        mov eax, SYSTEM_SIZE / 512
        mov bx, directory
        mov cx, 1
        call read_sectors
        mov dx, batch_name
        mov ax, 3D00h
        int 21h
        jc fail
        mov bx, ax
        mov ah, 3Fh
        mov cx, BATCH_SIZE - 1
        mov dx, batch
        int 21h
        jc fail
        mov si, batch
        add si, ax
        mov byte [si], 0
        mov ah, 3Eh
        int 21h
        mov si, batch

; A line: a program's name, then its arguments.
next_line:
        cmp byte [si], 0
        je finished
        mov dx, prompt
        mov ah, 9
        int 21h
        mov di, program_name
copy_name:
        lodsb
        cmp al, ' '
        jbe name_ends
        stosb
        call print
        jmp copy_name
name_ends:
        mov byte [di], 0
        mov di, tail + 1
copy_tail:
        cmp al, 10
        je line_ends
        stosb
        call print
        lodsb
        jmp copy_tail
line_ends:
        mov byte [di], 13
        mov ax, di
        sub ax, tail + 1
        mov [tail], al
        mov al, 13
        call print
        mov al, 10
        call print
        push si
        mov word [run_block + 2], tail
        mov [run_block + 4], cs
        mov ax, 4B00h
        mov dx, program_name
        mov bx, run_block
        int 21h
        jc fail
        mov ah, 4Dh
        int 21h
        mov dx, status_text
        call print_text
        call print_hex
        mov dx, new_line
        call print_text
        pop si
        jmp next_line

finished:
        mov al, 1
        out EXIT_PORT, al
        hlt

fail:   mov dx, fail_text
        call print_text
        mov al, 2
        out EXIT_PORT, al
        hlt

; --- Interrupts. ---

int20:  mov ax, 4C00h
        int 21h

int29:  call print
        iret

int2f:  iret

int21:  sti
        cld
        pushad
        push ds
        push es
        mov bp, sp
        push cs
        pop ds
        mov es, AT_DS                   ; most calls name something by ds:dx
        and AT_FLAGS, ~1
        mov bl, ah
        xor bh, bh
        mov si, calls
.find:  cmp byte [si], 0FFh
        je .unknown
        cmp [si], bl
        je .found
        add si, 3
        jmp .find
.found: mov bx, AT_BX
        call [si + 1]
.end:   pop es
        pop ds
        popad
        iret
.unknown:
        mov dx, unknown_text
        call print_text
        mov al, AT_AH
        call print_hex
        mov dx, new_line
        call print_text
        mov AT_AX, 1
        call carry
        jmp .end

%macro CALL_OF 2
        db %1
        dw %2
%endmacro

calls:  CALL_OF 00h, terminate
        CALL_OF 01h, read_key_echo
        CALL_OF 02h, write_char
        CALL_OF 06h, direct_console
        CALL_OF 07h, read_key
        CALL_OF 08h, read_key
        CALL_OF 09h, write_text
        CALL_OF 0Ah, read_line
        CALL_OF 0Bh, key_waits
        CALL_OF 0Dh, nothing
        CALL_OF 19h, current_drive
        CALL_OF 25h, set_vector
        CALL_OF 30h, get_version
        CALL_OF 33h, break_state
        CALL_OF 35h, get_vector
        CALL_OF 3Dh, open_file
        CALL_OF 3Eh, close_file
        CALL_OF 3Fh, read_file
        CALL_OF 40h, write_file
        CALL_OF 42h, seek_file
        CALL_OF 44h, device_state
        CALL_OF 48h, allocate
        CALL_OF 49h, free
        CALL_OF 4Ah, resize
        CALL_OF 4Bh, run_program
        CALL_OF 4Ch, terminate
        CALL_OF 4Dh, get_status
        CALL_OF 51h, get_program
        CALL_OF 62h, get_program
        db 0FFh

carry:  or AT_FLAGS, 1
        ret
not_found:
        mov AT_AX, 2
        jmp carry
bad_handle:
        mov AT_AX, 6
        jmp carry
nothing:
        ret

; --- The console. ---

; al: to the screen and the serial port
print:  pusha
        mov dx, COM1
        out dx, al
        mov ah, 0Eh
        mov bx, 7
        int 10h
        popa
        ret

; ds:dx up to a '$'
print_text:
        pusha
        mov si, dx
.next:  lodsb
        cmp al, '$'
        je .done
        call print
        jmp .next
.done:  popa
        ret

; al
print_hex:
        push ax
        shr al, 4
        call .digit
        pop ax
        and al, 15
.digit: cmp al, 10
        sbb al, 69h
        das
        jmp print

write_char:
        mov al, dl
        call print
        mov AT_AL, al
        ret

write_text:
        mov si, dx
.next:  mov al, [es:si]
        inc si
        cmp al, '$'
        je .done
        call print
        jmp .next
.done:  mov AT_AL, al
        ret

read_key:
        xor ah, ah
        int 16h
        mov AT_AL, al
        ret

read_key_echo:
        call read_key
        jmp print

key_waits:
        mov ah, 1
        int 16h
        mov AT_AL, 0
        jz .none
        mov AT_AL, 0FFh
.none:  ret

direct_console:
        cmp dl, 0FFh
        jne write_char
        mov ah, 1
        int 16h
        jnz .key
        mov AT_AL, 0
        or AT_FLAGS, 40h                ; ZF: none
        ret
.key:   and AT_FLAGS, ~40h
        jmp read_key

; es:dx: room, length, text
read_line:
        mov di, dx
        xor bx, bx
.next:  xor ah, ah
        int 16h
        cmp al, 13
        je .done
        cmp al, 8
        je .back
        mov cl, [es:di]
        dec cl
        cmp bl, cl
        jae .next
        mov [es:di + bx + 2], al
        inc bx
.echo:  call print
        jmp .next
.back:  test bx, bx
        jz .next
        dec bx
        jmp .echo
.done:  mov [es:di + bx + 2], al
        mov [es:di + 1], bl
        jmp print

; --- Vectors and version. ---

set_vector:
        xor bx, bx
        mov fs, bx
        mov bl, al
        shl bx, 2
        mov [fs:bx], dx
        mov [fs:bx + 2], es
        ret

get_vector:
        xor bx, bx
        mov fs, bx
        mov bl, al
        shl bx, 2
        mov ax, [fs:bx]
        mov AT_BX, ax
        mov ax, [fs:bx + 2]
        mov AT_ES, ax
        ret

get_version:
        mov AT_AX, 0005h                ; 5.0
        mov AT_BX, 0
        mov AT_CX, 0
        ret

current_drive:
        mov AT_AL, 2
        ret

break_state:
        mov AT_DX, 0
        ret

; --- Files. Of each that is open: dd first sector, bytes (0: free), position. ---

; es:dx: path  ->  si: its entry in the directory, or carry
find_file:
        ; The name is what follows the last separator.
        mov si, dx
        mov di, dx
.scan:  mov al, [es:si]
        inc si
        cmp al, ':'
        je .part
        cmp al, '/'
        je .part
        cmp al, '\'
        jne .char
.part:  mov di, si
.char:  test al, al
        jnz .scan
        mov si, directory
.entry: cmp byte [si], 0
        je .none
        xor bx, bx
.same:  mov al, [es:di + bx]
        cmp al, 'a'
        jb .upper
        cmp al, 'z'
        ja .upper
        sub al, 32
.upper: cmp al, [si + bx]
        jne .next
        inc bx
        test al, al
        jnz .same
        clc
        ret
.next:  add si, 32
        cmp si, directory + 512
        jb .entry
.none:  stc
        ret

; es:dx: path  ->  bx: handle, or carry
open_path:
        call find_file
        jc .end
        mov di, files
        mov bx, FIRST_FILE
.find:  cmp dword [di + 4], 0
        je .free
        add di, 12
        inc bx
        cmp bx, FIRST_FILE + FILES
        jb .find
        stc
        ret
.free:  mov eax, [si + 16]
        mov [di], eax
        mov eax, [si + 20]
        mov [di + 4], eax
        mov dword [di + 8], 0
        clc
.end:   ret

open_file:
        call open_path
        jc not_found
        mov AT_AX, bx
        ret

; bx: handle  ->  di: what is known of it, or carry
file_of:
        sub bx, FIRST_FILE
        cmp bx, FILES
        jae .bad
        imul di, bx, 12
        add di, files
        cmp dword [di + 4], 1           ; carry when it is not open
        ret
.bad:   stc
        ret

close_file:
        cmp bx, FIRST_FILE
        jb nothing
        call file_of
        jc bad_handle
        mov dword [di + 4], 0
        ret

; eax: sector, cx: number, es:bx: where
read_sectors:
        push si
        push dx
        mov [disk_count], cx
        mov [disk_sector], eax
        mov [disk_offset], bx
        mov [disk_segment], es
        mov si, disk_packet
        mov dl, [drive]
        mov ah, 42h
        int 13h
        jc fail
        pop dx
        pop si
        ret

; di: a file, es:dx: where, cx: bytes  ->  ax: bytes read
read_at:
        push bx
        push cx
        push dx
        push es
        mov word [read_done], 0
.more:  mov eax, [di + 4]
        sub eax, [di + 8]               ; what is left of the file
        movzx ecx, cx
        cmp ecx, eax
        jbe .within
        mov cx, ax
.within:
        jcxz .done
        ; es:dx with a small offset, so that no piece wraps
        mov bx, dx
        shr bx, 4
        mov ax, es
        add ax, bx
        mov es, ax
        and dx, 15
        mov eax, [di + 8]
        mov bx, ax
        shr eax, 9
        add eax, [di]
        and bx, 511
        jnz .part
        cmp cx, 512
        jb .part
        push cx
        shr cx, 9                       ; whole sectors go where they are wanted
        mov bx, dx
        call read_sectors
        shl cx, 9
        jmp .moved
.part:  push cx
        push es
        push cs
        pop es
        push bx
        mov bx, sector
        push cx
        mov cx, 1
        call read_sectors
        pop cx
        pop bx
        pop es
        mov ax, 512
        sub ax, bx
        cmp cx, ax
        jbe .fits
        mov cx, ax
.fits:  push di
        push cx
        lea si, [sector + bx]
        mov di, dx
        rep movsb
        pop cx
        pop di
.moved: movzx eax, cx
        add [di + 8], eax
        add [read_done], cx
        add dx, cx
        pop ax
        sub ax, cx
        mov cx, ax
        jmp .more
.done:  pop es
        pop dx
        pop cx
        pop bx
        mov ax, [read_done]
        ret

read_file:
        cmp bx, FIRST_FILE
        jb bad_handle
        call file_of
        jc bad_handle
        call read_at
        mov AT_AX, ax
        ret

write_file:
        cmp bx, FIRST_FILE
        jae bad_handle
        mov si, dx
        mov AT_AX, cx
        jcxz .done
.next:  mov al, [es:si]
        inc si
        call print
        loop .next
.done:  ret

seek_file:
        call file_of
        jc bad_handle
        movzx edx, dx
        shl ecx, 16
        or ecx, edx
        cmp al, 1
        jb .set
        ja .end
        add ecx, [di + 8]
        jmp .set
.end:   add ecx, [di + 4]
.set:   cmp ecx, [di + 4]
        jbe .inside
        mov ecx, [di + 4]
.inside:
        mov [di + 8], ecx
        mov AT_AX, cx
        shr ecx, 16
        mov AT_DX, cx
        ret

device_state:
        cmp al, 0
        jne bad_handle
        cmp bx, FIRST_FILE
        mov AT_DX, 80D3h                ; the console
        jb nothing
        call file_of
        jc bad_handle
        mov AT_DX, 2                    ; a file of drive C:
        ret

; --- Memory. A block is preceded by a paragraph: db 'M' or, of the last, 'Z'; dw owner (0: free), paragraphs. ---

; es: a block's first paragraph: makes it one with the free ones behind it
join_free:
        push ax
        push gs
.again: cmp byte [es:0], 'Z'
        je .done
        mov ax, es
        add ax, [es:3]
        inc ax
        mov gs, ax
        cmp word [gs:1], 0
        jne .done
        mov ax, [gs:3]
        inc ax
        add [es:3], ax
        mov al, [gs:0]
        mov [es:0], al
        jmp .again
.done:  pop gs
        pop ax
        ret

; es: a block's first paragraph, bx: paragraphs that it keeps
split:  push ax
        push gs
        mov ax, [es:3]
        sub ax, bx
        jz .done
        dec ax
        push ax
        mov ax, es
        add ax, bx
        inc ax
        mov gs, ax
        pop word [gs:3]
        mov word [gs:1], 0
        mov al, [es:0]
        mov [gs:0], al
        mov byte [es:0], 'M'
        mov [es:3], bx
.done:  pop gs
        pop ax
        ret

; bx: paragraphs  ->  ax: segment, or carry and bx: most that can be had
allocate_block:
        push dx
        push es
        xor dx, dx
        mov ax, [first_block]
.next:  mov es, ax
        cmp word [es:1], 0
        jne .taken
        call join_free
        cmp [es:3], bx
        jae .found
        cmp dx, [es:3]
        jae .taken
        mov dx, [es:3]
.taken: cmp byte [es:0], 'Z'
        je .none
        add ax, [es:3]
        inc ax
        jmp .next
.none:  mov bx, dx
        stc
        jmp .end
.found: call split
        mov dx, [current]
        mov [es:1], dx
        inc ax
        clc
.end:   pop es
        pop dx
        ret

allocate:
        call allocate_block
        mov AT_AX, ax
        jnc nothing
        mov AT_BX, bx
no_memory:
        mov AT_AX, 8
        jmp carry

free:   mov ax, AT_ES
        dec ax
        mov es, ax
        mov word [es:1], 0
        ret

resize: mov ax, AT_ES
        dec ax
        mov es, ax
        call join_free
        cmp [es:3], bx
        jae split
        mov ax, [es:3]
        mov AT_BX, ax
        jmp no_memory

; --- Programs. ---

get_program:
        mov ax, [current]
        mov AT_BX, ax
        ret

get_status:
        mov ax, [status]
        mov AT_AX, ax
        ret

; Gives back all that the program owns, and returns from the call by which it was run.
terminate:
        xor ah, ah
        cmp AT_AH, 0
        jne .status
        mov al, 0
.status:
        mov [status], ax
        mov dx, [current]
        mov es, dx
        mov cx, [es:16h]
        mov [current], cx
        mov ss, [es:30h]
        mov sp, [es:2Eh]
        mov bp, sp
        mov ax, [first_block]
.next:  mov es, ax
        cmp [es:1], dx
        jne .other
        mov word [es:1], 0
.other: add ax, [es:3]
        inc ax
        cmp byte [es:0], 'Z'
        jne .next
        mov AT_AX, 0
        jmp int21.end

; es:dx: path, the caller's es:bx: dw environment, dd command tail, ...
run_program:
        call find_file
        jc not_found
        mov [found], si
        call open_path
        mov [image_handle], bx
        call file_of
        mov [image_file], di
        push cs
        pop es
        mov dx, header
        mov cx, 28
        call read_at
        ; An environment without variables, then the program's name.
        mov bx, 3
        call allocate_block
        jc no_memory
        mov [environment], ax
        mov es, ax
        mov di, 0
        xor ax, ax
        stosw
        mov al, 1
        stosw
        mov al, 'C'
        stosb
        mov ax, ':\'
        stosw
        mov si, [found]
        mov cx, 13
        rep movsb
        ; As much as it wants at most, or what there is.
        mov bx, 0FFFFh
        cmp word [header], 'MZ'
        jne .most
        call image_size
        shr eax, 4
        add ax, 10h + 1
        add ax, [header + 12]
        jc .most
        mov bx, ax
.most:  call allocate_block
        jnc .have
        call allocate_block
        jc no_memory
.have:  mov es, ax
        mov [size], bx
        ; What was allocated is the new program's own.
        dec ax
        mov gs, ax
        mov [gs:1], es
        mov ax, [environment]
        dec ax
        mov gs, ax
        mov [gs:1], es
        xor di, di
        xor ax, ax
        mov cx, 128
        rep stosw
        mov word [es:0], 20CDh
        mov ax, es
        add ax, [size]
        mov [es:2], ax
        mov ax, [current]
        mov [es:16h], ax
        mov dword [es:18h], 01010101h   ; handles 0 to 4
        mov byte [es:1Ch], 1
        mov ax, [environment]
        mov [es:2Ch], ax
        mov [es:2Eh], bp                ; where `terminate` goes back to
        mov [es:30h], ss
        mov word [es:32h], 20
        mov word [es:34h], 18h
        mov [es:36h], es
        mov dword [es:50h], 0CB21CDh    ; int 21h; retf
        mov bx, AT_BX
        mov gs, AT_ES
        lds si, [gs:bx + 2]
        mov di, 80h
        mov cx, 64
        rep movsw
        push cs
        pop ds
        mov [current], es
        mov di, [image_file]
        cmp word [header], 'MZ'
        je .exe
        mov dword [di + 8], 0
        mov dx, 100h
        mov cx, 0FE00h
        call read_at
        mov word [entry], 100h
        mov [entry + 2], es
        mov ax, [size]
        shl ax, 4
        cmp word [size], 1000h
        jb .small
        xor ax, ax
.small: sub ax, 2
        mov bx, ax
        mov word [es:bx], 0
        mov cx, es
        jmp .go

.exe:   mov ax, es
        add ax, 10h
        mov fs, ax                      ; where the image begins
        call image_size
        movzx edx, word [header + 8]
        shl edx, 4
        mov [di + 8], edx
        mov ebx, eax
        push es
        mov ax, fs
        mov es, ax
.load:  mov cx, 8000h
        cmp ebx, 8000h
        jae .piece
        mov cx, bx
.piece: jcxz .loaded
        xor dx, dx
        call read_at
        test ax, ax
        jz .loaded
        movzx eax, ax
        sub ebx, eax
        mov ax, es
        add ax, 800h
        mov es, ax
        jmp .load
.loaded:
        push cs
        pop es
        movzx eax, word [header + 24]
        mov [di + 8], eax
        mov cx, [header + 6]
        jcxz .relocated
.relocate:
        push cx
        mov dx, relocation
        mov cx, 4
        call read_at
        mov bx, [relocation]
        mov ax, fs
        add ax, [relocation + 2]
        mov gs, ax
        mov ax, fs
        add [gs:bx], ax
        pop cx
        loop .relocate
.relocated:
        pop es
        mov ax, [header + 20]
        mov [entry], ax
        mov ax, fs
        add ax, [header + 22]
        mov [entry + 2], ax
        mov bx, [header + 16]
        mov cx, fs
        add cx, [header + 14]

; cx:bx: its stack, es: its prefix
.go:    push bx
        mov bx, [image_handle]
        call file_of
        mov dword [di + 4], 0
        pop bx
        mov ss, cx
        mov sp, bx
        push dword [entry]
        mov ax, es
        mov ds, ax
        xor ax, ax
        mov bx, ax
        retf

; eax: bytes of an .EXE that are loaded
image_size:
        movzx eax, word [header + 4]
        shl eax, 9
        movzx edx, word [header + 2]
        test dx, dx
        jz .whole
        lea eax, [eax + edx - 512]
.whole: movzx edx, word [header + 8]
        shl edx, 4
        sub eax, edx
        ret

prompt          db 13, 10, 'C>$'
status_text     db 'status $'
new_line        db 13, 10, '$'
fail_text       db 'failed', 13, 10, '$'
unknown_text    db 'no call $'
batch_name      db 'RUN.BAT', 0
drive           db 0
current         dw SYSTEM
status          dw 0
disk_packet     dw 16
disk_count      dw 0
disk_offset     dw 0
disk_segment    dw 0
disk_sector     dq 0
files           times FILES * 12 db 0
run_block       times 14 db 0

        align 512, db 0
SYSTEM_SIZE equ $ - boot

; --- What follows is not on the disk. ---

        absolute SYSTEM_SIZE
first_block     resw 1
found           resw 1
image_handle    resw 1
image_file      resw 1
environment     resw 1
size            resw 1
read_done       resw 1
relocation      resw 2
entry           resw 2
header          resb 28
program_name    resb 80
tail            resb 130
directory       resb 512
sector          resb 512
BATCH_SIZE      equ 1024
batch           resb BATCH_SIZE
                resb 1024
stack_top:
system_memory:
