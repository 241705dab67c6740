/** What stays of a round in which something was broken, for whoever looks for the cause. */
import { appendFileSync, cpSync, existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { History } from './history.ts';
import type { World } from './world.ts';

/** Lines that are written at once: the whole of a long round is more than one text can be. */
const atOnce = 1000;

const plain = (_key: string, value: unknown): unknown => (value instanceof Map || value instanceof Set ? [...value] : value);
/** As it can be read: bytes as base64, leaves as the text that they are. */
function lineOf(field: string, entry: unknown): string {
  if (field === 'leaves') {
    const { bytes, at } = entry as History['leaves'][number];
    return JSON.stringify({ leaf: bytes.toString(), at });
  }
  const { value } = (entry ?? {}) as { value?: unknown };
  return JSON.stringify(Buffer.isBuffer(value) ? { ...(entry as object), value: value.toString('base64') } : entry, plain);
}

function writeLines(file: string, field: string, entries: readonly unknown[]): void {
  writeFileSync(file, '');
  for (let from = 0; from < entries.length; from += atOnce) appendFileSync(file, entries.slice(from, from + atOnce).map((entry) => `${lineOf(field, entry)}\n`).join(''));
}

/**
 * Beside the folders that the round itself filled: `violations.txt`, the files and logs of the services (`fleet/`), and
 * `history/<field>.jsonl` with what the checkers saw, a line for each record, and what operators and senders were told.
 * `history`: as far as it was read. Gives the folder.
 */
export function keepEvidence({ fleet, dir, traffic, operators }: Pick<World, 'dir'> & { readonly fleet: Pick<World['fleet'], 'dataDir'>; readonly traffic: Pick<World['traffic'], 'log'>; readonly operators: Pick<World['operators'], 'log'> }, violations: readonly string[], history: History | undefined): string {
  writeFileSync(join(dir, 'violations.txt'), violations.map((line) => `${line}\n`).join(''));
  if (existsSync(fleet.dataDir)) cpSync(fleet.dataDir, join(dir, 'fleet'), { recursive: true });
  const folder = join(dir, 'history');
  mkdirSync(folder, { recursive: true });
  for (const [field, entries] of Object.entries(history ?? {})) if (typeof entries === 'object') writeLines(join(folder, `${field}.jsonl`), field, [...entries as Iterable<unknown>]);
  writeFileSync(join(folder, 'operators.json'), JSON.stringify(operators.log, plain));
  writeLines(join(folder, 'answered.jsonl'), 'answered', [...traffic.log.answered]);
  writeLines(join(folder, 'refusals.jsonl'), 'refusals', traffic.log.refusals);
  return dir;
}

/** What a round leaves on the disk goes, unless it is kept. */
export function tidy(dir: string, kept: boolean): void {
  if (!kept) rmSync(dir, { recursive: true, force: true });
}
