import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import type { ReplayPreview } from '@weir/pipeline';
import { createClient, Refused, type Client } from '../client.ts';
import { Finding, numberOption, textOption, UsageError, type Command, type CommandContext } from '../command.ts';
import { printLeft, type Page } from '../page.ts';
import { printable } from '../terminal.ts';

/** A replay order as the control API tells it. */
export interface OrderView {
  readonly id: string;
  readonly from: string;
  readonly state: string;
  readonly by: string;
  readonly at: string;
  readonly since?: string | null;
  readonly until?: string | null;
  readonly source: string | null;
  readonly destination: string | null;
  readonly code: string | null;
  readonly corrected: boolean;
  readonly verify: boolean;
  readonly changedBy: string;
  readonly reason: string | null;
  readonly startedAt: string | null;
  readonly finishedAt: string | null;
  readonly read: number;
  readonly total: number;
  readonly waitingFor: string | null;
  readonly counts: Readonly<Record<string, number>>;
  readonly ended: Readonly<Record<string, number>>;
  readonly preview: ReplayPreview | null;
  readonly report: { readonly seconds: number; readonly left?: readonly string[] } | null;
  readonly overlaps?: ReadonlyArray<{ readonly id: string; readonly by: string; readonly state: string }>;
}
interface FieldDifference {
  readonly eventId: string;
  readonly destination: string;
  readonly operation: string;
  readonly fields: ReadonlyArray<{ readonly field: string; readonly before: unknown; readonly after: unknown }>;
}

const froms = ['dlq', 'dispatch', 'canonical', 'raw'];
const actions = ['list', 'show', 'start', 'pause', 'cancel', 'watch', 'verified', 'diff'];
const pollMs = 250;
const selectors = ['since', 'until', 'source', 'destination', 'subject', 'code', 'stage', 'release', 'ids'] as const;
/** What a new order takes; what only some topics have is told by the control API. */
const ofOrder = [...selectors, 'all', 'verify', 'share', 'corrected', 'resend-unknown', 'rate', 'ahead', 'yes'] as const;
const ended = new Set(['finished', 'empty', 'cancelled', 'failed']);
/** All of the range was read. */
const readWhole = new Set(['delivering', 'finished']);
const shownDifferences = 10;

export const command: Command = {
  name: 'replay',
  summary: 'Send again what was not delivered: a preview first, then the run; or look after an order.',
  usage: 'dlq|dispatch|canonical|raw <selection> [--yes] | list | show|watch|start|pause|cancel|verified|diff <order>',
  options: {
    since: { type: 'string', value: '<time>', doc: 'put on the topic at or after: ISO 8601 with Z or an offset, or 30m, 2h, 7d ago' },
    until: { type: 'string', value: '<time>', doc: 'put on the topic before' },
    source: { type: 'string', value: '<name>', doc: 'only of this source' },
    destination: { type: 'string', value: '<name>', doc: 'only to this destination' },
    subject: { type: 'string', value: '<type:id>', doc: 'only of this person, e.g. email:ada@example.com; kept keyed' },
    code: { type: 'string', value: '<code>', doc: 'dlq: only with this error code' },
    stage: { type: 'string', value: '<stage>', doc: 'dlq: only of normalizer, policy or dispatcher' },
    release: { type: 'string', value: '<rel_…>', doc: 'dlq: only of this release' },
    ids: { type: 'string', value: '<file>', doc: 'only the events (evt_…) or dead letters (dlq_…) in the file, one a line; - is stdin' },
    all: { type: 'boolean', doc: 'everything in the topics' },
    verify: { type: 'boolean', doc: 'ask the vendors whether unknown effects took place' },
    share: { type: 'string', value: '<0-1>', doc: 'part of the accounts\' quota that asking may use (default 0.1, at most 0.9 is used)' },
    corrected: { type: 'boolean', doc: 'also what was delivered and differs under the running release; the first 50 are shown as a diff' },
    'resend-unknown': { type: 'boolean', doc: 'send also what may have been applied and nothing can tell: may take effect twice' },
    rate: { type: 'string', value: '<n>', doc: 'at most n records a second' },
    ahead: { type: 'string', value: '<n>', doc: 'at most n records ahead of the stages, 0 = no bound (default 2000)' },
    yes: { type: 'boolean', short: 'y', doc: 'run after the preview without asking' },
    limit: { type: 'string', value: '<n>', doc: 'verified: at most n names (default 1000)' },
    after: { type: 'string', value: '<place>', doc: 'verified: those behind, as an earlier list says' },
    answer: { type: 'string', value: '<answer>', doc: 'verified: only applied, not-applied, unknown or unreadable' },
  },
  takes: { ...Object.fromEntries(froms.map((from) => [from, ofOrder])), ...Object.fromEntries(actions.map((action) => [action, action === 'verified' ? ['limit', 'answer', 'after'] : []])) },
  positionals: [1, 2],
  async run(context) {
    const [action, id] = context.positionals as [string, string | undefined];
    if (froms.includes(action) && id === undefined) return previewAndRun(context, action);
    if (action === 'list' && id === undefined) return list(context, createClient(context.target));
    if (!actions.includes(action) || id === undefined) throw new UsageError('give dlq, dispatch, canonical or raw with a selection; list; or show, watch, start, pause, cancel, verified or diff with an order');
    if (!/^rpl_[0-9a-f-]{36}$/.test(id)) throw new UsageError(`${printable(id)} is no replay order (rpl_…)`);
    const client = createClient(context.target);
    const view = await client.find<OrderView>(`/v1/replays/${id}`);
    if (view === undefined) throw new Finding(`no replay order ${id}`);
    if (action === 'show') return show(context, view);
    if (action === 'watch') return follow(context, client, view);
    if (action === 'verified') return verified(context, client, id);
    if (action === 'diff') return diff(context, client, view);
    const changed = await client.post<OrderView>(`/v1/replays/${id}/${action}`, {});
    if (action === 'start' && !context.json) return follow(context, client, changed);
    return show(context, changed);
  },
};

