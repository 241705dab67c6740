import type { Put, Table } from '@weir/state';

/**
 * The control index: what happened to each event and delivery, and exact counters, in one LMDB table. Keys:
 *   s/<event>/<stage order>/<topic>/<partition>/<offset>   one stage of a trace, JSON
 *   e/<event>            first seen on a raw topic
 *   x/<event>            ended before it was routed: `<state>@<ms>`; kept when it is reopened
 *   r/<event>            ms when it was put back on its raw topic (redrive)
 *   d/<output>|<destination>|<operation>   state of a delivery
 *   q/<dead letter id>   summary of a dead letter, JSON
 *   c/<counter>          a counter
 *   #/<topic>/<partition>  next offset to be indexed
 * A record is applied with its position in one transaction, so it counts once.
 */
export const deliveryStates = ['pending', 'denied', 'superseded', 'quarantined', 'dead-lettered', 'delivered'] as const;
export type DeliveryState = (typeof deliveryStates)[number];
export const eventEnds = ['dropped', 'dead-lettered', 'quarantined'] as const;

export interface Stage {
  readonly stage: 'accepted' | 'normalized' | 'decided' | 'attempt' | 'outcome';
  /** ms since the epoch. */
  readonly at: number;
  readonly [field: string]: unknown;
}

/** Changes of one batch, seen at once by their own reads; written together. */
export interface Transaction {
  stage(eventId: string, stage: Stage, where: { topic: string; partition: number; offset: number }): void;
  accepted(eventId: string): void;
  /** An event was put back on its raw topic (redrive): ends before that no longer count. */
  reopened(eventId: string, at: number): void;
  ended(eventId: string, state: string, at: number): void;
  delivery(id: string, state: DeliveryState): void;
  deadLetter(id: string, summary: Record<string, unknown>): void;
  commit(topic: string, partition: number, next: number): void;
}

export interface Store {
  begin(): Transaction;
  stages(eventId: string): Stage[];
  /** Records that the stages of an event were read from. */
  places(eventId: string): { readonly topic: string; readonly partition: number; readonly offset: number }[];
  counter(name: string): number;
  deadLetters(limit: number): Record<string, unknown>[];
  deadLetter(id: string): Record<string, unknown> | undefined;
  position(topic: string, partition: number): number;
  close(): Promise<void>;
}

const order: Record<Stage['stage'], number> = { accepted: 0, normalized: 1, decided: 2, attempt: 3, outcome: 4 };
const rank = (state: string | undefined): number => (state === undefined ? -1 : deliveryStates.indexOf(state as DeliveryState));

export function createStore(table: Table): Store {
  const parse = (value: Buffer): Record<string, unknown> => JSON.parse(value.toString('utf8')) as Record<string, unknown>;
  return {
    begin() {
      const puts = new Map<string, Buffer | null>();
      const read = (key: string): string | undefined => {
        const found = puts.has(key) ? puts.get(key) : table.get(key);
        return found === null || found === undefined ? undefined : found.toString('utf8');
      };
      const write = (key: string, value: string | null): void => { puts.set(key, value === null ? null : Buffer.from(value)); };
      /** The last end of an event. Ends and reopenings come over different topics, in any order: the later one counts. */
      const endOf = (eventId: string): [state: string | undefined, at: number] => {
        const stored = read(`x/${eventId}`)?.split('@');
        return stored === undefined ? [undefined, 0] : [stored[0]!, Number(stored[1])];
      };
      const count = (name: string, delta: number): void => write(`c/${name}`, String(Number(read(`c/${name}`) ?? 0) + delta));
      return {
        stage(eventId, stage, { topic, partition, offset }) {
          write(`s/${eventId}/${order[stage.stage]}/${topic}/${partition}/${String(offset).padStart(16, '0')}`, JSON.stringify(stage));
        },
        accepted(eventId) {
          if (read(`e/${eventId}`) !== undefined) return;
          write(`e/${eventId}`, '');
          count('events.accepted', 1);
        },
        reopened(eventId, at) {
          const before = Number(read(`r/${eventId}`) ?? 0);
          if (at <= before) return;
          write(`r/${eventId}`, String(at));
          const [state, endedAt] = endOf(eventId);
          if (state !== undefined && endedAt > before && endedAt <= at) count(`events.${state}`, -1);
        },
        ended(eventId, state, at) {
          const [before, beforeAt] = endOf(eventId);
          if (before !== undefined && at <= beforeAt) return;
          const reopenedAt = Number(read(`r/${eventId}`) ?? 0);
          write(`x/${eventId}`, `${state}@${at}`);
          if (before !== undefined && beforeAt > reopenedAt) count(`events.${before}`, -1);
          if (at > reopenedAt) count(`events.${state}`, 1);
        },
        delivery(id, state) {
          const before = read(`d/${id}`);
          if (rank(before) >= rank(state)) return;
          if (before !== undefined) count(`deliveries.${before}`, -1);
          write(`d/${id}`, state);
          count(`deliveries.${state}`, 1);
        },
        deadLetter(id, summary) {
          if (read(`q/${id}`) === undefined) count('deadLetters', 1);
          write(`q/${id}`, JSON.stringify(summary));
        },
        commit(topic, partition, next) {
          write(`#/${topic}/${partition}`, String(next));
          table.putBatch([...puts].map(([key, value]): Put => ({ key, value })));
        },
      };
    },
    stages: (eventId) => [...table.range(`s/${eventId}/`)].map(({ value }) => parse(value) as unknown as Stage).sort((a, b) => order[a.stage] - order[b.stage] || a.at - b.at),
    places: (eventId) => [...table.range(`s/${eventId}/`)].map(({ key }) => {
      const [topic, partition, offset] = key.split('/').slice(-3);
      return { topic: topic!, partition: Number(partition), offset: Number(offset) };
    }),
    counter: (name) => Number(table.get(`c/${name}`)?.toString('latin1') ?? 0),
    deadLetters(limit) {
      const found: Record<string, unknown>[] = [];
      for (const { value } of table.range('q/')) {
        found.push(parse(value));
        if (found.length >= limit) break;
      }
      return found.sort((a, b) => Number(b['at']) - Number(a['at']));
    },
    deadLetter(id) {
      const value = table.get(`q/${id}`);
      return value === undefined ? undefined : parse(value);
    },
    position: (topic, partition) => Number(table.get(`#/${topic}/${partition}`)?.toString('latin1') ?? 0),
    close: () => table.close(),
  };
}
