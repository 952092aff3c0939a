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

%include "console.inc"
%include "files.inc"
%include "programs.inc"

; --- Data. ---

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