/** A time as ISO 8601, a time of day with its zone, or so long ago. Throws UsageError. */
export function parseTime(name: string, text: string, now: number): number {
  const ago = /^(\d{1,6})([smhd])$/.exec(text);
  if (ago !== null) return now - Number(ago[1]) * { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }[ago[2] as 's']!;
  const at = /^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:\d{2}))?$/.test(text) ? Date.parse(text) : Number.NaN;
  if (Number.isNaN(at)) throw new UsageError(`--${name}: ${printable(text)} is no time: write 2026-03-04T10:00:00Z (a time of day needs Z or an offset such as +01:00; a day alone begins in UTC), or 30m, 2h, 7d for so long ago`);
  return at;
}

/** Ids of a list file: one a line, blank lines and lines that begin with # left out. Throws UsageError with the line. */
export function parseIds(text: string): string[] {
  const ids: string[] = [];
  for (const [i, line] of text.split(/\r?\n/).entries()) {
    const id = line.trim();
    if (id === '' || id.startsWith('#')) continue;
    if (!/^(evt|dlq)_[0-9a-f]{32}$/.test(id)) throw new UsageError(`--ids: line ${i + 1} is neither an event id (evt_…) nor a dead letter id (dlq_…): ${printable(id.slice(0, 60))}`);
    ids.push(id);
  }
  if (ids.length === 0) throw new UsageError('--ids: the list is empty');
  return ids;
}

function readIds(file: string): string[] {
  try {
    return parseIds(readFileSync(file === '-' ? 0 : file, 'utf8'));
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw new UsageError(`--ids: ${printable(file)} can not be read (${(error as NodeJS.ErrnoException).code ?? 'error'})`);
  }
}

function fraction(context: CommandContext, name: string): number | undefined {
  const text = textOption(context, name);
  if (text === undefined) return undefined;
  const value = Number(text);
  if (!(value > 0 && value <= 1)) throw new UsageError(`--${name} takes a number above 0, at most 1`);
  return value;
}

