import { deliveryKey, ofItsOwn, type Age } from '@weir/pipeline';
import type { Put, Table } from '@weir/state';
import { deliveryHash, deliveryOf, numberOf, rank, type DeliveryState } from './delivery-states.ts';
import { endText, lastOrder, putBack, standing } from './event-ends.ts';
import { sweepRows, type Kept, type Swept } from './index-sweep.ts';
import { createStageBlocks, type Where } from './stage-blocks.ts';

/**
 * The control index: what happened to each event and delivery, and exact counters, in one local table. Keys:
 *   b/<number>           stages of traces, JSON, and states of deliveries, in the order in which they came (stage-blocks.ts);
 *   i/<event hash, block number>   in which of them stages of an event are
 *   d/<hash of output|destination|operation>   state of a delivery and since when, as a number
 *   e/<event>            first seen on a raw topic
 *   x/<event>            ended before it was routed: `<state>@<ms>@<order that had put it back>`; kept when it is reopened
 *   r/<event>            put back on its raw topic (redrive): `<ms>@<orders>`, the last one last (event-ends.ts)
 *   y/<inverted ms>/<id> summary of a dead letter, JSON; newest first, so that they are written side by side
 *   q/<dead letter id>   where it is: `<inverted ms>`
 *   a/<inverted ms>/<id> of those that a rule holds for an approver, in the same order
 *   u/<event>            its dead letter carries a change of consent that binds nobody: `<source>@[ingest@]<ms of the first letter>`
 *   l/<destination>/<delivery key>   end in the ledger: `state|effect|item hash|ms|offset|ms of the first call of unknown effect|1 when the
 *                        next generation has an end`; state `?`: only that is known of it; the offset of a profile is
 *                        `<offset>@<offset of the first record of the delivery>` where that is known
 *   w/<destination>/<partition>   owner by the order of the ledger, JSON
 *   n/<destination>/<operation>/<subject>   accept time of the newest delivered record of those that do not say what they set; of a profile `<time>@<offset of its first record>`
 *   m/<destination>/<operation>/<object>/<subject>   the same of those that set this object
 *   o/<order>/<delivery>   how what a replay order put back ended
 *   h/<output>|<destination>|<operation>   it is held: of unknown effect, for a person to find out about
 *   c/<counter>          a counter
 *   #/<topic>/<partition>  next offset to be indexed
 * A record is applied with its position in one transaction, so it counts once. What is applied is seen at once and written
 * a little later, that of many batches together (`flush`): after a kill the index is a moment older, positions with it.
 */
export { deliveryStates, type DeliveryState } from './delivery-states.ts';
/** Of another layout: the index is built anew; one of the layouts before is a beginning of this one, in which the orders of redrives (7), first offsets and objects (6) are not known. */
const layout = '8';
const layoutsBefore: ReadonlySet<string | undefined> = new Set(['6', '7']);

/** End of one delivery key, as the ledger has it. */
export interface EndFacts {
  readonly state: string;
  readonly effect: string;
  readonly itemHash: string;
  readonly at: number;
  /** On weir.dispatch.<destination>: the record that ended. */
  readonly offset: number;
  /** First call that may have had an effect; 0 = none. */
  readonly maybeSince: number;
  /** Of a profile: offset there of the first record of the delivery; absent = not known. */
  readonly firstOffset?: number;
  /** Of intent 0: whether the next generation has an end. Undefined = not known. */
  readonly more?: boolean;
}

export interface NewEnd extends Omit<EndFacts, 'more'> {
  readonly outputId: string;
  readonly generation: number;
  readonly destination: string;
  readonly key: string;
  readonly operation: string;
  readonly subject: string;
  readonly acceptedAt: number;
  /** Of a delivered one: what it set (objectOf); empty or absent = not known. */
  readonly object?: string;
  readonly partition: number;
  /** Of failed-over: who wrote it. One of an owner that was passed counts for nobody. */
  readonly owner: string | null;
}

export const eventEnds = ['dropped', 'dead-lettered', 'quarantined'] as const;

export interface Stage {
  readonly stage: 'accepted' | 'normalized' | 'decided' | 'attempt' | 'outcome';
  /** ms since the epoch. */
  readonly at: number;
  readonly [field: string]: unknown;
}

