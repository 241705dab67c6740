import { WeirError } from '@weir/errors';
import type { Appender, Headers, LogAdmin, OutRecord, Reader, RecordBatch } from '@weir/log';
import { deliveryKey, H } from '@weir/pipeline';
import { followControl, leafHeader, saveIncident, valuesUnder } from '@weir/release';
import { count, instant, list as listOf, named, nullable, object, oneOf, text, type ServiceContext, type TypeOf } from '@weir/service';
import type { AuditLog } from '../audit.ts';
import { readDeadLetter, type DeadLetterRecord } from '../letters.ts';
import type { ChangedBy } from '../releases.ts';
import { letterPlace, type Store } from '../store.ts';
import { createEscalating } from './escalating.ts';

/** So many of what is left are counted. */
const maxLeft = 10_000;
export const heldStates = ['waiting', 'approved', 'refused', 'expired'] as const;
export const heldDelivery = named('HeldDelivery', object('A delivery that a rule holds until somebody lets it through.', {
  id: text('Dead letter id.'), eventId: text('Event.'), rule: text('The rule.'), source: nullable(text('Source.')), destination: text('Destination.'), operation: text('Operation there.'), at: instant('When it was held.'), until: instant('After that nobody can let it through.'),
  state: oneOf(heldStates, 'How it stands.'), by: nullable(text('Who decided.')),
}));
export type HeldDelivery = TypeOf<typeof heldDelivery>;

export const heldReply = object('Held deliveries.', { held: listOf(heldDelivery, 'The newest first.'), left: count(`How many of those asked for come behind the last one; ${maxLeft} = as many or more.`), next: nullable(text('Give it as `after` for those; null = there are none.')) });

export interface HeldApi {
  /** Newest first; only those that stand so. `after`: behind this place, `next` of an earlier list. */
  list(limit: number, state?: HeldDelivery['state'], after?: string): Promise<TypeOf<typeof heldReply>>;
  /** Resolves when the record is on its way again, or its end is written; of several decisions the first on weir.control counts. Rejects with not-found, bad-request (decided already), approval-expired, self-approval. */
  decide(id: string, decision: 'approved' | 'refused', by: ChangedBy): Promise<HeldDelivery>;
  close(): Promise<void>;
}

interface Approval {
  readonly id: string;
  readonly eventId: string;
  readonly rule: string;
  readonly destination: string;
  readonly operation: string;
  readonly decision: 'approved' | 'refused';
  readonly by: string;
  readonly at: number;
  readonly leaf: string;
  /** False: what follows from it may not be written yet. */
  readonly done: boolean;
  /** Offset of its letter on weir.dlq; null in a record of before. */
  readonly letter: number | null;
}

interface Ports {
  readonly store: Pick<Store, 'deadLetter' | 'heldLetters' | 'position'>;
  readonly reader: Reader;
  readonly admin: Pick<LogAdmin, 'endOffsets'>;
  readonly appender: Appender;
  readonly audit: () => Pick<AuditLog, 'proof'>;
  /** Whether two principals may be one person. */
  readonly sameHand: (a: string, b: string) => boolean;
  readonly failed: (error: Error) => void;
}

const approvalKey = 'approval/';
const retryMs = 5000;
/** Looked at in one turn of the event loop: a few milliseconds. */
const turnLetters = 500;
/** So often, and so many ms apart, it is looked whether the index has come to the end of weir.dlq. */
const indexLooks = 20;
const indexLookMs = 50;

/**
 * Reads weir.control to its end, then follows it, so a decision on another instance counts here too. A decision is written
 * before anything is done about it, and what a crash cut off is done by the next start: each step may be repeated.
 */
