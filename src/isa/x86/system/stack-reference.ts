/**
 * Which addresses that are not canonical raise #SS(0) instead of #GP(0): those of references to the stack
 * segment (SDM vol. 1, 3.3.7.1), that is by push, pop, call and return, and by RSP or RBP as base register
 * without an FS or GS prefix. Nothing needs to know before such a fault, so the instruction is looked at then.
 */

const REX_B = 1;
const REX_R = 4;
/** One-byte opcodes that push or pop besides 50 to 5F: PUSH, POP, PUSHF, POPF, RET, ENTER, LEAVE, CALL. */
const STACK_OPCODES = [0x68, 0x6a, 0x8f, 0x9c, 0x9d, 0xc2, 0xc3, 0xc8, 0xc9, 0xca, 0xcb, 0xe8];
/** PUSH and POP of FS and GS, after 0F. */
const STACK_OPCODES_0F = [0xa0, 0xa1, 0xa8, 0xa9];
/** FF /2, /3, /6: CALL and PUSH. */
const GROUP5_STACK = [2, 3, 6];

const isLegacyPrefix = (byte: number): boolean =>
  [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3].includes(byte);

/** One-byte opcodes whose ModRM byte may name memory. */
function hasModrm(opcode: number): boolean {
  if (opcode < 0x40) return (opcode & 4) === 0;
  if (opcode >= 0x80 && opcode < 0x90) return true;
  return (
    [0x63, 0x69, 0x6b, 0xc0, 0xc1, 0xc6, 0xc7, 0xf6, 0xf7, 0xfe, 0xff].includes(opcode) ||
    (opcode >= 0xd0 && opcode < 0xd4) ||
    (opcode >= 0xd8 && opcode < 0xe0)
  );
}

/**
 * Is the base of the operand RSP or RBP?
 * @param at of the ModRM byte  @param extended the base's number has bit 3 set
 */
function hasStackBase(byteAt: (n: number) => number, at: number, extended: boolean): boolean {
  const modrm = byteAt(at);
  const mod = modrm >> 6;
  if (mod === 3 || extended) return false;
  const base = (modrm & 7) === 4 ? byteAt(at + 1) & 7 : modrm & 7;
  return base === 4 || (base === 5 && mod !== 0);
}

/**
 * @param byteAt bytes of an instruction of 64-bit code, read as far as needed
 * @param nearTop the address that faulted is where a push or pop of this instruction would go
 * @param isDestination a register holds an address to which 64 bytes can be moved at once
 * @returns whether the reference that faulted is one to the stack segment
 */
export function isStackReference(
  byteAt: (n: number) => number,
  nearTop: boolean,
  isDestination: (register: number) => boolean,
): boolean {
  let at = 0;
  let override = false;
  for (; isLegacyPrefix(byteAt(at)); at++) if ((byteAt(at) & 0xfe) === 0x64) override = true;
  let rex = 0;
  if ((byteAt(at) & 0xf0) === 0x40) rex = byteAt(at++);
  const opcode = byteAt(at++);
  // VEX in three and in two bytes; the former has B inverted.
  if (opcode === 0xc4) return !override && hasStackBase(byteAt, at + 3, (byteAt(at) & 0x20) === 0);
  if (opcode === 0xc5) return !override && hasStackBase(byteAt, at + 2, false);
  const byBase = (from: number): boolean => !override && hasStackBase(byteAt, from, (rex & REX_B) !== 0);
  if (opcode === 0x0f) {
    const second = byteAt(at++);
    if (STACK_OPCODES_0F.includes(second)) return true;
    if (second === 0x38 && byteAt(at) === 0xf8) {
      // MOVDIR64B: processors report its destination, which is in ES, first.
      return isDestination(((byteAt(at + 1) >> 3) & 7) | ((rex & REX_R) << 1)) && byBase(at + 1);
    }
    return byBase(second === 0x38 || second === 0x3a ? at + 1 : at);
  }
  if ((opcode & 0xf0) === 0x50) return true;
  const group5 = opcode === 0xff && GROUP5_STACK.includes((byteAt(at) >> 3) & 7);
  // Those that have an operand in memory, too, may have met either.
  if (opcode === 0x8f || group5) return nearTop || byBase(at);
  return STACK_OPCODES.includes(opcode) || (hasModrm(opcode) && byBase(at));
}