/** Changes of one batch, seen at once by their own reads; written together. */
export interface Transaction {
  stage(eventId: string, stage: Stage, where: Where): void;
  accepted(eventId: string): void;
  /** An order put an event back on its raw topic (redrive): what it had ended as no longer counts. Of one event in the order of its raw topic. */
  reopened(eventId: string, order: string, at: number): void;
  /** An end before the routing, of an event that this order had put back ('' = as it was accepted; undefined = whatever the last one was). Of one event in the order of weir.outcome. */
  ended(eventId: string, state: string, at: number, order: string | undefined): void;
  delivery(id: string, state: DeliveryState, at: number): void;
  /** Whether the last that was told of a delivery is that it is held for a person. */
  held(id: string, is: boolean): void;
  deadLetter(id: string, summary: Record<string, unknown>): void;
  /** An end in the ledger, by the ledger's own rule: a delivery outranks what was given up, the first of equals stays. */
  end(end: NewEnd): void;
  /** Another owner of a partition of a ledger: the highest token, and of equal ones the first, counts. */
  owner(destination: string, partition: number, mark: { readonly token: number; readonly owner: string }): void;
  /** How a record that a replay order put back ended; counted once per order and delivery, by the highest state. */
  replayed(order: string, delivery: string, state: DeliveryState | 'dropped'): void;
  commit(topic: string, partition: number, next: number): void;
}

export interface Store {
  begin(): Transaction;
  /** The order of the first of the rows that tell what replays put back; undefined = there are none. */
  replayedOrder(): string | undefined;
  /** Delete up to `limit` rows of what an order put back; its counters stay. Gives how many there were. */
  forgetReplayed(order: string, limit: number): number;
  stages(eventId: string): Stage[];
  /** Records that the stages of an event were read from. */
  places(eventId: string): Where[];
  /** Of those on weir.canonical the ones of this output, in the order of their time. */
  canonicalPlaces(eventId: string, outputId: string): Where[];
  counter(name: string): number;
  /** Newest first; only those behind this place (`letterPlace`). */
  deadLetters(after?: string): Iterable<Record<string, unknown>>;
  /** Those that a rule held for an approver, newest first; only those behind this place. */
  heldLetters(after?: string): Iterable<Record<string, unknown>>;
  end(destination: string, key: string): EndFacts | undefined;
  /** The newest delivered record of the subject that set this object; '' = of those that do not say what they set. Undefined = none. */
  newest(destination: string, operation: string, subject: string, object: string): Age | undefined;
  deliveryState(id: string): DeliveryState | undefined;
  /** How an event ended before it was routed; undefined when it did not, or was put back since. */
  endedAs(eventId: string): string | undefined;
  /** Events that were set aside with a change of consent; those that were put back since among them. */
  unresolved(): Iterable<{ readonly eventId: string; readonly source: string; readonly at: number; /** It never came onto a raw topic. */ readonly ofIngest: boolean }>;
  counters(prefix: string): Record<string, number>;
  deadLetter(id: string): Record<string, unknown> | undefined;
  position(topic: string, partition: number): number;
  /** Write what is applied. */
  flush(): void;
  /** Delete rows whose records are gone: index-sweep.ts. */
  sweep(kept: Kept, after: string | undefined, limit: number): Swept;
  close(): Promise<void>;
}

const order: Record<Stage['stage'], number> = { accepted: 0, normalized: 1, decided: 2, attempt: 3, outcome: 4 };
const notKnown = '?';
const endRank: Readonly<Record<string, number>> = { [notKnown]: 0, quarantined: 2, 'dead-lettered': 2, 'failed-over': 3, delivered: 4 };
const rankOfEnd = (state: string): number => endRank[state] ?? 1;
const givenUp = 2;
/** As the ledger has it (services/dispatcher/ledger.ts). */
function keepsInstead(before: string, state: string, doubt: number, offset: number): boolean {
  const [known, effect, , , place, maybeSince] = before.split('|') as [string, string, string, string, string, string];
  const [had, has] = [rankOfEnd(known), rankOfEnd(state)];
  const later = had > 0 && had <= givenUp && has <= givenUp ? offset - Number.parseInt(place, 10) : 0;
  if (later !== 0) return later > 0;
  const more = had === 0 || has > givenUp || had > givenUp ? 0 : doubt - (effect === 'maybe' ? Number(maybeSince) : 0);
  return more > 0 || (more === 0 && has > had);
}
const endKey = (destination: string, key: string): string => `l/${destination}/${key}`;
const ownerKey = (destination: string, partition: number): string => `w/${destination}/${partition}`;
const newestKey = (destination: string, operation: string, subject: string, object: string): string => (object === '' ? `n/${destination}/${operation}/${subject}` : `m/${destination}/${operation}/${object}/${subject}`);

