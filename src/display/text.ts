/** Screens of characters as text. */
import type { TextScreen } from '../machine/interfaces.ts';

/** Code page 437: what the PC's character generator shows for codes 0 to 31 and 127 to 255. */
const LOW = ' ☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼';
const HIGH =
  '⌂ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧' +
  '╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u00a0';

export function characterOf(code: number): string {
  if (code < 32) return LOW[code]!;
  return code < 127 ? String.fromCharCode(code) : HIGH[code - 127]!;
}

/** The rows from the top, without the spaces at their ends. */
export function linesOf({ columns, rows, cells }: TextScreen): string[] {
  return Array.from({ length: rows }, (_, row) => {
    const line = cells.subarray(row * columns, (row + 1) * columns);
    return Array.from(line, (cell) => characterOf(cell & 0xff))
      .join('')
      .trimEnd();
  });
}