function requestOf(context: CommandContext, from: string): Record<string, unknown> {
  const request: Record<string, unknown> = { from };
  const now = Date.now();
  for (const name of selectors) {
    const text = textOption(context, name);
    if (text === undefined) continue;
    request[name] = name === 'since' || name === 'until' ? parseTime(name, text, now) : name === 'ids' ? readIds(text) : text;
  }
  for (const name of ['all', 'verify', 'corrected'] as const) if (context.values[name] === true) request[name] = true;
  if (context.values['resend-unknown'] === true) request['unknown'] = 'resend';
  const share = fraction(context, 'share');
  if (share !== undefined && context.values['verify'] !== true) throw new UsageError('--share is the part of the limits that --verify may use: give both');
  if (share !== undefined) request['share'] = share;
  for (const [name, most] of [['rate', 1_000_000], ['ahead', 10_000_000]] as const) if (textOption(context, name) !== undefined) request[name] = numberOption(context, name, 0, 0, most);
  return request;
}

/** What the control API calls a bad request is wrong use, too (UsageError): nothing was started. */
export async function asUse<T>(asked: Promise<T>): Promise<T> {
  try {
    return await asked;
  } catch (error) {
    if (error instanceof Refused && error.body.error === 'bad-request') throw new UsageError(printable(error.body.message ?? 'bad request'));
    throw error;
  }
}

/** A new order; throws UsageError where it is none that can be. */
export const postOrder = (client: Client, request: Record<string, unknown>): Promise<OrderView> => asUse(client.post<OrderView>('/v1/replays', request));

/** What the preview of an order met that no order sends, with what to do; '' = nothing. */
export function neverSent(preview: ReplayPreview | null): string {
  if (preview === null) return '';
  const { held, unreadable, keyDestroyed = 0 } = preview;
  return [
    ...(held > 0 ? [`${n(held)} held by a rule: they wait for an approval (weir policy approve <id>; weir policy held lists them)`] : []),
    ...(unreadable > 0 ? [`${n(unreadable)} of the records read unreadable: bytes that are not what their topic holds cannot be sent`] : []),
    ...(keyDestroyed > 0 ? [`${n(keyDestroyed)} whose key is destroyed: nobody can read them any more`] : []),
  ].join('; ');
}

function whyEmpty({ id, preview }: OrderView): string {
  const ended = `(order ${id} ended, nothing was started)`;
  const never = neverSent(preview);
  return never === '' ? `nothing matches: no record in the range is selected ${ended}` : `nothing of what matches can be sent ${ended}: ${never}`;
}

const gone = (before: number | null | undefined): string => (before === null || before === undefined ? '' : `; what was put there before ${new Date(before).toISOString()} is gone (retention)`);

/** An order of what the options of the context select: its preview, and the run where --yes or a person at the terminal says so. Gives the exit code; throws UsageError where nothing is selected. */
export async function previewAndRun(context: CommandContext, from: string): Promise<number> {
  const { terminal, json } = context;
  const request = requestOf(context, from);
  const client = createClient(context.target);
  const made = await postOrder(client, request);
  for (const o of made.overlaps ?? []) terminal.error(`note: order ${o.id} of ${printable(o.by)} (${o.state}) reads the same range; what one delivers the other does not send again`);
  const view = await poll(context, client, made, (v) => v.state === 'previewing', 'preview');
  if (view.state === 'empty') throw new UsageError(`${whyEmpty(view)}${gone(view.preview?.goneBefore)}`);
  if (view.state === 'failed') throw new Finding(`the preview failed: ${view.reason ?? ''}`);
  if (view.preview === null) {
    // Ctrl-C, or somebody else cancelled it.
    if (view.state !== 'previewing') throw new Finding(`order ${view.id} was ${view.state} by ${printable(view.changedBy)} before its preview was there`);
    if (json) terminal.json(view);
    else terminal.line(`nothing was started; the preview goes on: weir replay show ${view.id}`);
    return 0;
  }
  if (!json) printPreview(context, view);
  if (!json && view.corrected) await diff(context, client, view);
  if (view.preview.back === 0) {
    await client.post(`/v1/replays/${view.id}/cancel`, {});
    if (json) terminal.json(view);
    else terminal.line('nothing to send.');
    return 0;
  }
  if (!(context.values['yes'] === true || (!json && await confirm(terminal)))) {
    if (json) terminal.json(view);
    else terminal.line(`nothing was started. Run it with: weir replay start ${view.id}`);
    return 0;
  }
  return follow(context, client, await client.post<OrderView>(`/v1/replays/${view.id}/start`, {}));
}

