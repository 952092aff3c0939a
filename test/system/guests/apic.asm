; The local APIC by MSRs (x2APIC), the TSC deadline timer, interrupt shadows.
; The deadline timer and x2APIC are not there in QEMU's translator of that version: lines from the manual.
%include "kit.inc"

%macro WR 3                     ; MSR, low, high
        mov ecx, %1
        mov eax, %2
        mov edx, %3
        wrmsr
%endmacro

;= x2apic-off-read #0000000d e=00000000 ip=00000005 cs=00000008 fl=00000046 ## QEMU has no x2APIC
;= x2apic-disabled-direct #0000000d e=00000000 ip=00000020 cs=00000008 fl=00000046 ## the same
;= x2apic-on id=00000000 ldr=00000001 svr=000001ff ok ## the same
;= x2apic-reserved #0000000d e=00000000 ip=00000005 cs=00000008 fl=00000046 ## the same
;= x2apic-self-ipi #00000031 ip=00000026 cs=00000008 fl=00000246 ok ## the same
;= x2apic-back #0000000d e=00000000 ip=0000000f cs=00000008 fl=00000046 ## the same
;= deadline #00000034 ip=0000003d cs=00000008 fl=00000246 left=00000000 ok ## the same
;= deadline-past #00000034 ip=00000027 cs=00000008 fl=00000246 ok ## the same
;= sti-shadow #00000032 ip=00000027 cs=00000008 fl=00000246 ok ## the same
;= mov-ss-shadow #00000033 ip=0000002a cs=00000008 fl=00000246 ok ## the same

main:   START
        TO_PM32
        LOAD_TSS
        TRY "x2apic-off-read"
        SKIP_QEMU
        mov ecx, 0x802
        rdmsr
        END
        TRY "x2apic-disabled-direct"    ; no way from disabled to x2APIC
        SKIP_QEMU
        WR 0x1b, 0xfee00100, 0
        WR 0x1b, 0xfee00d00, 0
        END
        TRY "x2apic-on"
        SKIP_QEMU
        WR 0x1b, 0xfee00900, 0
        WR 0x1b, 0xfee00d00, 0
        mov ecx, 0x802
        rdmsr
        SHOW " id=", eax
        mov ecx, 0x80d
        rdmsr
        SHOW " ldr=", eax
        WR 0x80f, 0x1ff, 0
        mov ecx, 0x80f
        rdmsr
        SHOW " svr=", eax
        END
        TRY "x2apic-reserved"   ; DFR is gone
        SKIP_QEMU
        mov ecx, 0x80e
        rdmsr
        END
        TRY "x2apic-self-ipi"
        SKIP_QEMU
        STEPPING 1
        sti
        WR 0x83f, 0x31, 0
        nop
        cli
        WR 0x80b, 0, 0
        STEPPED
        END
        TRY "sti-shadow"        ; taken after the instruction that follows STI
        SKIP_QEMU
        STEPPING 1
        WR 0x83f, 0x32, 0
        sti
        nop
        nop
        cli
        WR 0x80b, 0, 0
        STEPPED
        END
        TRY "mov-ss-shadow"
        SKIP_QEMU
        STEPPING 1
        WR 0x83f, 0x33, 0
        mov ebx, ss
        sti
        mov ss, ebx             ; in STI's shadow: one of its own need not follow (SDM vol. 2, MOV)
        nop
        cli
        WR 0x80b, 0, 0
        STEPPED
        END
        TRY "deadline"
        SKIP_QEMU
        STEPPING 1
        WR 0x832, 0x40034, 0
        rdtsc
        add eax, 1000000
        adc edx, 0
        mov ecx, 0x6e0
        wrmsr
        sti
        mov ecx, 1
        hlt
        cli
        WR 0x80b, 0, 0
        STEPPED
        mov ecx, 0x6e0
        rdmsr
        or eax, edx
        SHOW " left=", eax
        END
        TRY "deadline-past"     ; at once
        SKIP_QEMU
        STEPPING 1
        WR 0x6e0, 1, 0
        sti
        hlt
        cli
        WR 0x80b, 0, 0
        STEPPED
        END
        TRY "x2apic-back"       ; not to xAPIC directly
        SKIP_QEMU
        WR 0x1b, 0xfee00900, 0
        END
        FINISH32
