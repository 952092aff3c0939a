/** Names of images in terms of others. */

const PROTOCOL = /^[^/:]*:/;

/** @returns a name as it is meant by an image of the name `from`: relative ones are relative to where that lies */
export function resolveBacking(from: string, name: string): string {
  if (name === '' || name.startsWith('/') || PROTOCOL.test(name)) return name;
  if (from.startsWith('json:')) throw new Error(`Cannot use relative backing file names for '${from}'`);
  const base = from.replace(/^(file|host_device):/, '');
  const end = base.lastIndexOf('/');
  return end < 0 ? name : `${base.slice(0, end + 1)}${name}`;
}
