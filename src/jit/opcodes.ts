/**
 * What the interpreter's code is made of: one opcode for each operation of the table, some of its own, and
 * sequences of these that run as one.
 *
 * An encoded operation is a unit of 16 bytes, some with a second one:
 *
 *     0 u16 opcode | 2 u16 auxiliary | 4 u32 d | 8 u32 a | 12 u32 b
 *    16 u32 c | 20 u32 e | 24, 28 further immediates
 *
 * d (result), a, b, c are addresses of slots: guest registers in the vCPU's block,
 * temporaries, or constants. A slot holds a 32-bit value zero-extended to 64 bits.
 *
 * In a sequence the units follow each other as ever. The first one's opcode is the sequence's, and nobody reads
 * those of the others: what is saved is finding out, once an operation, what comes next.
 */
import { IS_COMPARISON, MEMORY, OPS, Op } from '../ir/ops.ts';

export const X_HEADER = OPS.length;
export const X_MOVE = OPS.length + 1;
export const X_MOVE_V = OPS.length + 2;
/** Branches on a comparison: `condgoto` whose condition is computed from a and the slot in the last word. */
export const X_BRANCH = OPS.length + 3;
export const COMPARISONS = OPS.filter((op) => IS_COMPARISON[op.index]);
/** Opcode of the branch on each comparison, by operation number; 0 = it is none. */
export const X_BRANCH_OF = Int32Array.from(OPS, (op) => {
  const place = COMPARISONS.indexOf(op);
  return place < 0 ? 0 : X_BRANCH + place;
});
export const X_SEQUENCE = X_BRANCH + COMPARISONS.length;

/** Byte positions in a unit. */
export const UNIT = 16;
export const AT_AUX = 2;
export const AT_D = 4;
export const AT_A = 8;
export const AT_B = 12;
export const AT_C = 16;
export const AT_E = 20;

/**
 * A computed jump is followed by JUMP_TARGETS words: the targets it has been seen to take, as offsets
 * from the block's base pc, each in the place that its bits choose. The region compiler reads them.
 */
export const JUMP_TARGETS = 16;
export const NO_TARGET = 0x80000000 | 0;

/**
 * The sequences that save most in the boot of a Linux kernel and in its fork and exec, in the order in which they
 * were found: each is one of those before it, or a single operation, and one more. `if` is the branch on a comparison.
 */
const SEQUENCE_NAMES = `
move move
st64 move
add64 st64
add64 st64 move
ld64 add64
ld64 add64 ld64
add64 add64
move add64
ld64 move
add64 ld64
add64 ld64 add64
add64 move
move ld64
add64 add64 st64
move goto
add64 add64 st64 move
add64 st64 move add64
extu move
add64 add64 st64 move goto
add64 move move
ld64 add64 ld64 add64
ld64 add64 ld64 add64 ld64
and32 and32
shl64 add64
move move move
sub64 move
ld64 ld64
add64 st64 move move
add64 st64 move add64 st64
ld64 add64 ld64 add64 ld64 add64
ld64 add64 jump
move ifeq64
add64 st64 move goto
add64 st64 move add64 st64 move
st64 st64
and32 move
ld32 move
move add64 add64
sub64 move move
lds64 ld64
add64 st64 move move add64
st64 move move
and32 ifeq32
move add64 add64 st64
move add64 add64 st64 move
st32 move
move add64 add64 st64 move goto
shr32 and32
and32 ifne32
extu and32
ld64 move ifeq64
add32 move
move ld64 add64
extu extu
add64 st64 move move add64 st64
move move add64
ld8u move
and64 and32
ld64 move move
move move ld64
move add64 st64
move add64 st64 move
lds64 add64
and32 and32 ifne32
extu add64
st32 move move
st64 add64
move move ifeq64
ld64 add64 move
ld8u and32
add32 st32
add32 st32 move
and32 or32
add32 st32 move move
and64 and32 or64
move extu
ld8u and32 and32
add64 move move ld64
ld64 add64 ld64 add64 jump
ld64 and32
move st64
and64 move
add64 ld64 add64 ld64
add64 ld64 add64 ld64 add64
extu move and32
add32 move move
move ifne64
st64 ld64
add64 lds64
add64 ld32w
add64 lds64 add64
move move add64 add64
extu ifne32
move move add64 add64 st64
move move add64 add64 st64 move
move move ld64 add64
xor32 move
move sub64
shr64 shr64
shl64 add64 ld64
add64 move move ld64 add64
move sub64 move
ld32 and32
add64 extu
ld64 ld64 move
add64 move move ld64 add64 ld64
extu and32 ifeq32
lds64 ld64 st64
ld32 xor32
extu ifeq32
shr32 shr32
shl64 shl64
ld64 add64 add64
or64 move
shl64 add64 ld32
move ifeq32
lds64 ld64 move
extu add64 st64
move and32
ld32 move move
extu move move
xor32 add32
st64 st64 st64
move ld64 add64 ld64
add64 ld64 add64 ld64 add64 ld64
add64 ld64 add64 ld64 add64 jump
lds64 ld64 move sub64
lds64 ld64 move sub64 move
`;

function opcodeOf(name: string): number {
  if (name === 'move') return X_MOVE;
  return name.startsWith('if') ? X_BRANCH_OF[Op[name.slice(2) as keyof typeof Op]]! : Op[name as keyof typeof Op];
}

/** Opcodes of each sequence's operations. Its own opcode is X_SEQUENCE + its place here. */
export const SEQUENCES: readonly (readonly number[])[] = SEQUENCE_NAMES.trim()
  .split('\n')
  .map((line) => line.split(' ').map(opcodeOf));

/** Helper calls follow, one opcode for each helper. */
export const X_CALL = X_SEQUENCE + SEQUENCES.length;

/** Opcodes that may follow another in a sequence are numbered from 1. */
const MEMBER = new Uint8Array(X_CALL);
const MEMBERS = [...new Set(SEQUENCES.flatMap((sequence) => sequence.slice(1)))];
MEMBERS.forEach((opcode, i) => {
  MEMBER[opcode] = i + 1;
});
/** Opcode of a sequence by that of its beginning and the number of what follows; 0 = there is none. */
const LONGER = new Uint16Array(X_CALL * (MEMBERS.length + 1));
SEQUENCES.forEach((sequence, place) => {
  let opcode = sequence[0]!;
  for (const next of sequence.slice(1, -1)) opcode = joined(opcode, next);
  LONGER[opcode * (MEMBERS.length + 1) + MEMBER[sequence.at(-1)!]!] = X_SEQUENCE + place;
});

/** Opcode of an operation or a sequence and one more operation as one; 0 = there is none. */
export function joined(opcode: number, next: number): number {
  if (opcode >= X_CALL || next >= X_CALL) return 0;
  const member = MEMBER[next]!;
  return member === 0 ? 0 : LONGER[opcode * (MEMBERS.length + 1) + member]!;
}

/** Does the operation take a second unit? A `goto` does when its target has no cell: for a link (layout.ts, LINK_*). */
export function isLong(op: number): boolean {
  if (op >= X_CALL) return true;
  if (op >= OPS.length) return false;
  const info = OPS[op]!;
  return info.name === 'vshuffle' || info.name === 'condgoto' || (info.kind !== MEMORY && info.operands.length === 3);
}