function parseEnd(text: string): EndFacts | undefined {
  const [state, effect, itemHash, at, offset, maybeSince, more] = text.split('|') as [string, string, string, string, string, string, string];
  const [place, first] = offset.split('@');
  return state === notKnown ? undefined : { state, effect, itemHash, at: Number(at), offset: Number(place), maybeSince: Number(maybeSince), ...(first === undefined ? {} : { firstOffset: Number(first) }), more: more === '1' };
}

/** A row of the version before is the accept time alone. */
function parseAge(text: string): Age {
  const [acceptedAt, first] = text.split('@');
  return { acceptedAt: Number(acceptedAt), firstOffset: Number(first ?? -1) };
}
const withFirst = (number: number, firstOffset: number): string => (firstOffset < 0 ? String(number) : `${number}@${firstOffset}`);

const inverted = (at: number): string => String(9e15 - at).padStart(16, '0');

/** Of a dead letter, as it was listed, among the others: the newest first. */
export const letterPlace = ({ id, at }: { readonly [field: string]: unknown }): string => `${inverted(Number(at))}/${String(id)}`;

/** Counter of the letters that are counted with this one. */
export const letterCount = ({ stage, codes, destination, release }: Record<string, unknown>): string => `q/${JSON.stringify([stage, (codes as string[])[0] ?? '', destination, release])}`;

/** Rows that wait are written when there are so many, which takes some 100 ms; many at once cost less each. */
const maxWaiting = 10_000;

