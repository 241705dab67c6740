import { setTimeout as delay } from 'node:timers/promises';
import { createClient, type Client } from '../client.ts';
import { Finding, numberOption, textOption, UsageError, type Command, type CommandContext } from '../command.ts';
import { printLeft, type Page } from '../page.ts';
import { printable } from '../terminal.ts';
import { knownNames } from '../known-names.ts';
import { asUse, neverSent, parseTime, passedOver, postOrder, previewAndRun, type OrderView } from './replay.ts';

const pollMs = 100;

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
  /** open, or what became of it. */
  readonly now: string;
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
  /** Its key is destroyed. */
  readonly erased: boolean;
  /** Why the bytes are left out. */
  readonly hidden: 'subject-erased' | 'maybe-erased' | 'key-destroyed' | null;
}

const filters = ['stage', 'code', 'source', 'destination', 'release'] as const;
const about = (letter: Pick<Letter, 'source' | 'destination' | 'operation'>): string => [letter.source, letter.destination, letter.operation].filter((part) => part !== null).join('/');

export const command: Command = {
  name: 'dlq',
  summary: 'Dead letters: list them, show one with its bytes, count them, or send some again: those that are named at once, a selection after a preview.',
  usage: 'list | show <id> | stats | redrive <id>… | redrive <selection> [--yes]',
  options: {
    stage: { type: 'string', value: '<stage>', doc: 'only letters of ingest, normalizer, policy or dispatcher' },
    code: { type: 'string', value: '<code>', doc: 'only letters with this error code' },
    source: { type: 'string', value: '<name>', doc: 'list, redrive: only letters of this source' },
    destination: { type: 'string', value: '<name>', doc: 'only letters of this destination' },
    release: { type: 'string', value: '<rel_…>', doc: 'only letters of this release' },
    since: { type: 'string', value: '<time>', doc: 'list, redrive: dead-lettered at or after: ISO 8601 with Z or an offset, or 30m, 2h, 7d ago' },
    until: { type: 'string', value: '<time>', doc: 'list, redrive: dead-lettered before' },
    open: { type: 'boolean', doc: 'list: only what has not gone through since' },
    all: { type: 'boolean', doc: 'redrive: every letter' },
    limit: { type: 'string', value: '<n>', doc: 'list: at most n letters (default 50)' },
    after: { type: 'string', value: '<place>', doc: 'list: those behind, as an earlier list says' },
    yes: { type: 'boolean', short: 'y', doc: 'redrive of a selection: run after the preview without asking' },
  },
  notes: `redrive <id>… sends these letters at once, without a preview; what was delivered meanwhile is not sent again. One of
unknown effect that nothing can tell of is sent, too, for it was named: it may take effect twice. A selection (and --all)
is shown first, as by weir replay dlq, and such letters are held back.`,
  takes: { list: [...filters, 'since', 'until', 'open', 'limit', 'after'], show: [], stats: ['stage', 'code', 'destination', 'release'], redrive: [...filters, 'since', 'until', 'all', 'yes'] },
  positionals: [1, 1000],
  async run(context) {
    const [action, ...ids] = context.positionals;
    const bad = ids.find((id) => !/^dlq_[0-9a-f]{32}$/.test(id));
    if (bad !== undefined) throw new UsageError(`${printable(bad)} is no dead letter id (dlq_ and 32 hex digits)`);
    if (action === 'list' && ids.length === 0) return list(context);
    if (action === 'stats' && ids.length === 0) return stats(context);
    if (action === 'show' && ids.length === 1) return show(context, createClient(context.target), ids[0]!);
    if (action === 'redrive') return redrive(context, ids);
    throw new UsageError('give list, show <id>, stats, or redrive');
  },
};

function queryOf(context: CommandContext): URLSearchParams {
  const query = new URLSearchParams();
  const release = textOption(context, 'release');
  if (release !== undefined && !/^rel_[0-9a-f]{16}$/.test(release)) throw new UsageError(`--release: rel_ and 16 hex digits, not ${printable(release)}`);
  for (const name of filters) if (textOption(context, name) !== undefined) query.set(name, textOption(context, name)!);
  return query;
}

async function list(context: CommandContext): Promise<number> {
  const query = queryOf(context);
  query.set('limit', String(numberOption(context, 'limit', 50, 1, 10_000)));
  const now = Date.now();
  const [since, until] = (['since', 'until'] as const).map((name) => {
    const text = textOption(context, name);
    const at = text === undefined ? undefined : parseTime(name, text, now);
    if (at !== undefined) query.set(name, String(at));
    return at;
  });
  if (since !== undefined && until !== undefined && since >= until) throw new UsageError(`the range ends (${new Date(until).toISOString()}) before it begins (${new Date(since).toISOString()})`);
  if (context.values['open'] === true) query.set('open', 'true');
  const after = textOption(context, 'after');
  if (after !== undefined) query.set('after', after);
  const client = createClient(context.target);
  const found = await asUse(client.get<Page & { deadLetters: readonly Letter[] }>(`/v1/dlq?${query}`));
  if (found.deadLetters.length === 0) await knownNames(context, client);
  if (context.json) context.terminal.json(found);
  else if (found.deadLetters.length === 0) context.terminal.line('no dead letters');
  else {
    context.terminal.table(['id', 'at', 'stage', 'code', 'about', 'now', 'reason'], found.deadLetters.map((l) => [l.id, new Date(l.at).toISOString(), l.stage, l.codes.join(','), about(l), l.now, l.message]));
    printLeft(context, found.deadLetters.length, found);
  }
  return 0;
}

