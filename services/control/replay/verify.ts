import type { Delivery, Identifier, ReadBack } from '@weir/adapter';
import { findWeirError } from '@weir/errors';
import { readBackDraw, type Draw, type HttpClient } from '@weir/http';
import type { Serde } from '@weir/log';
import type { ReadBackAnswer } from '@weir/pipeline';
import type { DestinationConfig } from '@weir/release';
import type { Clock } from '@weir/service';
import type { Put, Table } from '@weir/state';
import { isUnreadable } from '../policy/history.ts';
import type { AskQuota } from './ask-quota.ts';
import type { Looked } from './select.ts';
import type { DeliveryFacts } from './standing.ts';
import { canReadBack } from './standing.ts';
import type { VerifiedReply } from './view.ts';

export interface VerifyPorts {
  readonly serde: Serde;
  readonly http: Pick<HttpClient, 'call'>;
  /** Of the release, secrets not resolved; undefined when it is not in it. */
  readonly destination: (name: string) => DestinationConfig | undefined;
  /** With secrets resolved; undefined when one of them cannot be had now. */
  readonly withSecrets: (destination: DestinationConfig) => DestinationConfig | undefined;
  /** False: not enabled, paused by its kill switch, or its credential is refused; no call to it starts. */
  readonly mayCall: (name: string) => boolean;
  /** For how long nothing may be called because weir.control is not read and a kill switch may be on it; 0 = it is. */
  readonly unreadMs: () => number;
  readonly quota: AskQuota;
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
/** A vendor that wants to be left alone for longer is not waited for: what is asked meanwhile stays unknown. */
const longestClosedMs = 30_000;
/** A secret that cannot be had is waited for so long: a token that nobody asked for before is fetched meanwhile. */
const secretWaitMs = 10_000;
/** So often somebody who waits for its turn looks whether the order still goes on. */
const lookMs = 500;
/** An answer of the vendor counts this long: what was not applied then may have been meanwhile, by somebody else's replay. */
const answerCountsMs = 15 * 60_000;
/** Looked at in one turn of the event loop: a few milliseconds. */
const turnAnswers = 1000;

/** `lasting`: it counts in a later pass of the order, too; else the vendor was not asked, or it refused to say. */
interface Asked {
  readonly answer: ReadBackAnswer;
  readonly lasting: boolean;
}
const unreadable: Asked = { answer: 'unreadable', lasting: true };
const unasked: Asked = { answer: 'unknown', lasting: false };

/**
 * Asks vendors whether deliveries of unknown effect took effect, within a share of their accounts' quota, so that live
 * traffic keeps the rest. A destination that is paused or not enabled, or whose secret cannot be had, is not called: its deliveries stay unknown. A
 * `not-applied` counts only when the last call is longer ago than the vendor needs to show it.
 */
export interface Verifier {
  /** The answers, in order. Of an order that was cancelled or paused meanwhile the rest is `unknown`. Rejects while a registry is away; what was answered before counts when it is asked again. */
  ask(order: { readonly id: string; readonly share: number }, unknown: readonly Looked[], goesOn: () => boolean): Promise<ReadBackAnswer[]>;
  /** Deliveries of an order that the vendor was asked about, of those behind `after`: `place` of another one. */
  answers(order: string, after?: string): Iterable<{ readonly place: string; readonly eventId: string; readonly outputId: string; readonly destination: string; readonly operation: string; readonly answer: ReadBackAnswer }>;
  forget(order: string): void;
}

type Question = { readonly read: ReadBack } | 'unbuildable' | 'kept-back';

export function createVerifier(ports: VerifyPorts): Verifier {
  const { clock, table, quota } = ports;
  /** Since when the secret of a destination could not be had, ms. */
  const without = new Map<string, number>();
  const pause = (ms: number): Promise<void> => new Promise((resolve) => { clock.setTimer(resolve, ms); });

  /** One exchange, which the quota has counted. Switch and share are looked at in the tick of the socket write, as for every call. */
  async function question(destination: DestinationConfig, { facts, found }: Looked, delivery: Delivery, { bucket }: Draw): Promise<Question> {
    const verify = destination.adapter.destination!.verify!;
    let end: Parameters<AskQuota['finished']>[2] = { throttled: false, answered: false };
    let kept = false;
    try {
      const request = verify.request(delivery, found.key!, destination.config, clock.now());
      const response = await ports.http.call(request, {
        deadlineMs: destination.operations[facts.operation]!.verify!.timeoutMs ?? defaultTimeoutMs,
        onBeforeWrite: () => !(kept = !ports.mayCall(facts.destination) || !quota.stands(destination.account)),
      });
      if (kept) return 'kept-back';
      const read = verify.classify(response, delivery, found.key!, destination.config);
      const throttled = read.kind === 'throttled';
      end = { throttled, answered: 'status' in response, retryAfterMs: throttled ? read.retryAfterMs : undefined, ...('status' in response ? { headers: response.headers } : {}) };
      return { read };
    } catch (error) {
      if (findWeirError(error)?.code !== 'delivery-unbuildable') throw error;
      return 'unbuildable';
    } finally {
      quota.finished(destination.account, bucket, end);
    }
  }

  /** Undefined = nobody can read it: also who was erased since it was selected, which may be hours ago. */
  async function deliveryOf(facts: DeliveryFacts, payload: Buffer): Promise<Delivery | undefined> {
    try {
      if (!ports.serde.known(payload)) await ports.serde.prepare(payload);
      return adapterDelivery(ports.serde, facts, payload);
    } catch (error) {
      if (isUnreadable(error)) return undefined;
      throw error;
    }
  }

  async function askOne(order: { readonly share: number }, looked: Looked, goesOn: () => boolean): Promise<Asked> {
    const { facts, found, payload } = looked;
    if (payload === undefined || found.key === undefined) return unreadable;
    const delivery = await deliveryOf(facts, payload);
    if (delivery === undefined) return unreadable;
    let refused = false;
    for (let tries = 0; tries < maxTries && goesOn();) {
      const named = ports.destination(facts.destination);
      const operation = named?.operations[facts.operation];
      if (named === undefined || operation === undefined || !canReadBack(named, operation)) return unreadable;
      const unreadMs = ports.unreadMs();
      // What passes: without it all that is left of the order would be unknown in a moment.
      if (unreadMs > 0 && unreadMs <= longestClosedMs) {
        await pause(lookMs);
        continue;
      }
      if (!ports.mayCall(facts.destination)) return unasked;
      const destination = ports.withSecrets(named);
      if (destination === undefined) {
        if (!without.has(named.name)) without.set(named.name, clock.now());
        if (clock.now() - without.get(named.name)! >= secretWaitMs) return unasked;
        await pause(lookMs);
        continue;
      }
      without.delete(named.name);
      const draw = readBackDraw(facts.operation, operation);
      const ms = await quota.take(destination, draw, order.share);
      if (ms > 0) {
        if (quota.closedMs(destination.account, draw.bucket) > longestClosedMs) return unasked;
        await pause(Math.min(lookMs, ms));
        continue;
      }
      tries++;
      const said = await question(destination, looked, delivery, draw);
      if (said === 'unbuildable') return unreadable;
      if (said === 'kept-back') continue;
      const { read } = said;
      ports.asked(facts.destination, read.kind);
      if (read.kind === 'applied') return { answer: 'applied', lasting: true };
      if (read.kind === 'not-applied') return { answer: clock.now() - (found.at ?? 0) >= (operation.verify!.settleMs ?? defaultSettleMs) ? 'not-applied' : 'unknown', lasting: true };
      if (read.kind === 'unknown' || read.kind === 'auth-broken') return { answer: 'unknown', lasting: true };
      refused = read.kind === 'throttled';
      // A refusal for the rate has closed the quota, for everybody who asks.
      if (!refused && tries < maxTries) await pause(Math.min(30_000, 500 * 2 ** (tries - 1)));
    }
    return { answer: 'unknown', lasting: !refused && goesOn() };
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
      let failing = false;
      const worker = async (): Promise<void> => {
        while (at < unknown.length && !failing && goesOn()) {
          const i = at++;
          if (answers[i] !== undefined) continue;
          const looked = unknown[i]!;
          const { answer, lasting } = await askOne(order, looked, goesOn);
          answers[i] = answer;
          const { eventId, outputId, destination, operation } = looked.facts;
          puts.push({ key: keyOf(order.id, looked), value: Buffer.from([answer, lasting ? clock.now() : 0, eventId, outputId, destination, operation].join('|')) });
          if (puts.length >= 200) table.putBatch(puts.splice(0));
        }
      };
      // What was answered is kept, also when one fails: the whole is asked for again then.
      const ended = await Promise.allSettled(Array.from({ length: Math.min(concurrency, unknown.length) }, () => worker().catch((error: unknown) => {
        failing = true;
        throw error;
      })));
      table.putBatch(puts);
      const failed = ended.find((e) => e.status === 'rejected');
      if (failed !== undefined) throw failed.reason;
      return answers.map((answer) => answer ?? 'unknown');
    },
    *answers(order, after) {
      const prefix = `v/${order}/`;
      for (const { key, value } of table.range(prefix, after === undefined ? undefined : prefix + after)) {
        const [answer, , eventId, outputId, destination, operation] = value.toString('utf8').split('|') as [ReadBackAnswer, string, string, string, string, string];
        yield { place: key.slice(prefix.length), answer, eventId, outputId, destination, operation };
      }
    },
    forget(order) {
      table.putBatch([...table.range(`v/${order}/`)].map(({ key }) => ({ key, value: null })));
    },
  };
}

/** The first `limit` that the vendor was said to answer so (undefined = anything), how many are left behind them, and from where. */
export async function pageOfAnswers(found: ReturnType<Verifier['answers']>, answer: string | undefined, limit: number): Promise<VerifiedReply> {
  const deliveries: VerifiedReply['deliveries'][number][] = [];
  let [looked, left] = [0, 0];
  let last: string | null = null;
  for (const { place, ...one } of found) {
    // Among many a kill switch must not wait for them.
    if (++looked % turnAnswers === 0) await new Promise<void>((resume) => { setImmediate(resume); });
    if (answer !== undefined && one.answer !== answer) continue;
    if (deliveries.length >= limit) left++;
    else {
      deliveries.push(one);
      last = place;
    }
  }
  return { deliveries, left, next: left === 0 ? null : last };
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
