; the failing path at level 1
.prog rejected type=xdp license=GPL
    r6 = *(u32 *)(r1 + 12)
    call pick
    if r6 > 9 goto use
    r0 = 0
    exit
use:
    r0 = r7
    exit
pick:
    if r1 == 0 goto zero
    r0 = 1
    exit
zero:
    r0 = 2
    exit