async function stats(context: CommandContext): Promise<number> {
  const client = createClient(context.target);
  const found = await client.get<{ total: number; counts: ReadonlyArray<{ stage: string; code: string; destination: string | null; release: string | null; letters: number }> }>(`/v1/dlq/stats?${queryOf(context)}`);
  if (found.total === 0) await knownNames(context, client);
  if (context.json) context.terminal.json(found);
  else if (found.total === 0) context.terminal.line('no dead letters');
  else context.terminal.table(['letters', 'stage', 'code', 'destination', 'release'], [...found.counts.map((c) => [String(c.letters), c.stage, c.code, c.destination ?? '-', c.release ?? '-']), [String(found.total), 'in all', '', '', '']]);
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
  if (letter.erased || letter.hidden === 'subject-erased') terminal.line('\nthe person was erased: what was sent is not shown any more');
  else if (letter.hidden === 'key-destroyed') terminal.line(`\nkey-destroyed: ${letter.stage === 'policy' || letter.stage === 'dispatcher' ? 'it was sealed under a key that an erasure of the person destroyed; weir replay raw of its event maps it anew (what came by the consent API: give it again)' : 'the key of raw items of that day was destroyed at the end of their retention; it can be neither shown nor sent again'}`);
  else if (letter.hidden !== null) terminal.line('\nit was accepted before the newest erasure, and its mapping does not tell whose it is: what was sent is not shown (docs/erasure.md)');
  if (letter.value !== null) terminal.line(`\n${letter.text === undefined ? `base64 ${letter.value}` : printable(letter.text)}`);
  return 0;
}

/** By ids an order that runs at once, also what nothing can tell of: it was named. A selection is shown first, as `weir replay dlq` shows it. */
async function redrive(context: CommandContext, ids: readonly string[]): Promise<number> {
  const { terminal, json, values, signal } = context;
  const selection = [...filters, 'since', 'until'].filter((name) => values[name] !== undefined);
  const ways = [ids.length > 0, values['all'] === true, selection.length > 0].filter(Boolean).length;
  if (ways !== 1) throw new UsageError('redrive takes ids, or --all, or a selection (a time range, stage, code, source, destination, release)');
  if (ids.length === 0) return previewAndRun(context, 'dlq');
  if (values['yes'] === true) throw new UsageError('--yes is for a selection: letters that are named are sent at once');
  const client = createClient(context.target);
  let view = await postOrder(client, { from: 'dlq', start: true, ids, unknown: 'resend' });
  while (['previewing', 'previewed', 'running'].includes(view.state) && !signal.aborted) {
    await delay(pollMs);
    view = await client.get<OrderView>(`/v1/replays/${view.id}`);
  }
  if (view.state === 'empty') throw new UsageError(whyEmpty(view, new Set(ids).size));
  if (view.state === 'cancelled') throw new Finding(`order ${view.id} was cancelled by ${printable(view.changedBy)}`);
  const redriven = view.counts['requeued'] ?? 0;
  const left = ['previewing', 'previewed', 'running'].includes(view.state);
  if (json) terminal.json({ order: view.id, redriven, state: view.state });
  else if (left) terminal.line(`${redriven} redriven so far, the order goes on: weir replay watch ${view.id}`);
  else terminal.line(`${redriven} redriven${passedOver(view)} (order ${view.id}${view.state === 'paused' || view.state === 'failed' ? `, ${view.state}${view.reason === null ? '' : `: ${printable(view.reason)}`}` : ''})`);
  return left || view.state === 'failed' || view.state === 'paused' ? 1 : 0;
}

/** Why an order of so many named letters selected none. Copies of one count apart, so that others have gone may be left unsaid, and is never said wrongly. */
function whyEmpty({ id, preview }: OrderView, named: number): string {
  const ended = `(order ${id} ended, nothing was started)`;
  const never = neverSent(preview);
  if (preview === null || never === '') return `none of these letters is there any more ${ended}: weir.dlq has lost them by its retention`;
  const lost = named > preview.held + preview.unreadable + (preview.keyDestroyed ?? 0) ? '; the rest weir.dlq has lost by its retention' : '';
  return `none of these letters can be sent ${ended}: ${never}${lost}`;
}