/** Only a person at a terminal is asked. */
async function confirm(terminal: CommandContext['terminal']): Promise<boolean> {
  if (process.stdin.isTTY !== true || process.stdout.isTTY !== true) return false;
  const { createInterface } = await import('node:readline/promises');
  const line = createInterface({ input: process.stdin, output: process.stdout });
  try {
    return /^y(es)?$/i.test((await line.question(terminal.paint.bold('run it? [y/N] '))).trim());
  } finally {
    line.close();
  }
}

/** Looks at the order until it has left the states; a bar on a terminal. */
async function poll(context: CommandContext, client: Client, first: OrderView, stays: (view: OrderView) => boolean, label: string): Promise<OrderView> {
  const bar = context.terminal.progress(first.total, label);
  let view = first;
  try {
    while (stays(view) && !context.signal.aborted) {
      await delay(pollMs);
      view = await client.get<OrderView>(`/v1/replays/${view.id}`);
      if (view.total > 0) bar.step(view.state === 'delivering' ? view.total : view.read);
    }
  } finally {
    bar.end();
  }
  return view;
}

/** Until it ends or is paused; Ctrl-C leaves the order running. Off a terminal a line whenever the state changes, or it waits for something else. */
async function follow(context: CommandContext, client: Client, first: OrderView): Promise<number> {
  const { terminal, json, signal } = context;
  const told = new Set<string>();
  const view = await poll(context, client, first, (v) => {
    const now = `${v.state} ${v.waitingFor ?? ''}`;
    if (!told.has(now) && !(v.waitingFor === null && told.has(v.state)) && !json && !process.stderr.isTTY) terminal.error(`${v.state}: ${v.read} of ${v.total} read, ${v.counts['requeued'] ?? 0} put back${v.waitingFor === null ? '' : `, waiting for ${printable(v.waitingFor)}`}`);
    told.add(now).add(v.state);
    return !ended.has(v.state) && v.state !== 'paused' && v.state !== 'previewed';
  }, 'replay');
  if (json) terminal.json(view);
  else if (signal.aborted) terminal.line(`the replay goes on: weir replay watch ${view.id}`);
  else printReport(context, view);
  return view.state === 'failed' || view.state === 'paused' || view.state === 'cancelled' ? 1 : 0;
}

function show(context: CommandContext, view: OrderView): number {
  if (context.json) context.terminal.json(view);
  else {
    context.terminal.line(`${context.terminal.paint.bold(view.id)}  ${view.state}, from ${view.from}, ordered by ${printable(view.by)} at ${view.at}`);
    if (view.preview !== null) printPreview(context, view);
    if (view.startedAt !== null) printReport(context, view);
    if (view.waitingFor !== null) context.terminal.line(`waiting for ${printable(view.waitingFor)}`);
  }
  return 0;
}

