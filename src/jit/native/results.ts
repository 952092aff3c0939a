/** What native code gives back; other values, multiples of 16, are the address of an operation for the interpreter to go on with. */
export const RESULT_FIND = 2; // the jump cache has not the pc
export const RESULT_CELL = 1; // added to an entry cell's address: go on through that
