import { errorCodes, findWeirError, WeirError } from '@weir/errors';
import { keyedIdsOf, parseIdentifier, type Release, type Scope } from '@weir/release';

export const froms = ['dlq', 'dispatch', 'canonical', 'raw'] as const;
export type From = (typeof froms)[number];
export const stages = ['ingest', 'normalizer', 'policy', 'dispatcher'] as const;

/** What an operator asks for; the body of POST /v1/replays. Times are ms since the epoch. */
export interface ReplayRequest {
  readonly from: From;
  /** Everything in the topics; else at least one selector is needed. */
  readonly all?: boolean;
  readonly since?: number;
  readonly until?: number;
  readonly source?: string;
  readonly destination?: string;
  /** An identifier as every command takes it; kept keyed only. */
  readonly subject?: string;
  readonly code?: string;
  readonly stage?: string;
  readonly release?: string;
  /** Ids of events, or of dead letters. */
  readonly ids?: readonly string[];
  readonly corrected?: boolean;
  readonly verify?: boolean;
  readonly unknown?: 'hold' | 'resend';
  readonly share?: number;
  readonly rate?: number;
  readonly ahead?: number;
  /** Run as soon as the preview is there. */
  readonly start?: boolean;
}

export interface ReplayRange {
  readonly topic: string;
  readonly partition: number;
  readonly start: number;
  readonly end: number;
}

/** weir.internal.ReplayOrder, decoded. */
export interface ReplayOrder {
  readonly id: string;
  readonly at: number;
  readonly by: string;
  readonly leaf: string;
  readonly from: From;
  readonly range: readonly ReplayRange[];
  readonly since: number | null;
  readonly until: number | null;
  readonly source: string | null;
  readonly destination: string | null;
  readonly code: string | null;
  readonly stage: string | null;
  readonly release: string | null;
  readonly subject: readonly string[];
  readonly events: Buffer;
  readonly letters: boolean;
  readonly corrected: boolean;
  readonly verify: boolean;
  readonly unknown: 'hold' | 'resend';
  readonly share: number;
  readonly rate: number;
  readonly ahead: number;
  readonly start: boolean;
  /** Of an order by dead letters: what these are of; null within = any. */
  readonly touches: { readonly sources: readonly string[] | null; readonly destinations: readonly string[] | null } | null;
}
export type Selection = Omit<ReplayOrder, 'id' | 'at' | 'by' | 'leaf' | 'range'>;

export const maxIds = 100_000;
/** So that a run does not stand before live traffic on the topics of the stages for long. */
export const defaultAhead = 2000;
export const defaultShare = 0.1;
const idPattern = /^(evt|dlq)_([0-9a-f]{32})$/;

const bad = (message: string): never => { throw new WeirError('bad-request', message); };
const oneOf = (names: Iterable<string>): string => [...names].sort().join(', ') || 'none';

/** The source and destination that are named; what is not named is any. */
export function scopeOfNames({ source, destination }: { readonly source?: string | null | undefined; readonly destination?: string | null | undefined }): Scope {
  const named = (name: string | null | undefined): Scope['sources'] => (name === undefined || name === null ? '*' : [name]);
  return { sources: named(source), destinations: named(destination) };
}

/** Sources and destinations of an order: of the dead letters that it names, else those that it names itself. */
export function scopeOfOrder(order: Pick<ReplayOrder, 'source' | 'destination' | 'touches'>): Scope {
  const { touches } = order;
  return touches === null ? scopeOfNames(order) : { sources: touches.sources ?? '*', destinations: touches.destinations ?? '*' };
}

const kept = ({ sources, destinations }: Scope): NonNullable<ReplayOrder['touches']> => ({ sources: sources === '*' ? null : sources, destinations: destinations === '*' ? null : destinations });

/**
 * The request as a selection, everything in it known and possible, dead letters that run without a preview too (`isLetter`). `touches`: what the dead
 * letters that it names are of. Throws bad-request that names what is wrong and what there is; nothing was written by then.
 */
