import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

/** What the image starts a service with: options of node, and variables that are read before node reads its own. Memory measured without them is not that of a service. */
export function imageSettings(): { readonly execArgv: readonly string[]; readonly env: Readonly<Record<string, string>> } {
  const image = readFileSync(join(resolve(import.meta.dirname, '../..'), 'Dockerfile'), 'utf8');
  const of = (name: string): string => {
    const found = new RegExp(`^ENV ${name}=(.*)$`, 'm').exec(image);
    if (found === null) throw new Error(`the Dockerfile sets no ${name}`);
    return found[1]!;
  };
  return { execArgv: of('NODE_OPTIONS').split(' '), env: { MALLOC_MMAP_THRESHOLD_: of('MALLOC_MMAP_THRESHOLD_') } };
}
