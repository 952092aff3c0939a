/** Node.js's buffers as what everybody else knows. */

/** The same bytes; of a Buffer, `slice` would not be a copy. */
export const plainBytes = (data: Buffer): Uint8Array => new Uint8Array(data.buffer, data.byteOffset, data.length);