const n = (count: number | undefined): string => (count ?? 0).toLocaleString('en-GB');
const lasts = (seconds: number | null): string => (seconds === null ? 'no limit is stated' : seconds < 120 ? `${seconds} s` : seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`);

/** Deliveries by the calls that carry them. */
function callsOf(c: ReplayPreview['calls'][number]): string {
  const batched = c.deliveries !== undefined && c.deliveries > c.calls;
  return `${n(c.calls)} ${printable(c.destination)}/${printable(c.operation)}${batched ? ` of up to ${n(Math.ceil(c.deliveries! / c.calls))} deliveries` : ''}${(c.readBacks ?? 0) > 0 ? ` and ${n(c.readBacks)} read-backs` : ''}`;
}

/** What of the denied another order lets go on. */
function deniedFor({ otherwise = 0, undecided = 0 }: ReplayPreview): string {
  if (otherwise + undecided === 0) return '';
  const parts = [...(otherwise > 0 ? [`${n(otherwise)} would go with less, or other values, than they carry`] : []), ...(undecided > 0 ? [`${n(undecided)} cannot be decided again: the canonical record is not there`] : [])];
  return `, of them ${parts.join(', ')} (weir replay raw decides anew)`;
}

function printPreview({ terminal }: CommandContext, view: OrderView): void {
  const p = view.preview!;
  const d = p.deliveries;
  const unknown = (d['unknownKeyed'] ?? 0) + (d['unknownReadable'] ?? 0) + (d['unknownHeld'] ?? 0);
  const rows: [string, string, string][] = [
    ['confirmed', n(d['confirmed']), 'delivered; skipped'],
    ['not applied', n(d['notApplied']), 'surely without effect; sent under the next generation of the key'],
    ['unknown', n(unknown), `may have taken effect: ${n(d['unknownKeyed'])} sent under the same key, ${n(d['unknownReadable'])} read back before, ${n(d['unknownHeld'])} held`],
  ];
  if (view.verify) rows.push(['verified', n(d['applied']), `the vendor has them; asked ${n(Object.values(p.verified).reduce((a, b) => a + b, 0))}: ${n(p.verified['applied'])} applied, ${n(p.verified['not-applied'])} not applied, ${n(p.verified['unknown'])} unknown, ${n(p.verified['unreadable'])} it can not be asked about`]);
  rows.push(['denied today', n(d['denied']), `consent or policy says no now${deniedFor(p)}; skipped`], ['superseded', n(d['superseded']), 'a newer record of the person was delivered; skipped'], ['expired', n(d['expired']), 'older than the ledger remembers; skipped']);
  const rest: [string, number | undefined, string][] = [['pending', d['pending'], 'on their way already; skipped'], ['failed over', d['failedOver'], 'went to the second vendor of their route; see there; skipped'], ['conflict', d['conflict'], 'another body under the same event id; skipped'], ['retired', d['retired'], 'no such destination or operation now; skipped'], ['erased', d['erased'], 'the person is erased; not read'], ['key destroyed', p.keyDestroyed, 'nobody can read them any more: raw items past their retention are gone for good; what a later erasure of the person left behind comes again by weir replay raw; skipped'], ['fails still', p.fails, 'the running release refuses the record; skipped'], ['dropped', p.dropped, 'the mapping drops the record; skipped'], ['to be approved', p.held, 'held by a rule: only an approver lets them through (weir policy held)'], ['unreadable', p.unreadable, 'bytes that are not what their topic holds; skipped'], ['differs', view.corrected ? p.differs : 0, `delivered otherwise than the running release would; ${Object.entries(p.fields).map(([field, count]) => `${field} ${n(count)}`).join(', ')}`], ['approved', view.corrected ? p.approved : 0, 'would differ, too, but an approver let them through as they were; skipped']];
  for (const [name, count, what] of rest) if ((count ?? 0) > 0) rows.push([name, n(count), what]);
  terminal.line(`${terminal.paint.bold('preview')}  ${n(p.records)} records selected from ${view.from}${p.repeated > 0 ? ` (${n(p.repeated)} copies left out)` : ''}; ${p.derived ? `mapping and policy of ${p.release} were run to know their deliveries` : `the deliveries are on the topic; policy of ${p.release} was asked whether they may go as they stand`}`);
  const times = [...(view.since ? [`at or after ${view.since}`] : []), ...(view.until ? [`before ${view.until}`] : [])];
  if (times.length > 0) terminal.line(`of what was put there ${times.join(' and ')}`);
  if (p.goneBefore !== null && p.goneBefore !== undefined) terminal.line(terminal.paint.yellow(`what was put there before ${new Date(p.goneBefore).toISOString()} is gone (retention): it is not in the preview, and no replay sends it`));
  terminal.table(['class', 'deliveries', ''], rows);
  terminal.line(`${terminal.paint.bold(`${n(p.back)} records`)} would be put back: ${p.calls.length === 0 ? 'no calls' : p.calls.map(callsOf).join(', ')}; ${lasts(p.seconds)}`);
  for (const l of p.limits ?? []) terminal.line(`  ${n(l.calls)} calls of ${printable(l.bucket === null ? `account ${l.account}` : `${l.account} ${l.bucket}`)}: at least ${lasts(l.seconds)} at ${l.perSecond}/s, ${l.windows} of what the limit gives in its time`);
}

/** What an order that ran did not put back, by why; '' = nothing. What was not even selected its preview alone has, of the whole range: it is told when that was read. */
export function passedOver({ state, counts, preview }: Pick<OrderView, 'state' | 'counts' | 'preview'>): string {
  const why = new Map(Object.entries(counts).filter(([name]) => !['read', 'selected', 'requeued'].includes(name)));
  if (readWhole.has(state) && preview !== null) {
    why.set('held for an approval (weir policy held)', preview.held).set('unreadable', preview.unreadable);
    // A record that was selected is in both.
    why.set('key-destroyed', Math.max(why.get('key-destroyed') ?? 0, preview.keyDestroyed ?? 0));
  }
  const passed = [...why].filter(([, count]) => count > 0).map(([name, count]) => `${n(count)} ${name}`);
  return passed.length === 0 ? '' : `, passed over ${passed.join(', ')}`;
}

function printReport({ terminal }: CommandContext, view: OrderView): void {
  const c = view.counts;
  terminal.line(`${view.state}: ${n(c['selected'])} selected, ${terminal.paint.bold(`${n(c['requeued'])} put back`)}${passedOver(view)}${view.report === null ? '' : ` (${view.report.seconds} s)`}${view.reason === null ? '' : `: ${printable(view.reason)}`}`);
  if (view.report?.left !== undefined) terminal.line(terminal.paint.yellow(`not waited for, as they have left the release: ${view.report.left.map(printable).join(', ')}`));
  const outcomes = Object.entries(view.ended).filter(([, count]) => count > 0);
  if (outcomes.length > 0) terminal.line(`ended: ${outcomes.map(([state, count]) => `${n(count)} ${state}`).join(', ')}`);
}

async function list(context: CommandContext, client: Client): Promise<number> {
  const { replays } = await client.get<{ replays: readonly OrderView[] }>('/v1/replays');
  if (context.json) context.terminal.json({ replays });
  else if (replays.length === 0) context.terminal.line('no replay orders');
  else context.terminal.table(['id', 'at', 'by', 'from', 'state', 'put back', 'what'], replays.map((r) => [r.id, r.at, r.by, r.from, r.state, n(r.counts['requeued']), [r.source, r.destination, r.code].filter((x) => x !== null).join(' ')]));
  return 0;
}

async function verified(context: CommandContext, client: Client, id: string): Promise<number> {
  const query = new URLSearchParams({ limit: String(numberOption(context, 'limit', 1000, 1, 100_000)) });
  const answer = textOption(context, 'answer');
  if (answer !== undefined) query.set('answer', answer);
  const after = textOption(context, 'after');
  if (after !== undefined) query.set('after', after);
  const found = await asUse(client.get<Page & { deliveries: ReadonlyArray<{ eventId: string; destination: string; operation: string; answer: string }> }>(`/v1/replays/${id}/verified?${query}`));
  if (context.json) context.terminal.json(found);
  else {
    context.terminal.table(['event', 'destination', 'operation', 'answer'], found.deliveries.map((d) => [d.eventId, d.destination, d.operation, d.answer]));
    printLeft(context, found.deliveries.length, found, Number.POSITIVE_INFINITY);
  }
  return 0;
}

/** The control service keeps the first 50 of an order, in memory; they are shown until there are more than fit. */
async function diff(context: CommandContext, client: Client, { id, state, preview }: OrderView): Promise<number> {
  const { terminal, json } = context;
  const found = await client.get<{ differences: readonly FieldDifference[] }>(`/v1/replays/${id}/diff`);
  const all = preview?.differs ?? 0;
  if (json) terminal.json(found);
  else {
    for (const d of found.differences.slice(0, shownDifferences)) {
      terminal.line(`${printable(d.eventId)} → ${printable(d.destination)}/${printable(d.operation)}`);
      for (const f of d.fields) terminal.line(`  ${printable(f.field)}: ${terminal.paint.red(printable(JSON.stringify(f.before)))} → ${terminal.paint.green(printable(JSON.stringify(f.after)))}`);
    }
    const shown = Math.min(found.differences.length, shownDifferences);
    if (state === 'previewing') terminal.line('its preview is being made: look again when it is there');
    else if (all > 0 && shown === 0) terminal.line(`the differences of ${n(all)} deliveries are not at hand any more: they are kept in memory, until the run has ended`);
    else if (all > shown) terminal.line(`  the first ${n(shown)} of ${n(all)}${found.differences.length > shown ? `; weir replay diff ${id} --json has the first ${n(found.differences.length)}` : ''}`);
  }
  return 0;
}