export function parseRequest(request: ReplayRequest, release: Pick<Release, 'sources' | 'destinations'>, workspaceKey: Buffer, now: number, isLetter: (id: string) => boolean = () => true, touches?: Scope): Selection {
  const { from, since, until } = request;
  if (!froms.includes(from)) bad(`from: one of ${froms.join(', ')}`);
  checkTimes(since, until, now);
  if (request.source !== undefined && !release.sources.has(request.source)) bad(`source: the running release has no source ${request.source}; it has ${oneOf(release.sources.keys())}`);
  if (request.destination !== undefined && !release.destinations.has(request.destination)) bad(`destination: the running release has no destination ${request.destination}; it has ${oneOf(release.destinations.keys())}`);
  if (from !== 'dlq') for (const name of ['code', 'stage', 'release'] as const) if (request[name] !== undefined) bad(`${name}: only dead letters have one: use it with from dlq`);
  if (request.code !== undefined && !(errorCodes as readonly string[]).includes(request.code)) bad(`code: ${request.code} is no error code of Weir; docs/errors.md lists them`);
  if (request.stage !== undefined && !(stages as readonly string[]).includes(request.stage)) bad(`stage: one of ${stages.join(', ')}`);
  if (request.release !== undefined && !/^rel_[0-9a-f]{16}$/.test(request.release)) bad('release: rel_ and 16 hex digits');
  if (request.corrected === true && from !== 'raw' && from !== 'canonical') bad('corrected: what was delivered can be compared with what the running release makes of raw or canonical records only');
  const { events, letters } = packIds(request.ids, from);
  // What runs at once was shown to nobody: a slip of the pen must not be half of it.
  const unknown = request.start === true && letters ? request.ids!.filter((id) => !isLetter(id)) : [];
  if (unknown.length > 0) bad(`ids: no dead letter ${unknown.slice(0, 5).join(', ')}${unknown.length > 5 ? ` and ${unknown.length - 5} more` : ''}`);
  const subject = request.subject === undefined ? [] : [keyedSubject(request.subject, workspaceKey)];
  const selectors = [since, until, request.source, request.destination, request.subject, request.code, request.stage, request.release, request.ids];
  if (request.all !== true && selectors.every((s) => s === undefined)) bad('say which: a time range, source, destination, subject, code, stage, release, or ids; or all');
  return {
    from, since: since ?? null, until: until ?? null, source: request.source ?? null, destination: request.destination ?? null, code: request.code ?? null, stage: request.stage ?? null, release: request.release ?? null,
    subject, events, letters, corrected: request.corrected ?? false, verify: request.verify ?? false, unknown: request.unknown ?? 'hold', share: request.share ?? defaultShare, rate: request.rate ?? 0, ahead: request.ahead ?? defaultAhead, start: request.start ?? false, touches: touches === undefined ? null : kept(touches),
  };
}

function checkTimes(since: number | undefined, until: number | undefined, now: number): void {
  for (const [name, at] of [['since', since], ['until', until]] as const) if (at !== undefined && (!Number.isSafeInteger(at) || at < 0)) bad(`${name}: milliseconds since the epoch`);
  if (since !== undefined && until !== undefined && since >= until) bad(`the range ends (${new Date(until).toISOString()}) before it begins (${new Date(since).toISOString()})`);
  if (since !== undefined && since > now) bad(`since: ${new Date(since).toISOString()} is in the future`);
}

/** Ids packed to 16 bytes each, sorted, each once. */
function packIds(ids: readonly string[] | undefined, from: From): { readonly events: Buffer; readonly letters: boolean } {
  if (ids === undefined) return { events: Buffer.alloc(0), letters: false };
  if (ids.length === 0) bad('ids: the list is empty');
  if (ids.length > maxIds) bad(`ids: at most ${maxIds}, given ${ids.length}; order it in parts`);
  const kinds = new Set<string>();
  const hex = new Set<string>();
  for (const [i, id] of ids.entries()) {
    const match = idPattern.exec(id) ?? bad(`ids: entry ${i + 1} is neither an event id (evt_…) nor a dead letter id (dlq_…)`);
    kinds.add(match[1]!);
    hex.add(match[2]!);
  }
  if (kinds.size > 1) bad('ids: events and dead letters are mixed: order them apart');
  const letters = kinds.has('dlq');
  if (letters && from !== 'dlq') bad('ids: dead letters are selected with from dlq');
  return { events: Buffer.from([...hex].sort().join(''), 'hex'), letters };
}

/** An identifier as every command takes it → keyed, as records carry it. The identifier itself goes nowhere. */
function keyedSubject(text: string, workspaceKey: Buffer): string {
  try {
    return keyedIdsOf(workspaceKey, parseIdentifier(text))[0]!;
  } catch (error) {
    const known = findWeirError(error);
    if (known?.code !== 'bad-request') throw error;
    return bad(`subject: ${known.message}`);
  }
}

/** Whether an id (evt_… or dlq_…) is in the packed list; all are in an empty one. */
export function idFilter(events: Buffer): (id: string) => boolean {
  if (events.length === 0) return () => true;
  const known = new Set<string>();
  for (let at = 0; at < events.length; at += 16) known.add(events.toString('latin1', at, at + 16));
  return (id) => known.has(Buffer.from(id.slice(4), 'hex').toString('latin1'));
}

/** True when two orders read a record in common, as far as their ranges say. */
export function overlap(a: Pick<ReplayOrder, 'range'>, b: Pick<ReplayOrder, 'range'>): boolean {
  return a.range.some((x) => b.range.some((y) => x.topic === y.topic && x.partition === y.partition && x.start < y.end && y.start < x.end));
}
