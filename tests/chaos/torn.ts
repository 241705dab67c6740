/** What a crash of the machine may leave of a local store: files that end early. */
import { existsSync, readdirSync, statSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import type { Random } from './random.ts';

/** Cuts the end off one store below the folder; false = it has none. */
export function tearOne(folder: string, random: Random): boolean {
  if (!existsSync(folder)) return false;
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((f) => f.endsWith('cache.db')).sort().map((f) => join(folder, f)).filter((f) => statSync(f).size > 0);
  if (files.length === 0) return false;
  const file = random.pick(files);
  const { size } = statSync(file);
  truncateSync(file, size - 1 - random.below(Math.min(size - 1, 3 * 4096)));
  return true;
}
