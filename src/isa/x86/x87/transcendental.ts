export function transcendentalRoutines(
  memory: WebAssembly.Memory, vcpuBase: number,
): Record<string, WebAssembly.ImportValue> {
  void memory;
  void vcpuBase;
  return Object.fromEntries(['f2xm1', 'fsin', 'fcos', 'fsincos', 'fptan', 'fpatan', 'fyl2x', 'fyl2xp1'].map((n) => [n, () => 0]));
}
