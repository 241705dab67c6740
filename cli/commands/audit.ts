import { decodeLeaf, verifyCheckpoint, verifyInclusion } from '@weir/audit';
import { bytesOf, checkedLog, pageSize, tellOwnKey, type Page } from '../audit-log.ts';
import { createClient, type Client } from '../client.ts';
import { numberOption, textOption, UsageError, type Command, type CommandContext } from '../command.ts';
import { proveEvent } from '../prove-event.ts';
import { printable } from '../terminal.ts';

interface Proof {
  readonly index: number;
  readonly size: number;
  readonly bytes: string;
  readonly path: readonly string[];
  readonly checkpoint: string;
}

export const command: Command = {
  name: 'audit',
  summary: 'The audit log: list it, verify it against kept checkpoints, prove that a leaf is in it, or what was decided about an event.',
  usage: 'list | verify | prove <leaf-id|event-id>',
  options: {
    limit: { type: 'string', value: '<n>', doc: 'list: at most n leaves, the newest (default 50)' },
    checkpoints: { type: 'string', value: '<file>', doc: 'verify, prove an event: kept checkpoints; default audit-checkpoints.jsonl of the data folder' },
    key: { type: 'string', value: '<verifier>', doc: 'verifier key that you noted before; without it the key that the instance gives counts' },
  },
  takes: { list: ['limit'], verify: ['checkpoints', 'key'], prove: ['checkpoints', 'key'] },
  positionals: [1, 2],
  async run(context) {
    const [action, id] = context.positionals;
    if (action === 'prove' && id !== undefined) {
      if (/^evt_[0-9a-f]{32}$/.test(id)) return proveEvent(context, createClient(context.target), id);
      if (!/^leaf_[0-9a-f-]{36}$/.test(id)) throw new UsageError(`${printable(id)} is neither a leaf nor an event`);
      if (context.values['checkpoints'] !== undefined) throw new UsageError('--checkpoints is for the proof of an event');
      return prove(context, createClient(context.target), id);
    }
    if (id !== undefined || (action !== 'list' && action !== 'verify')) throw new UsageError('give list, verify, or prove <leaf-id|event-id>');
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
  const { terminal, json } = context;
  tellOwnKey(context);
  const { leaves, kept, verifier, findings } = await checkedLog(context, client);
  if (json) terminal.json({ ok: findings.length === 0, leaves: leaves.length, checkpoints: kept, verifier, findings });
  else if (findings.length === 0) terminal.line(`${terminal.paint.green('ok')}  ${leaves.length} leaves, ${kept} kept checkpoints hold; key ${verifier}`);
  else terminal.table(['finding', 'what'], findings.map((f) => [f.kind, f.message]));
  return findings.length === 0 ? 0 : 1;
}

async function prove(context: CommandContext, client: Client, id: string): Promise<number> {
  const { terminal, json } = context;
  tellOwnKey(context);
  const proof = await client.get<Proof>(`/v1/audit/leaves/${id}/proof`);
  const key = textOption(context, 'key') ?? (await client.get<{ verifier: string }>('/v1/audit/checkpoint')).verifier;
  const checkpoint = verifyCheckpoint(proof.checkpoint, key);
  const leaf = bytesOf(proof.bytes);
  const ok = checkpoint !== undefined && checkpoint.size === proof.size && decodeLeaf(leaf)?.id === id && verifyInclusion({ leaf, index: proof.index, size: proof.size, path: proof.path.map(bytesOf), root: checkpoint.root });
  if (json) terminal.json({ ok, ...proof });
  else terminal.line(ok ? `${terminal.paint.green('ok')}  ${id} is leaf ${proof.index} of ${proof.size}\n${proof.checkpoint}` : `${terminal.paint.red('no')}  the proof does not hold`);
  return ok ? 0 : 1;
}