/** @param gathered places of stages and states that are gathered before they are written; a test has it smaller */
export function createStore(table: Table, gathered?: number): Store {
  const found = table.get('#layout')?.toString('latin1');
  if (found !== layout) {
    if (!layoutsBefore.has(found)) table.clear();
    table.putBatch([{ key: '#layout', value: Buffer.from(layout) }]);
  }
  const parse = (value: Buffer): Record<string, unknown> => JSON.parse(value.toString('utf8')) as Record<string, unknown>;
  /** They are few, asked for all the time and changed by nearly every record; a range of the table would write what waits. */
  const counters = new Map<string, number>();
  for (const { key, value } of table.range('c/')) counters.set(key.slice(2), Number(value.toString('latin1')));
  const blocks = createStageBlocks(table, gathered);
  let waiting = 0;
  table.loading();
  function flush(): void {
    if (waiting === 0) return;
    waiting = 0;
    table.loaded();
    table.loading();
  }
  function* heldLetters(after?: string): Generator<Record<string, unknown>> {
    for (const { key } of table.range('a/', after === undefined ? undefined : `a/${after}`)) {
      const value = table.get(`y/${key.slice(2)}`);
      if (value !== undefined) yield parse(value);
    }
  }
  return {
    begin() {
      const puts = new Map<string, Buffer | null>();
      const deltas = new Map<string, number>();
      const draft = blocks.begin();
      const read = (key: string): string | undefined => {
        const found = puts.get(key);
        return found === undefined ? table.text(key) : found?.toString('utf8');
      };
      const write = (key: string, value: string | null): void => { puts.set(key, value === null ? null : Buffer.from(value)); };
      const count = (name: string, delta: number): void => { deltas.set(name, (deltas.get(name) ?? 0) + delta); };
      /** Changes one of the two rows that tell how an event stands, and what is counted with it. */
      const recount = (eventId: string, row: string, change: (again: string | undefined) => string): void => {
        const before = standing(read(`x/${eventId}`), read(`r/${eventId}`));
        write(row, change(read(`r/${eventId}`)));
        const after = standing(read(`x/${eventId}`), read(`r/${eventId}`));
        if (before === after) return;
        if (before !== undefined) count(`events.${before}`, -1);
        if (after !== undefined) count(`events.${after}`, 1);
      };
      return {
        stage(eventId, stage, where) {
          draft.stage(eventId, order[stage.stage], JSON.stringify(stage), where);
        },
        accepted(eventId) {
          if (read(`e/${eventId}`) !== undefined) return;
          write(`e/${eventId}`, '');
          count('events.accepted', 1);
        },
        reopened(eventId, order, at) {
          recount(eventId, `r/${eventId}`, (again) => putBack(again, order, at));
        },
        ended(eventId, state, at, order) {
          recount(eventId, `x/${eventId}`, (again) => endText(state, at, order ?? lastOrder(again)));
        },
        delivery(id, state, at) {
          const of = deliveryHash(id);
          const number = draft.find(of);
          const before = number === undefined ? undefined : deliveryOf(number).state;
          if (rank(before) >= rank(state)) return;
          if (before !== undefined) count(`deliveries.${before}`, -1);
          draft.number(of, numberOf(state, at));
          count(`deliveries.${state}`, 1);
        },
        held(id, is) {
          if ((read(`h/${id}`) !== undefined) === is) return;
          write(`h/${id}`, is ? '' : null);
          count('deliveries.held', is ? 1 : -1);
        },
        deadLetter(id, summary) {
          const { eventId, stage, codes, source, at: diedAt } = summary as { eventId: string; stage: string; codes: string[]; source: string | null; at: number };
          const at = inverted(diedAt);
          const before = read(`q/${id}`);
          const known = before === undefined ? undefined : read(`y/${before}/${id}`);
          // One of the same id, of a record that was read again or a delivery that policy set aside again, is the same letter: it is listed and
          // counted as it was written last. What a redrive put back and the normalizer or a dispatcher gave up again is another one.
          if (known === undefined) count('deadLetters', 1);
          else count(letterCount(JSON.parse(known) as Record<string, unknown>), -1);
          count(letterCount(summary), 1);
          if (before !== undefined && before !== at) for (const row of [`y/${before}/${id}`, `a/${before}/${id}`]) write(row, null);
          if (before === undefined && codes.includes('consent-unresolved') && read(`u/${eventId}`) === undefined) write(`u/${eventId}`, `${source ?? ''}@${stage === 'ingest' ? 'ingest@' : ''}${diedAt}`);
          write(`q/${id}`, at);
          write(`a/${at}/${id}`, summary['held'] === undefined ? null : '');
          write(`y/${at}/${id}`, JSON.stringify(summary));
        },
        owner(destination, partition, mark) {
          const name = ownerKey(destination, partition);
          const before = read(name);
          if (before === undefined || (JSON.parse(before) as { token: number }).token < mark.token) write(name, JSON.stringify({ token: mark.token, owner: mark.owner }));
        },
        end({ destination, key, state, partition, owner, effect, itemHash, at, offset, maybeSince, operation, subject, acceptedAt, firstOffset = -1, object = '', outputId, generation }) {
          const name = endKey(destination, key);
          const before = read(name);
          const owns = state === 'failed-over' || (effect === 'none' && owner !== null) ? read(ownerKey(destination, partition)) : undefined;
          if (owns !== undefined && (JSON.parse(owns) as { owner: string }).owner !== owner) return;
          if (before === undefined || keepsInstead(before, state, effect === 'maybe' ? maybeSince : 0, offset)) write(name, `${state}|${effect}|${itemHash}|${at}|${withFirst(offset, firstOffset)}|${maybeSince}|${before?.endsWith('|1') === true ? '1' : ''}`);
          if (generation > 0 && (before === undefined || before.startsWith(notKnown)) && deliveryKey(outputId, destination, operation, '0', generation) === key) {
            const last = endKey(destination, deliveryKey(outputId, destination, operation, '0', generation - 1));
            write(last, `${(read(last) ?? `${notKnown}||||||`).replace(/\|1?$/, '')}|1`);
          }
          if (state !== 'delivered' || object === ofItsOwn) return;
          const newest = newestKey(destination, operation, subject, object);
          const known = parseAge(read(newest) ?? '0');
          if (known.acceptedAt < acceptedAt || (known.acceptedAt === acceptedAt && known.firstOffset < firstOffset)) write(newest, withFirst(acceptedAt, firstOffset));
        },
        replayed(order, delivery, state) {
          const name = `o/${order}/${delivery}`;
          const before = read(name);
          if (before !== undefined && rank(before) >= rank(state)) return;
          if (before !== undefined) count(`o/${order}/${before}`, -1);
          write(name, state);
          count(`o/${order}/${state}`, 1);
        },
        commit(topic, partition, next) {
          write(`#/${topic}/${partition}`, String(next));
          for (const [name, delta] of deltas) write(`c/${name}`, String((counters.get(name) ?? 0) + delta));
          const rows = draft.rows();
          for (const [key, value] of puts) rows.push({ key, value });
          table.putBatch(rows);
          draft.written();
          for (const [name, delta] of deltas) counters.set(name, (counters.get(name) ?? 0) + delta);
          deltas.clear();
          waiting += rows.length;
          if (waiting >= maxWaiting) flush();
        },
      };
    },
    replayedOrder() {
      for (const { key } of table.range('o/')) return key.slice(2, key.indexOf('/', 2));
      return undefined;
    },
    forgetReplayed(order, limit) {
      const puts: Put[] = [];
      for (const { key } of table.range(`o/${order}/`)) {
        if (puts.length >= limit) break;
        puts.push({ key, value: null });
      }
      if (puts.length > 0) table.putBatch(puts);
      return puts.length;
    },
    stages: (eventId) => blocks.of(eventId).map(({ json }) => JSON.parse(json) as Stage).sort((a, b) => order[a.stage] - order[b.stage] || a.at - b.at),
    canonicalPlaces: (eventId, outputId) => blocks.of(eventId).filter((kept) => kept.order === order.normalized).map(({ json, topic, partition, offset }) => ({ stage: JSON.parse(json) as Stage, where: { topic, partition, offset } })).filter(({ stage }) => stage['outputId'] === outputId).sort((a, b) => a.stage.at - b.stage.at).map(({ where }) => where),
    places: (eventId) => blocks.of(eventId).map(({ topic, partition, offset }) => ({ topic, partition, offset })),
    counter: (name) => counters.get(name) ?? 0,
    *deadLetters(after) {
      for (const { value } of table.range('y/', after === undefined ? undefined : `y/${after}`)) yield parse(value);
    },
    heldLetters,
    end(destination, key) {
      const value = table.text(endKey(destination, key));
      return value === undefined ? undefined : parseEnd(value);
    },
    newest(destination, operation, subject, object) {
      const text = table.text(newestKey(destination, operation, subject, object));
      return text === undefined ? undefined : parseAge(text);
    },
    deliveryState(id) {
      const number = blocks.find(deliveryHash(id));
      return number === undefined ? undefined : deliveryOf(number).state;
    },
    endedAs: (eventId) => standing(table.text(`x/${eventId}`), table.text(`r/${eventId}`)),
    *unresolved() {
      for (const { key, value } of table.range('u/')) {
        const [source, ...rest] = value.toString('utf8').split('@') as [string, ...string[]];
        yield { eventId: key.slice(2), source, at: Number(rest.at(-1)), ofIngest: rest.length > 1 };
      }
    },
    counters(prefix) {
      const found: Record<string, number> = Object.create(null) as Record<string, number>;
      for (const [name, n] of counters) if (name.startsWith(prefix)) found[name.slice(prefix.length)] = n;
      return found;
    },
    deadLetter(id) {
      const value = table.get(`y/${table.get(`q/${id}`)?.toString('latin1') ?? ''}/${id}`);
      return value === undefined ? undefined : parse(value);
    },
    position: (topic, partition) => Number(table.get(`#/${topic}/${partition}`)?.toString('latin1') ?? 0),
    flush,
    sweep(kept, after, limit) {
      const swept = sweepRows(table, blocks, kept, after, limit);
      for (const [name, n] of swept.counters) counters.set(name, n);
      return swept;
    },
    close: () => table.close(),
  };
}
