import { WeirError } from '@weir/errors';
import type { LogRecord, Reader, Serde } from '@weir/log';
import { H, type TopicNames } from '@weir/pipeline';
import { count, epochMs, flag, integer, list, named, nullable, object, optional, text, type TypeOf } from '@weir/service';
import type { Hidden, PlainItem } from './letter-privacy.ts';
import { letterPlace, type Store } from './store.ts';

export interface LetterFilter {
  readonly stage?: string;
  readonly code?: string;
  readonly source?: string;
  readonly destination?: string;
  readonly release?: string;
  /** Time of death, ms since the epoch: at or after, before. */
  readonly since?: number;
  readonly until?: number;
  /** Only those whose record has not gone through since. */
  readonly open?: boolean;
}

type StatsFilter = Pick<LetterFilter, 'stage' | 'code' | 'destination' | 'release'>;

export interface DeadLetterRecord {
  readonly id: string;
  readonly topic: string;
  readonly partition: number;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly headers: ReadonlyArray<{ readonly name: string; readonly value: Buffer }>;
  readonly [field: string]: unknown;
}

const about = {
  id: text('Dead letter id: the same for the same record, stage and reasons.', { example: 'dlq_9f86d081884c7d659a2feaa0c55ad015' }), eventId: text('Event; empty when it is not known.', { example: 'evt_60303ae22b998861bce3b28f33eec1be' }),
  stage: text('normalizer, policy or dispatcher; ingest, of what a poller could not take.'), source: nullable(text('Source.')), destination: nullable(text('Destination.')), operation: nullable(text('Operation.')), release: nullable(text('Hash of the release under which it died.')), at: epochMs('When it died.'),
};
const now = text('What became of it: open, put back, dropped, or how the delivery stands now.');
const letterSummary = named('DeadLetter', object('A record that could not go on.', {
  ...about, codes: list(text('Code of docs/errors.md.', { example: 'contract-breached' }), 'Every reason, the first one first.'), message: text('The first reason, in words.'),
  outputId: nullable(text('The delivery\'s output; null before it was routed.')), partition: count('Where it stands on weir.dlq.'), offset: count('Where it stands on weir.dlq.'),
  held: optional(object('Of one that a rule holds for an approver.', { rule: text('The rule.'), until: epochMs('After that nobody can let it through.') })), now,
}));
export type LetterSummary = TypeOf<typeof letterSummary>;
/** So many of what is left are counted. */
const maxLeft = 10_000;
export const lettersReply = object('Dead letters.', { deadLetters: list(letterSummary, 'The newest first.'), left: count(`How many of those asked for come behind the last one; ${maxLeft} = as many or more.`), next: nullable(text('Give it as `after` for those; null = there are none.')) });

const letterCount = named('DeadLetterCount', object('Dead letters of one stage, code, destination and release.', { stage: text('Stage.'), code: text('The first reason; with `code` in the query that code, whichever of its reasons it is.'), destination: nullable(text('Destination.')), release: nullable(text('Release.')), letters: count('How many.') }));
/** Dead letters by one stage, code, destination and release. */
export type LetterCount = TypeOf<typeof letterCount>;
export const statsReply = named('DeadLetterStats', object('Dead letters by stage, code, destination and release.', { total: count('All that were asked for.'), counts: list(letterCount, 'The most first.') }));

