/** A web page has no sockets. */
import type { ByteStream, StreamAddress } from '../host.ts';

export const connectStream = async (_address: StreamAddress): Promise<ByteStream> => {
  throw new Error('sockets are not available in a web page');
};
