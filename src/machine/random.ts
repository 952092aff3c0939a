/** Sources for a guest's random number instructions. */

/** The host's own randomness, fetched in batches. */
export function hostRandom(): () => number {
  const pool = new Uint32Array(256);
  let left = 0;
  return () => {
    if (left === 0) {
      crypto.getRandomValues(pool);
      left = pool.length;
    }
    return pool[--left]! | 0;
  };
}

/** The same sequence in every run, for machines whose runs must be identical (xorshift, Marsaglia 2003). */
export function repeatableRandom(seed = 0x2545f491): () => number {
  let state = seed | 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state;
  };
}
