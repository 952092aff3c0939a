; Alignment checks: CR0.AM, EFLAGS.AC and CPL 3 together.
%include "kit.inc"
%macro UNALIGNED 2              ; name, instruction at ring 3 with DS flat and AC set
        TRY %1
        RING3_FLAGS %%u, 0x40002
%%u:    mov eax, USERD
        mov ds, ax
        mov es, ax
        mov ebp, 0x1001
        %2
        int 0x30
        END_QUIET
%endmacro

%macro PUSH_ODD 0
        dec esp
        push eax
%endmacro
%macro MOVS_ODD 0
        mov esi, ebp
        mov edi, 0x1100
        movsd
%endmacro

;= word #00000011 e=00000000 ip=00000022 cs=00000033 fl=00040002 ss=0000003b sp=0005f000 ## QEMU has no alignment checks
;= dword #00000011 e=00000000 ip=00000022 cs=00000033 fl=00040002 ss=0000003b sp=0005f000 ## the same
;= write #00000011 e=00000000 ip=00000022 cs=00000033 fl=00040002 ss=0000003b sp=0005f000 ## the same
;= modify #00000011 e=00000000 ip=00000022 cs=00000033 fl=00040002 ss=0000003b sp=0005f000 ## the same
;= quad #00000011 e=00000000 ip=00000022 cs=00000033 fl=00040002 ss=0000003b sp=0005f000 ## the same
;= extended #00000011 e=00000000 ip=00000022 cs=00000033 fl=00040002 ss=0000003b sp=0005f000 ## the same
;= push #00000011 e=00000000 ip=00000023 cs=00000033 fl=00040016 ss=0000003b sp=0005efff ## the same
;= movs #00000011 e=00000000 ip=00000029 cs=00000033 fl=00040002 ss=0000003b sp=0005f000 ## the same
;= rep-movs #00000011 e=00000000 ip=0000002d cs=00000033 fl=00040002 ss=0000003b sp=0005f000 00000003 ## the same

main:   START
        TO_PM32
        LOAD_TSS
        UNALIGNED "without-am", {mov eax, [ebp]}
        mov eax, cr0
        or eax, 0x40000
        mov cr0, eax
        UNALIGNED "byte", {mov al, [ebp]}
        UNALIGNED "word", {mov ax, [ebp]}
        UNALIGNED "dword", {mov eax, [ebp + 1]}
        UNALIGNED "dword-aligned", {mov eax, [ebp + 3]}
        UNALIGNED "write", {mov [ebp], eax}
        UNALIGNED "modify", {add dword [ebp], 1}
        UNALIGNED "quad", {fld qword [ebp + 3]}
        UNALIGNED "extended", {fld tword [ebp + 3]}
        UNALIGNED "push", PUSH_ODD
        UNALIGNED "movs", MOVS_ODD
        TRY "rep-movs"
        RING3_FLAGS .r, 0x40002
.r:     mov eax, USERD
        mov ds, ax
        mov es, ax
        mov esi, 0x1000
        mov edi, 0x1102
        mov ecx, 3
        cld
        rep movsd
        int 0x30
        END_WITH ecx
        TRY "without-ac"
        RING3_FLAGS .w, 2
.w:     mov eax, [cs:0x1001]
        int 0x30
        END_QUIET
        TRY "ring0"
        pushfd
        or dword [esp], 0x40000
        popfd
        mov eax, [0x1001]
        END
        FINISH32
