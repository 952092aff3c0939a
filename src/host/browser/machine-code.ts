/** A page runs no machine code of its own. */
export const mayRunMachineCode = (): boolean => false;
