/**
 * What the machine's thread and the one that waits for its eventfds have in common (event-bells.ts):
 *
 *     0  RUNG    1 when there is any note, until the machine's thread has answered all of them
 *     1  NOTES   bits of the doorbells that are to be looked at, 32 in a word
 */
export const RUNG = 0;
export const NOTES = 1;
/** Doorbells of a machine that the kernel answers for, at most. */
export const MOST = 256;
export const WORDS = MOST / 32;
export const CELLS = NOTES + WORDS;
