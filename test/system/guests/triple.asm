; passes: 1
; A triple fault resets the machine.
%include "kit.inc"
main:   START
        TO_PM32
        SAY "before"
        NL
        lidt [noidt]
        int3
        SAY "after"
        NL
        FINISH32
noidt:  dw 0
        dd 0
