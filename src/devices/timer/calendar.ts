/** Gregorian calendar arithmetic on seconds since 1970, without time zones. */

export type Calendar = {
  second: number;
  minute: number;
  hour: number;
  /** Day of month from 1, month from 1, full year. */
  day: number;
  month: number;
  year: number;
  /** 1 is Sunday, as the MC146818 counts. */
  weekday: number;
};

const DAY = 86400;
/** Dates that `Date` can hold, so that odd register values cannot produce NaN. */
const MAX_SECONDS = 8.64e12;

export function toCalendar(seconds: number): Calendar {
  const clamped = Math.max(-MAX_SECONDS, Math.min(MAX_SECONDS, seconds));
  const date = new Date(clamped * 1000);
  return {
    second: date.getUTCSeconds(),
    minute: date.getUTCMinutes(),
    hour: date.getUTCHours(),
    day: date.getUTCDate(),
    month: date.getUTCMonth() + 1,
    year: date.getUTCFullYear(),
    weekday: date.getUTCDay() + 1,
  };
}

/** Out-of-range fields carry over into the next one. */
export function fromCalendar(c: Calendar): number {
  const date = new Date(0);
  date.setUTCFullYear(c.year, c.month - 1, c.day);
  date.setUTCHours(c.hour, c.minute, c.second);
  return Math.floor(date.getTime() / 1000);
}

/**
 * First second after `from` whose time of day fits the pattern; -1 in it fits anything.
 * @returns Infinity when there is none (fields out of range)
 */
export function nextAlarm(from: number, pattern: { hour: number; minute: number; second: number }): number {
  const fits = (want: number, is: number) => want < 0 || want === is;
  const end = from + DAY;
  // Whole hours and minutes that do not fit are skipped: some 150 steps at most.
  for (let at = from + 1; at <= end; ) {
    const ofDay = ((at % DAY) + DAY) % DAY;
    if (!fits(pattern.hour, Math.floor(ofDay / 3600))) at += 3600 - (ofDay % 3600);
    else if (!fits(pattern.minute, Math.floor(ofDay / 60) % 60)) at += 60 - (ofDay % 60);
    else if (!fits(pattern.second, ofDay % 60)) at += 1;
    else return at;
  }
  return Infinity;
}
