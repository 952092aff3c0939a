/** The host's errors in words, without error codes and system calls. */
import { getSystemErrorMessage } from 'node:util';

export function describeError(error: unknown): string {
  const { errno, message } = error as NodeJS.ErrnoException;
  if (typeof errno !== 'number') return String(message ?? error);
  return getSystemErrorMessage(errno) ?? message;
}