export async function openHeld(context: Pick<ServiceContext, 'serde' | 'topics' | 'clock' | 'releases' | 'logger'>, ports: Ports): Promise<HeldApi> {
  const { serde, topics, clock, releases } = context;
  const { store, reader, appender } = ports;
  const decided = new Map<string, Approval>();
  const deciding = new Map<string, Promise<unknown>>();
  const timers = new Set<unknown>();
  let closed = false;
  /** weir.control below this offset was read. */
  let read = 0;

  const takeApprovals = valuesUnder<Approval>(serde, approvalKey, (found) => {
    const first = decided.get(found.id);
    const [letter, before] = [found.letter ?? -1, first?.letter ?? -1];
    if (first === undefined || letter > before) decided.set(found.id, found);
    else if (letter === before && (first.leaf === found.leaf || (found.done && !first.done))) decided.set(found.id, first.done ? first : found);
  });
  async function take(batch: RecordBatch): Promise<void> {
    await takeApprovals(batch);
    read = Math.max(read, batch.nextOffset);
  }
  const follower = await followControl({ reader, admin: ports.admin, topic: topics.control }, take, ports.failed);

  /** The decision about this letter: one of the same id that was held again since, by a replay, is another. By the order of weir.dlq; of a decision of before, by time. */
  function decisionOn(letter: Record<string, unknown>): Approval | undefined {
    const found = decided.get(String(letter['id']));
    return found === undefined || (found.letter === null ? Number(letter['at']) > found.at : Number(letter['offset']) > found.letter) ? undefined : found;
  }

  function view(letter: Record<string, unknown>): HeldDelivery | undefined {
    const held = letter['held'] as { rule: string; until: number } | undefined;
    if (held === undefined) return undefined;
    const decision = decisionOn(letter);
    const state = decision?.decision ?? (held.until <= clock.now() ? 'expired' : 'waiting');
    return {
      id: String(letter['id']), eventId: String(letter['eventId']), rule: held.rule, source: letter['source'] as string | null, destination: String(letter['destination']), operation: String(letter['operation']),
      at: new Date(Number(letter['at'])).toISOString(), until: new Date(held.until).toISOString(), state, by: decision?.by ?? null,
    };
  }

  /** All of them, those that do not wait any more, too; in turns. Ends when this is closed. */
  async function* all(after?: string): AsyncGenerator<{ readonly held: HeldDelivery; readonly place: string }> {
    let looked = 0;
    for (const letter of store.heldLetters(after)) {
      if (++looked % turnLetters === 0) {
        await new Promise<void>((resume) => { setImmediate(resume); });
        if (closed) return;
      }
      const held = view(letter);
      if (held !== undefined) yield { held, place: letterPlace(letter) };
    }
  }

  async function list(limit: number, state?: HeldDelivery['state'], after?: string): Promise<TypeOf<typeof heldReply>> {
    const found: HeldDelivery[] = [];
    let next: string | null = null;
    let left = 0;
    for await (const { held, place } of all(after)) {
      if (state !== undefined && held.state !== state) continue;
      if (found.length < limit) [next] = [place, found.push(held)];
      else if (++left >= maxLeft) break;
    }
    return { held: found, left, next: left === 0 ? null : next };
  }

  /** Who ordered that the record is sent again must not let it through. */
  async function orderedBy(letter: DeadLetterRecord): Promise<string | undefined> {
    const order = letter.headers.find((h) => h.name === H.intent)?.value.toString('latin1') ?? '';
    const uuid = /[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.exec(order)?.[0];
    if (uuid === undefined) return undefined;
    try {
      const { bytes } = await ports.audit().proof(`leaf_${uuid}`);
      return (JSON.parse(Buffer.from(bytes, 'base64').toString('utf8')) as { actor: string }).actor;
    } catch (error) {
      if ((error as { code?: string }).code === 'not-found') return undefined;
      throw error;
    }
  }

  /** The canonical record goes its way again, marked for this one delivery. Twice is harmless: the key of the delivery is the same. */
  async function putBack(letter: DeadLetterRecord, held: HeldDelivery): Promise<void> {
    const before = letter.headers.find((h) => h.name === H.approval)?.value.toString('utf8').split('/')[2]?.split(',') ?? [];
    const kept: Headers = letter.headers.filter((h) => h.name !== H.held && h.name !== H.approval).map((h) => [h.name, h.value] as const);
    const record: OutRecord = { partition: letter.partition, key: letter.key, value: letter.value, headers: [...kept, [H.approval, Buffer.from(`${held.destination}/${held.operation}/${[...new Set([...before, held.rule])].join(',')}`)]] };
    await appender.append(topics.canonical, [record]);
  }

  /** A refused delivery has an end of its own. */
  async function refuse(letter: DeadLetterRecord, held: HeldDelivery, by: string): Promise<void> {
    const header = (name: string): string => letter.headers.find((h) => h.name === name)?.value.toString('utf8') ?? '';
    const outputId = header(H.output);
    // A delivery that corrects another has the key of its correction (services/policy/delivery.ts).
    const intent = header(H.corrects).split(',').map((part) => part.split('=', 2)).find(([name]) => name === `${outputId}/${held.destination}/${held.operation}`)?.[1] ?? '0';
    const outcome = {
      eventId: held.eventId, outputId, destination: held.destination, operation: held.operation, key: deliveryKey(outputId, held.destination, held.operation, intent, 0),
      state: 'denied', reason: 'approval-refused', detail: `refused by ${by}`, stage: 'policy', release: letter['release'], rule: held.rule, purpose: null, consent: [], attempts: 0, status: null, attempt: null,
      acceptedAt: letter['acceptedAt'], at: clock.now(),
    };
    const key = Buffer.from(held.eventId);
    await appender.append(topics.outcome, [{ partition: appender.partitionFor(topics.outcome, key), key, value: serde.encode('weir.internal.Outcome', outcome), headers: letter.headers.filter((h) => h.name === H.event || h.name === H.source || h.name === H.traceparent).map((h) => [h.name, h.value] as const) }]);
  }

  /** Whether the index has what is on weir.dlq now. It is always a moment behind one that more comes to: it is waited for a while. */
  async function isIndexed(): Promise<boolean> {
    const ends = [...await ports.admin.endOffsets(topics.dlq)];
    for (let looks = 0; !closed; looks++) {
      if (ends.every(([partition, end]) => store.position(topics.dlq, partition) >= end)) return true;
      if (looks >= indexLooks) return false;
      await new Promise<void>((resume) => { clock.setTimer(resume, indexLookMs); });
    }
    return false;
  }

  /** Of these rules those that hold something that waits; undefined = closed meanwhile, or letters that are on weir.dlq are not in the index yet. */
  async function waiting(rules: ReadonlySet<string>): Promise<ReadonlySet<string> | undefined> {
    if (!await isIndexed()) return undefined;
    const found = new Set<string>();
    for await (const { held } of all()) {
      if (held.state === 'waiting' && rules.has(held.rule)) found.add(held.rule);
      if (found.size === rules.size) break;
    }
    return closed ? undefined : found;
  }

  async function write(approval: Approval): Promise<number> {
    const [offset] = await appender.append(topics.control, [{ partition: 0, key: Buffer.from(approvalKey + approval.id), value: serde.encode('weir.internal.Approval', approval), headers: [[leafHeader, Buffer.from(approval.leaf)]] }]);
    return offset!;
  }

  /** What follows from a decision, and that it is done. */
  async function act(approval: Approval, letter: DeadLetterRecord, held: HeldDelivery): Promise<void> {
    if (approval.decision === 'approved') await putBack(letter, held);
    else await refuse(letter, held, approval.by);
    const done = { ...approval, done: true };
    await write(done);
    decided.set(approval.id, done);
    await escalating.decided(held.rule);
  }

  /** Goes on with a decision that a crash or an error left; tried again until it is done, or its letter has left the topic. */
  function goOn(id: string, inMs: number): void {
    if (closed) return;
    const timer = clock.setTimer(() => {
      timers.delete(timer);
      void inTurn(id, async () => {
        const approval = decided.get(id)!;
        const summary = store.deadLetter(id);
        const held = summary === undefined ? undefined : view(summary);
        if (approval.done) return;
        if (held === undefined) throw new WeirError('not-ready', 'its letter is not in the index yet');
        // It was held again since, and waits for a decision of its own.
        if (decisionOn(summary!) !== approval) return;
        await act(approval, await readDeadLetter(store as Store, reader, serde, topics, id), held);
      }).catch((error: unknown) => {
        if ((error as { code?: string }).code === 'not-found') return context.logger.error({ letter: id }, 'the letter of a decided delivery has left its topic: nothing can follow from the decision');
        context.logger.error({ err: error, letter: id }, 'a decision about a held delivery is not done yet; it is tried again');
        goOn(id, retryMs);
      });
    }, inMs);
    timers.add(timer);
  }

  /** One at a time of one delivery. */
  function inTurn<T>(id: string, work: () => Promise<T>): Promise<T> {
    const result = (deciding.get(id) ?? Promise.resolve()).then(work);
    const settled = result.catch(() => undefined).finally(() => { if (deciding.get(id) === settled) deciding.delete(id); });
    deciding.set(id, settled);
    return result;
  }

  async function decide(id: string, decision: Approval['decision'], { actor, leaf }: ChangedBy): Promise<HeldDelivery> {
    const summary = store.deadLetter(id);
    const held = summary === undefined ? undefined : view(summary);
    if (held === undefined) throw new WeirError('not-found', `no delivery is held as ${id}`);
    if (held.state === 'expired') throw new WeirError('approval-expired', `${id} could be let through until ${held.until}`);
    const already = (state: string, by: string | null): WeirError => new WeirError('bad-request', `${id} was ${state} by ${by ?? 'somebody'} already`);
    if (held.state !== 'waiting') throw already(held.state, held.by);
    const letter = await readDeadLetter(store as Store, reader, serde, topics, id);
    const orderer = decision === 'approved' ? await orderedBy(letter) : undefined;
    if (orderer !== undefined && ports.sameHand(orderer, actor)) throw new WeirError('self-approval', 'who ordered the replay can not let its deliveries through');
    const approval: Approval = { id, eventId: held.eventId, rule: held.rule, destination: held.destination, operation: held.operation, decision, by: actor, at: clock.now(), leaf, done: false, letter: Number(summary!['offset']) };
    const offset = await write(approval);
    // Another instance may have decided it a moment before.
    if (read <= offset) await reader.read(topics.control, 0, read, offset + 1, take);
    const first = decided.get(id)!;
    if (first.leaf !== leaf) {
      // Compaction keeps the last of a key: it must be the one that counts.
      await write(first);
      throw already(first.decision, first.by);
    }
    try {
      await act(approval, letter, held);
    } catch (error) {
      goOn(id, retryMs);
      throw error;
    }
    return { ...held, state: decision, by: actor };
  }

  const escalating = createEscalating({
    waiting, clock, incidents: () => releases.incidents(), failed: ports.failed,
    rules: () => releases.current().policy.rules.filter((rule) => rule.effect === 'escalate').map((rule) => rule.name),
    save: (incident) => saveIncident({ appender, serde, topic: topics.control, incident }),
  });
  for (const { id, done } of decided.values()) if (!done) goOn(id, 0);
  return {
    list,
    decide: (id, decision, by) => inTurn(id, () => decide(id, decision, by)),
    async close() {
      closed = true;
      escalating.close();
      for (const timer of timers) clock.clearTimer(timer);
      await Promise.all(deciding.values());
      await follower.close();
    },
  };
}
