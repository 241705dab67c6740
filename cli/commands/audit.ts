import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { decodeLeaf, verifyCheckpoint, verifyInclusion, verifyLog } from '@weir/audit';
import { createClient, type Client } from '../client.ts';
import { numberOption, textOption, UsageError, type Command, type CommandContext } from '../command.ts';
import { printable } from '../terminal.ts';

interface Page {
  readonly size: number;
  readonly leaves: ReadonlyArray<{ readonly index: number; readonly bytes: string }>;
}
interface Proof {
  readonly index: number;
  readonly size: number;
  readonly bytes: string;
  readonly path: readonly string[];
  readonly checkpoint: string;
}
const pageSize = 1000;
const bytesOf = (base64: string): Buffer => Buffer.from(base64, 'base64');

export const command: Command = {
  name: 'audit',
  summary: 'The audit log: list it, verify it against kept checkpoints, or prove that a leaf is in it.',
  usage: 'list | verify | prove <leaf-id>',
  options: {
    limit: { type: 'string', value: '<n>', doc: 'list: at most n leaves, the newest (default 50)' },
    checkpoints: { type: 'string', value: '<file>', doc: 'verify: kept checkpoints; default audit-checkpoints.jsonl of the data folder' },
    key: { type: 'string', value: '<verifier>', doc: 'verifier key that you noted before; without it the key of the instance counts' },
  },
  positionals: [1, 2],
  async run(context) {
    const [action, id] = context.positionals;
    if (action === 'prove' && id !== undefined) {
      if (!/^leaf_[0-9a-f-]{36}$/.test(id)) throw new UsageError(`${printable(id)} is no leaf id`);
      return prove(context, createClient(context.target), id);
    }
    if (id !== undefined || (action !== 'list' && action !== 'verify')) throw new UsageError('give list, verify, or prove <leaf-id>');
    const client = createClient(context.target);
    return action === 'list' ? list(context, client) : verify(context, client);
  },
};

async function list(context: CommandContext, client: Client): Promise<number> {
  const limit = numberOption(context, 'limit', 50, 1, pageSize);
  const { size } = await client.get<Page>('/v1/audit/leaves?limit=1');
  const { leaves } = await client.get<Page>(`/v1/audit/leaves?from=${Math.max(0, size - limit)}&limit=${limit}`);
  const decoded = leaves.map(({ index, bytes }) => ({ index, leaf: decodeLeaf(bytesOf(bytes)) }));
  if (context.json) context.terminal.json({ size, leaves: decoded.map(({ index, leaf }) => ({ index, ...leaf })) });
  else context.terminal.table(['n', 'at', 'kind', 'actor', 'action', 'target', 'result', 'id'], decoded.map(({ index, leaf }) => (leaf === undefined ? [String(index), '', 'no leaf', '', '', '', '', ''] : [String(index), new Date(leaf.at).toISOString(), leaf.kind, leaf.actor, leaf.action, leaf.target ?? '', String(leaf.details['result'] ?? ''), leaf.id])));
  return 0;
}

async function verify(context: CommandContext, client: Client): Promise<number> {
  const { terminal, json, target } = context;
  const file = textOption(context, 'checkpoints') ?? join(target.dataDir, 'audit-checkpoints.jsonl');
  if (textOption(context, 'checkpoints') !== undefined && !existsSync(file)) throw new UsageError(`there is no ${file}`);
  const kept = existsSync(file) ? readFileSync(file, 'utf8').split('\n').filter((line) => line !== '').map(noteOf) : [];
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
  if (json) terminal.json({ ok: findings.length === 0, leaves: leaves.length, checkpoints: kept.length, verifier: served.verifier, findings });
  else if (findings.length === 0) terminal.line(`${terminal.paint.green('ok')}  ${leaves.length} leaves, ${kept.length} kept checkpoints hold; key ${served.verifier}`);
  else terminal.table(['finding', 'what'], findings.map((f) => [f.kind, f.message]));
  return findings.length === 0 ? 0 : 1;
}

/** A line that is no JSON string counts as a checkpoint nobody signed. */
function noteOf(line: string): string {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === 'string' ? value : '';
  } catch (error) {
    if (error instanceof SyntaxError) return '';
    throw error;
  }
}

async function prove(context: CommandContext, client: Client, id: string): Promise<number> {
  const { terminal, json } = context;
  const proof = await client.get<Proof>(`/v1/audit/leaves/${id}/proof`);
  const key = textOption(context, 'key') ?? (await client.get<{ verifier: string }>('/v1/audit/checkpoint')).verifier;
  const checkpoint = verifyCheckpoint(proof.checkpoint, key);
  const leaf = bytesOf(proof.bytes);
  const ok = checkpoint !== undefined && checkpoint.size === proof.size && decodeLeaf(leaf)?.id === id && verifyInclusion({ leaf, index: proof.index, size: proof.size, path: proof.path.map(bytesOf), root: checkpoint.root });
  if (json) terminal.json({ ok, ...proof });
  else terminal.line(ok ? `${terminal.paint.green('ok')}  ${id} is leaf ${proof.index} of ${proof.size}\n${proof.checkpoint}` : `${terminal.paint.red('no')}  the proof does not hold`);
  return ok ? 0 : 1;
}
