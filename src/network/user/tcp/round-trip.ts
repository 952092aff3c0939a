/** The retransmission timeout (RFC 6298), in nanoseconds. */

const FIRST = 1e9;
const LEAST = 1e9;
const MOST = 60e9;
/** What the clock cannot tell apart. */
const GRANULARITY = 1e6;

export class RoundTrip {
  private smoothed = -1;
  private variation = 0;
  private base = FIRST;
  private shift = 0;

  /** Until an acknowledgement is overdue. */
  get timeout(): number {
    return Math.min(this.base * 2 ** this.shift, MOST);
  }

  /** @param sample how long an acknowledgement took, of a segment that was sent once */
  measured(sample: number): void {
    if (this.smoothed < 0) {
      this.smoothed = sample;
      this.variation = sample / 2;
    } else {
      this.variation = 0.75 * this.variation + 0.25 * Math.abs(this.smoothed - sample);
      this.smoothed = 0.875 * this.smoothed + 0.125 * sample;
    }
    this.base = Math.max(LEAST, this.smoothed + Math.max(GRANULARITY, 4 * this.variation));
    this.shift = 0;
  }

  /** The timeout has passed: the next one is twice as long. */
  backOff(): void {
    if (this.timeout < MOST) this.shift++;
  }

  /** Something new was acknowledged. */
  recovered(): void {
    this.shift = 0;
  }
}
