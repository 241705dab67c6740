import { createClient, type Client } from '../client.ts';
import { Finding, numberOption, textOption, UsageError, type Command, type CommandContext } from '../command.ts';
import { printable } from '../terminal.ts';

interface Letter {
  readonly id: string;
  readonly eventId: string;
  readonly stage: string;
  /** ms since the epoch. */
  readonly at: number;
  readonly codes: readonly string[];
  readonly message: string;
  readonly source: string | null;
  readonly destination: string | null;
  readonly operation: string | null;
}
interface Shown extends Omit<Letter, 'codes' | 'message'> {
  readonly reasons: ReadonlyArray<{ readonly code: string; readonly message: string; readonly file: string | null; readonly line: number | null; readonly field: string | null; readonly path: string | null }>;
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
  readonly attempts: number;
  readonly effect: string;
  readonly release: string | null;
  /** Base64. */
  readonly value: string | null;
  readonly text?: string;
}

const filters = ['code', 'stage', 'destination'] as const;
const about = (letter: Pick<Letter, 'source' | 'destination' | 'operation'>): string => [letter.source, letter.destination, letter.operation].filter((part) => part !== null).join('/');

export const command: Command = {
  name: 'dlq',
  summary: 'Dead letters: list them, show one with its bytes, or send them on their way again.',
  usage: 'list | show <id> | redrive <id>… | redrive --all',
  options: {
    code: { type: 'string', value: '<code>', doc: 'only letters with this error code' },
    stage: { type: 'string', value: '<stage>', doc: 'only letters of normalizer, policy or dispatcher' },
    destination: { type: 'string', value: '<name>', doc: 'only letters of this destination' },
    all: { type: 'boolean', doc: 'redrive every letter; what was delivered meanwhile is not sent again' },
    limit: { type: 'string', value: '<n>', doc: 'at most n letters in the list (default 50)' },
  },
  positionals: [1, 1000],
  async run(context) {
    const [action, ...ids] = context.positionals;
    const bad = ids.find((id) => !/^dlq_[0-9a-f]{32}$/.test(id));
    if (bad !== undefined) throw new UsageError(`${printable(bad)} is no dead letter id (dlq_ and 32 hex digits)`);
    const client = createClient(context.target);
    if (action === 'list' && ids.length === 0) return list(context, client);
    if (action === 'show' && ids.length === 1) return show(context, client, ids[0]!);
    if (action === 'redrive') return redrive(context, client, ids);
    throw new UsageError('give list, show <id>, or redrive');
  },
};

async function list(context: CommandContext, client: Client): Promise<number> {
  const query = new URLSearchParams({ limit: String(numberOption(context, 'limit', 50, 1, 1000)) });
  for (const name of filters) if (textOption(context, name) !== undefined) query.set(name, textOption(context, name)!);
  const found = await client.get<{ deadLetters: readonly Letter[] }>(`/v1/dlq?${query}`);
  if (context.json) context.terminal.json(found);
  else if (found.deadLetters.length === 0) context.terminal.line('no dead letters');
  else context.terminal.table(['id', 'at', 'stage', 'code', 'about', 'reason'], found.deadLetters.map((l) => [l.id, new Date(l.at).toISOString(), l.stage, l.codes.join(','), about(l), l.message]));
  return 0;
}

async function show(context: CommandContext, client: Client, id: string): Promise<number> {
  const { terminal } = context;
  const letter = await client.find<Shown>(`/v1/dlq/${id}`);
  if (letter === undefined) throw new Finding(`no dead letter ${id}`);
  if (context.json) {
    terminal.json(letter);
    return 0;
  }
  const facts: [string, string][] = [['id', letter.id], ['event', letter.eventId], ['at', new Date(letter.at).toISOString()], ['stage', letter.stage], ['about', about(letter)], ['attempts', `${letter.attempts}, effect ${letter.effect}`], ['release', letter.release ?? '-'], ['record', `${letter.topic}/${letter.partition}/${letter.offset}`]];
  for (const [name, value] of facts) terminal.line(`${terminal.paint.bold(name.padEnd(9))} ${printable(value)}`);
  for (const r of letter.reasons) terminal.line(`${terminal.paint.red(r.code)}  ${printable(r.message)}${r.file === null ? '' : `  ${printable(r.file)}:${r.line ?? 0}`}${r.field === null ? '' : `  field ${printable(r.field)}`}${r.path === null ? '' : `  path ${printable(r.path)}`}`);
  if (letter.value !== null) terminal.line(`\n${letter.text === undefined ? `base64 ${letter.value}` : printable(letter.text)}`);
  return 0;
}

async function redrive(context: CommandContext, client: Client, ids: readonly string[]): Promise<number> {
  const { terminal, json, values } = context;
  const all = values['all'] === true;
  const chosen = Object.fromEntries(filters.map((name) => [name, textOption(context, name)] as const).filter(([, value]) => value !== undefined));
  const ways = [ids.length > 0, all, Object.keys(chosen).length > 0].filter(Boolean).length;
  if (ways !== 1) throw new UsageError('redrive takes ids, or --all, or filters');
  const done = await client.post<{ order: string; redriven: number }>('/v1/dlq/redrive', ids.length > 0 ? { ids } : all ? { all: true } : chosen);
  if (json) terminal.json(done);
  else terminal.line(`${done.redriven} redriven (order ${done.order})`);
  return 0;
}