const reason = named('Reason', object('One thing that is wrong with a record.', { code: text('Code of docs/errors.md.'), message: text('In words.'), file: nullable(text('Mapping or contract file.')), line: nullable(integer('Line in that file, from 1.')), field: nullable(text('Canonical field.')), path: nullable(text('Path in the source item.')) }));
export const letterReply = named('DeadLetterWithBytes', object('A dead letter with the record that it is about.', {
  ...about, reasons: list(reason, 'Every reason, the first one first.'), attempts: count('Calls that were made.'), effect: text('Whether a call may have taken effect: none, maybe or done.'), acceptedAt: epochMs('When the event was accepted.'),
  topic: text('Topic that the record was read from.'), partition: count('Its partition there.'), offset: count('Its offset there.'), key: nullable(text('Its key.')),
  value: nullable(text('Its bytes, opened where they were sealed, in base64; null where they cannot or must not be read.')), text: optional(text('The same as text, when it is a raw item that can be read.')),
  headers: list(object('A header of the record.', { name: text('Name.'), value: text('Value.') }), 'Its headers.'),
  erased: flag('The key of the person is destroyed.'),
  hidden: nullable(text('Why bytes are left out: it is, or may be, of an erased person; `key-destroyed`: nobody can read it any more, and no erasure is why (docs/erasure.md).')), now,
}));
export type ShownLetter = TypeOf<typeof letterReply>;

export interface LetterApi {
  /** Newest first. `now` is what became of it: open, or how the delivery or event stands. `after`: behind this place, `next` of an earlier list. */
  list(limit: number, filter: LetterFilter, after?: string): Promise<TypeOf<typeof lettersReply>>;
  /** Each under its first reason; of a `code` all that have it among their reasons, as a list finds them, under that one. */
  stats(filter: StatsFilter): Promise<TypeOf<typeof statsReply>>;
  /**
   * With its bytes (base64); `text` when it is a raw item that can be read. `hidden`: it is, or may be, of an erased person, and
   * its bytes are left out; `key-destroyed`: nobody can read it any more, and no erasure is why (docs/erasure.md). `erased`: the
   * key of the person is destroyed.
   */
  show(id: string): Promise<ShownLetter>;
}

/** Looked at in one turn of the event loop: a few milliseconds. */
const turnLetters = 500;
/** Among a million letters a few may be asked for: a kill switch must not wait for it. */
const nextTurn = (): Promise<void> => new Promise((resume) => { setImmediate(resume); });

/** The dead letter with its bytes, from weir.dlq. Throws not-found. */
export async function readDeadLetter(store: Pick<Store, 'deadLetter'>, reader: Reader, serde: Serde, topics: TopicNames, id: string): Promise<DeadLetterRecord> {
  const summary = store.deadLetter(id);
  if (summary === undefined) throw new WeirError('not-found', `no dead letter ${id}`);
  const record: LogRecord | undefined = await reader.readOne(topics.dlq, Number(summary['partition']), Number(summary['offset']));
  if (record?.value === null || record === undefined) throw new WeirError('not-found', `dead letter ${id} has left the topic (retention)`);
  await serde.prepare(record.value);
  return serde.decode(record.value).value as DeadLetterRecord;
}

/** A raw item has the key of its source and day, which only its retention ends. */
function lockOf(letter: DeadLetterRecord, raw: boolean, value: Buffer | null, hidden: Hidden | undefined): { readonly erased: boolean; readonly hidden: Hidden | 'key-destroyed' | null } {
  const locked = value === null && letter.value !== null;
  const late = (letter['reasons'] as ReadonlyArray<{ readonly code: string }>).some((reason) => reason.code === 'key-destroyed');
  if (locked && (raw || late)) return { erased: false, hidden: 'key-destroyed' };
  return { erased: locked, hidden: hidden ?? null };
}

