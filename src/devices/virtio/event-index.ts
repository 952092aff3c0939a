/** Does moving from `before` to `now` pass the event? All count in 16 bits (2.7.10.1). */
export function passed(event: number, now: number, before: number): boolean {
  return ((now - event - 1) & 0xffff) < ((now - before) & 0xffff);
}
