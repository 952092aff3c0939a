/** Machine checks as every vCPU shows them (SDM vol. 3, 16.3): there are no errors to be told of. */
export const MCE_BANKS = 10;
/** IA32_MCG_CAP: so many banks of registers, and IA32_MCG_CTL. */
export const MCG_CAP = MCE_BANKS | 0x100;
