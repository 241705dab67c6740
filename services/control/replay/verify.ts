import type { Delivery, Identifier, OperationManifest, ReadBack } from '@weir/adapter';
import { findWeirError } from '@weir/errors';
import type { HttpClient } from '@weir/http';
import type { Serde } from '@weir/log';
import type { ReadBackAnswer } from '@weir/pipeline';
import type { DestinationConfig } from '@weir/release';
import type { Clock } from '@weir/service';
import type { Put, Table } from '@weir/state';
import type { Looked } from './select.ts';
import type { DeliveryFacts } from './standing.ts';
import { canReadBack } from './standing.ts';

export interface VerifyPorts {
  readonly serde: Serde;
  readonly http: Pick<HttpClient, 'call'>;
  /** With secrets resolved; undefined when it is not in the release or a secret cannot be had. */
  readonly destination: (name: string) => DestinationConfig | undefined;
  /** Cache of answers; it may be deleted, then it is asked again. */
  readonly table: Table;
  readonly clock: Clock;
  readonly asked: (destination: string, answer: string) => void;
}

const defaultTimeoutMs = 10_000;
const defaultSettleMs = 5000;
/** Questions on the way at once; the only bound where the vendor states none. */
const concurrency = 8;
const maxTries = 4;
/** An answer of the vendor counts this long: what was not applied then may have been meanwhile, by somebody else's replay. */
const answerCountsMs = 15 * 60_000;

/**
 * Asks vendors whether deliveries of unknown effect took effect, within a share of the limits they state, so that live
 * traffic keeps the rest. A `not-applied` counts only when the last call is longer ago than the vendor needs to show it.
 */
export interface Verifier {
  /** The answers, in order. Of an order that was cancelled or paused meanwhile the rest is `unknown`. */
  ask(order: { readonly id: string; readonly share: number }, unknown: readonly Looked[], goesOn: () => boolean): Promise<ReadBackAnswer[]>;
  /** Deliveries of an order that the vendor was asked about: `[event id, output id, destination, operation, answer]`. */
  answers(order: string): Iterable<{ readonly eventId: string; readonly outputId: string; readonly destination: string; readonly operation: string; readonly answer: ReadBackAnswer }>;
  forget(order: string): void;
}

