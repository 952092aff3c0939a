; Faults within faults, their order, interrupt shadows, MSRs.
%include "kit.inc"

main:   START
        TO_PM32
        LOAD_TSS
        TRY "double"            ; #GP whose gate is bad: #DF with error code 0
        mov byte [IDT32 + 13 * 8 + 5], 0x80
        mov eax, 0x1f8
        mov es, ax
        END
        mov byte [IDT32 + 13 * 8 + 5], 0x8e
        TRY "benign-then-gp"    ; #UD whose gate is bad: #GP, with EXT
        mov byte [IDT32 + 6 * 8 + 5], 0x80
        ud2
        END
;= benign-then-gp #0000000d e=00000033 ip=00000007 cs=00000008 fl=00000046 ## QEMU does not set EXT for an earlier exception
        mov byte [IDT32 + 6 * 8 + 5], 0x8e
        TRY "np-then-df"
        and byte [IDT32 + 13 * 8 + 5], 0x7f
        mov eax, 0x1f8
        mov es, ax
        END
        or byte [IDT32 + 13 * 8 + 5], 0x80
        TRY "divide-then-gp"    ; both contribute: #DF
        mov byte [IDT32 + 0 * 8 + 5], 0x80
        xor ecx, ecx
        div ecx
        END
        mov byte [IDT32 + 0 * 8 + 5], 0x8e
        TRY "int-then-np"       ; INT n is no exception
        and byte [IDT32 + 0x30 * 8 + 5], 0x7f
        int 0x30
        END
        or byte [IDT32 + 0x30 * 8 + 5], 0x80
        ; Paging.
        call map32
        mov eax, PAGES
        mov cr3, eax
        mov eax, cr0
        or eax, 0x80000000
        mov cr0, eax
        TRY "page-fault"
        and byte [PTE32(0x90000)], ~1
        invlpg [0x90000]
        mov eax, [0x90000]
        END
        TRY "gp-while-paging"
        mov eax, 0x1f8
        mov es, ax
        END
        TRY "pf-then-gp"        ; a bad gate for #PF: #DF
        mov byte [IDT32 + 14 * 8 + 5], 0x80
        mov eax, [0x90000]
        END
        mov byte [IDT32 + 14 * 8 + 5], 0x8e
        TRY "user-page-fault"
        and byte [PTE32(0x90000)], ~1
        RING3 .u1
.u1:    mov eax, [cs:0x90000]
        END_QUIET
        TRY "rmw-order"         ; a read-only page: the error says write though it is read first
        mov eax, cr0
        or eax, 0x10000
        mov cr0, eax
        and byte [PTE32(0x91000)], ~2
        invlpg [0x91000]
        inc dword [0x91000]
        END
        mov eax, cr0
        and eax, 0x7ffeffff
        mov cr0, eax
        ; PSE.
        TRY "pse"
        mov eax, cr4
        or eax, 0x10
        mov cr4, eax
        mov dword [PAGES + 4], 0x00000087       ; 4 MiB to 8 MiB show the first 4 MiB
        mov eax, cr0
        or eax, 0x80000000
        mov cr0, eax
        mov dword [0x1000], 0xabcd1234
        mov eax, [0x401000]
        SHOW " ", eax
        mov [0x401000], eax
        mov eax, [PAGES + 4]
        SHOW " ", eax
        END
        TRY "pse-reserved"      ; bit 21
        mov dword [PAGES + 8], 0x00200087
        mov eax, [0x801000]
        END
;= pse-reserved #0000000e e=00000009 ip=0000000a cs=00000008 fl=00000046 cr2=00801000 ## QEMU does not look at it
        mov eax, cr0
        and eax, 0x7fffffff
        mov cr0, eax
        ; MSRs.
%macro RD 2
        TRY %1
        mov ecx, %2
        rdmsr
        END
%endmacro
        RD "msr-unknown", 0x12345678
;= msr-unknown #0000000d e=00000000 ip=00000005 cs=00000008 fl=00000046 ## QEMU answers 0
        RD "msr-apic-base", 0x1b
        RD "msr-mtrrcap", 0xfe
        RD "msr-mtrr-default", 0x2ff
        RD "msr-pat", 0x277
        RD "msr-misc-enable", 0x1a0
        RD "msr-efer", 0xc0000080
        TRY "msr-pat-bad"
        mov ecx, 0x277
        mov eax, 2
        xor edx, edx
        wrmsr
        END
;= msr-pat-bad #0000000d e=00000000 ip=0000000c cs=00000008 fl=00000046 ## QEMU takes any type
        TRY "msr-mtrr"
        mov ecx, 0x200
        mov eax, 6
        xor edx, edx
        wrmsr
        rdmsr
        SHOW " ", eax
        END
        TRY "rdmsr-user"
        RING3 .u2
.u2:    mov ecx, 0x1b
        rdmsr
        END_QUIET
        TRY "rdpmc-user"
        RING3 .u3
.u3:    rdpmc
        END_QUIET
        FINISH32
