import { readFileSync } from 'node:fs';
import { join, normalize } from 'node:path';
import { registry } from './registry.ts';

export { registry };

/** Text of a file that ships with an adapter, e.g. its default mapping. The path is one of the manifest's, not a user's. */
export function readAdapterFile(adapter: string, path: string): string {
  if (!registry.has(adapter) || normalize(path) !== path || path.startsWith('..') || path.startsWith('/')) throw new Error(`no file ${path} of adapter ${adapter}`);
  return readFileSync(join(import.meta.dirname, adapter, path), 'utf8');
}