export function createVerifier(ports: VerifyPorts): Verifier {
  const { clock, table } = ports;
  const next = new Map<string, number>();

  /** Waits for the turn of this destination and operation; one every so many ms. */
  async function turn(name: string, limit: OperationManifest['limit'], share: number): Promise<void> {
    const perSecond = statedPerSecond(limit) * share;
    if (perSecond === Number.POSITIVE_INFINITY) return;
    const now = clock.monotonic();
    const at = Math.max(now, next.get(name) ?? 0);
    next.set(name, at + 1000 / Math.max(0.01, perSecond));
    if (at > now) await new Promise<void>((resolve) => { clock.setTimer(resolve, at - now); });
  }

  async function askOne(order: { readonly id: string; readonly share: number }, looked: Looked): Promise<ReadBackAnswer> {
    const { facts, found, payload } = looked;
    const destination = ports.destination(facts.destination);
    const operation = destination?.operations[facts.operation];
    if (destination === undefined || operation === undefined || payload === undefined || found.key === undefined || !canReadBack(destination, operation)) return 'unreadable';
    const verify = destination.adapter.destination!.verify!;
    const manifest = operation.verify!;
    if (!ports.serde.known(payload)) await ports.serde.prepare(payload);
    const delivery = adapterDelivery(ports.serde, facts, payload);
    for (let tries = 0; tries < maxTries; tries++) {
      await turn(`${facts.destination}/${facts.operation}`, manifest.limit ?? operation.limit, order.share);
      let read: ReadBack;
      try {
        const request = verify.request(delivery, found.key, destination.config, clock.now());
        read = verify.classify(await ports.http.call(request, { deadlineMs: manifest.timeoutMs ?? defaultTimeoutMs }), delivery, found.key, destination.config);
      } catch (error) {
        if (findWeirError(error)?.code !== 'delivery-unbuildable') throw error;
        return 'unreadable';
      }
      ports.asked(facts.destination, read.kind);
      if (read.kind === 'applied') return 'applied';
      if (read.kind === 'not-applied') return clock.now() - (found.at ?? 0) >= (manifest.settleMs ?? defaultSettleMs) ? 'not-applied' : 'unknown';
      if (read.kind === 'unknown' || read.kind === 'auth-broken') return 'unknown';
      await new Promise<void>((resolve) => { clock.setTimer(resolve, Math.min(30_000, read.kind === 'throttled' ? read.retryAfterMs ?? 1000 : 500 * 2 ** tries)); });
    }
    return 'unknown';
  }

  const keyOf = (order: string, looked: Looked): string => `v/${order}/${looked.found.key ?? looked.facts.outputId}`;

  function known(order: string, looked: Looked): ReadBackAnswer | undefined {
    const stored = table.get(keyOf(order, looked))?.toString('utf8').split('|');
    if (stored === undefined) return undefined;
    const answer = stored[0] as ReadBackAnswer;
    // What was applied stays so.
    return answer === 'applied' || clock.now() - Number(stored[1]) < answerCountsMs ? answer : undefined;
  }

  return {
    async ask(order, unknown, goesOn) {
      const answers = unknown.map((looked) => known(order.id, looked));
      let at = 0;
      const puts: Put[] = [];
      const worker = async (): Promise<void> => {
        while (at < unknown.length && goesOn()) {
          const i = at++;
          if (answers[i] !== undefined) continue;
          const looked = unknown[i]!;
          answers[i] = await askOne(order, looked);
          const { eventId, outputId, destination, operation } = looked.facts;
          puts.push({ key: keyOf(order.id, looked), value: Buffer.from([answers[i], clock.now(), eventId, outputId, destination, operation].join('|')) });
          if (puts.length >= 200) table.putBatch(puts.splice(0));
        }
      };
      await Promise.all(Array.from({ length: Math.min(concurrency, unknown.length) }, worker));
      table.putBatch(puts);
      return answers.map((answer) => answer ?? 'unknown');
    },
    *answers(order) {
      for (const { value } of table.range(`v/${order}/`)) {
        const [answer, , eventId, outputId, destination, operation] = value.toString('utf8').split('|') as [ReadBackAnswer, string, string, string, string, string];
        yield { answer, eventId, outputId, destination, operation };
      }
    },
    forget(order) {
      table.putBatch([...table.range(`v/${order}/`)].map(({ key }) => ({ key, value: null })));
    },
  };
}

/** Calls a second that the vendor's stated limits allow for long; Infinity = none is stated. */
export function statedPerSecond(limit: OperationManifest['limit']): number {
  return Math.min(...[limit?.steady, limit?.burst].flatMap((l) => (l === undefined ? [] : [(l.count / l.perMs) * 1000])), Number.POSITIVE_INFINITY);
}

const identifierFields = [['userId', 'userId'], ['email', 'email'], ['phone', 'phone']] as const;

/** As the dispatcher gives it to the adapter. */
function adapterDelivery(serde: Serde, facts: DeliveryFacts, payload: Buffer): Delivery {
  const record = serde.decode(payload).value;
  const identifiers: Identifier[] = [];
  for (const [field, type] of identifierFields) if (typeof record[field] === 'string') identifiers.push({ type, value: record[field] });
  for (const e of record.externalIds ?? []) identifiers.push({ type: 'external', value: `${e.type}:${e.value}` });
  if (typeof record.anonymousId === 'string') identifiers.push({ type: 'anonymousId', value: record.anonymousId });
  return { destination: facts.destination, operation: facts.operation, recordType: facts.recordType, record, identifiers, eventId: facts.eventId, outputId: facts.outputId, acceptedAt: facts.acceptedAt };
}