export function createLetters(ports: { readonly store: Store; readonly reader: Reader; readonly serde: Serde; readonly topics: TopicNames; readonly open: (bytes: Buffer) => Buffer | undefined; readonly guard: (item: PlainItem) => Hidden | undefined }): LetterApi {
  const { store, reader, serde, topics } = ports;

  function nowOf(letter: Record<string, unknown>): string {
    const { outputId, destination, operation, eventId } = letter as { outputId: string | null; destination: string | null; operation: string | null; eventId: string };
    if (outputId !== null && destination !== null) {
      const state = store.deliveryState(`${outputId}|${destination}|${operation ?? ''}`);
      return state === undefined || state === 'dead-lettered' || state === 'quarantined' ? 'open' : state;
    }
    if (letter['stage'] !== 'normalizer') return 'open';
    const end = store.endedAs(eventId);
    return end === undefined ? 'put back' : end === 'dropped' ? 'dropped' : 'open';
  }

  function matches(letter: Record<string, unknown>, f: LetterFilter): boolean {
    const at = Number(letter['at']);
    for (const name of ['stage', 'source', 'destination', 'release'] as const) if (f[name] !== undefined && letter[name] !== f[name]) return false;
    return (f.code === undefined || (letter['codes'] as string[]).includes(f.code)) && (f.since === undefined || at >= f.since) && (f.until === undefined || at < f.until);
  }

  /** As the counters of the store are, by name; no counter has a letter under a reason that is not its first. */
  async function countedUnder(code: string, filter: StatsFilter): Promise<Map<string, number>> {
    const found = new Map<string, number>();
    let looked = 0;
    for (const letter of store.deadLetters()) {
      if (++looked % turnLetters === 0) await nextTurn();
      if (!matches(letter, filter)) continue;
      const name = JSON.stringify([letter['stage'], code, letter['destination'], letter['release']]);
      found.set(name, (found.get(name) ?? 0) + 1);
    }
    return found;
  }

  return {
    async list(limit, filter, after) {
      const found: Record<string, unknown>[] = [];
      let looked = 0;
      let left = 0;
      for (const letter of store.deadLetters(after)) {
        if (++looked % turnLetters === 0) await nextTurn();
        if (!matches(letter, filter)) {
          if (filter.since !== undefined && Number(letter['at']) < filter.since) break;
          continue;
        }
        const now = nowOf(letter);
        if (filter.open === true && now !== 'open') continue;
        if (found.length < limit) found.push({ ...letter, now });
        else if (++left >= maxLeft) break;
      }
      const deadLetters = found as unknown as LetterSummary[];
      return { deadLetters, left, next: left === 0 ? null : letterPlace(found.at(-1)!) };
    },
    async stats(asked) {
      // Nothing else of a query: a list goes by more than is counted.
      const filter: StatsFilter = { stage: asked.stage, code: asked.code, destination: asked.destination, release: asked.release };
      const found = filter.code === undefined ? Object.entries(store.counters('q/')) : [...await countedUnder(filter.code, filter)];
      const counts = found.map(([name, letters]): LetterCount => {
        const [stage, code, destination, release] = JSON.parse(name) as [string, string, string | null, string | null];
        return { stage, code, destination, release, letters };
      }).filter((c) => c.letters > 0 && (['stage', 'code', 'destination', 'release'] as const).every((name) => filter[name] === undefined || c[name] === filter[name]));
      return { total: counts.reduce((sum, c) => sum + c.letters, 0), counts: counts.sort((a, b) => b.letters - a.letters) };
    },
    async show(id) {
      const letter = await readDeadLetter(store, reader, serde, topics, id);
      // Sealed bytes are shown opened; when their key is destroyed, as what they are: unreadable.
      const open = (bytes: Buffer | null): Buffer | null => (bytes === null ? null : ports.open(bytes) ?? null);
      const value = open(letter.value);
      const raw = letter.topic.startsWith(topics.raw(''));
      const envelope = letter.headers.find((h) => h.name === H.envelope)?.value;
      const hidden = raw && value !== null ? ports.guard({ source: letter.topic.slice(topics.raw('').length), eventId: String(letter['eventId']), acceptedAt: Number(letter['acceptedAt']), value, envelope: envelope === undefined ? undefined : open(envelope) ?? undefined }) : undefined;
      const shown = hidden === undefined ? value : null;
      return {
        ...letter, key: letter.key?.toString('utf8') ?? null, value: shown?.toString('base64') ?? null, ...lockOf(letter, raw, value, hidden), now: nowOf(store.deadLetter(id)!),
        text: raw ? shown?.toString('utf8') : undefined, headers: letter.headers.filter((h) => hidden === undefined || h.name !== H.envelope).map((h) => ({ name: h.name, value: open(h.value)?.toString('utf8') ?? '' })),
      } as unknown as ShownLetter;
    },
  };
}
