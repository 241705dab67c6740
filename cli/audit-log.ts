import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { keptCheckpoints, verifyLog, type LogFinding } from '@weir/audit';
import type { Client } from './client.ts';
import { textOption, UsageError, type CommandContext } from './command.ts';

export interface Page {
  readonly size: number;
  readonly leaves: ReadonlyArray<{ readonly index: number; readonly bytes: string }>;
}

/** The whole log, and what is wrong with it by every kept checkpoint. */
export interface CheckedLog {
  readonly leaves: readonly Buffer[];
  /** Signed note over the leaves. */
  readonly checkpoint: string;
  /** Key of the instance; the findings are by --key when one was given. */
  readonly verifier: string;
  readonly kept: number;
  readonly findings: readonly LogFinding[];
}

export const pageSize = 1000;
export const bytesOf = (base64: string): Buffer => Buffer.from(base64, 'base64');

/** Tells, on stderr, that without --key the signatures are checked with what the instance itself gives. */
export function tellOwnKey(context: CommandContext): void {
  if (textOption(context, 'key') === undefined && !context.json) context.terminal.error('without --key the key that the instance gives counts: note it elsewhere, and give it from then on');
}

/** Reads the log, leaf by leaf as it stands in the topic, and checks it against the checkpoints of --checkpoints or the data folder; that there are none is a finding. */
export async function checkedLog(context: CommandContext, client: Client): Promise<CheckedLog> {
  const file = textOption(context, 'checkpoints') ?? join(context.target.dataDir, 'audit-checkpoints.jsonl');
  if (textOption(context, 'checkpoints') !== undefined && !existsSync(file)) throw new UsageError(`there is no ${file}`);
  const kept = existsSync(file) ? keptCheckpoints(readFileSync(file, 'utf8')) : [];
  // Leaves first would miss those of a change in between; the checkpoint fixes how many count.
  const served = await client.get<{ checkpoint: string; verifier: string }>('/v1/audit/checkpoint');
  const leaves: Buffer[] = [];
  for (let size = 1; leaves.length < size;) {
    const page = await client.get<Page>(`/v1/audit/leaves?from=${leaves.length}&limit=${pageSize}`);
    size = page.size;
    if (page.leaves.length === 0) break;
    for (const leaf of page.leaves) leaves.push(bytesOf(leaf.bytes));
  }
  const findings = verifyLog({ leaves, served: served.checkpoint, kept, verifier: textOption(context, 'key') ?? served.verifier });
  // That the instance agrees with itself proves nothing.
  if (kept.length === 0) findings.push({ kind: 'not-compared', message: `nothing was compared: ${file} has no kept checkpoint; give --checkpoints with those of a witness, or WEIR_DATA of the instance` });
  return { leaves, checkpoint: served.checkpoint, verifier: served.verifier, kept: kept.length, findings };
}
