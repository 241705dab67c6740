import type { ConsentBarrier, ConsentTables } from '@weir/consent';
import { WeirError } from '@weir/errors';
import { failpoint } from '@weir/failpoint';
import type { Appender, LogAdmin, Reader, Serde } from '@weir/log';
import { createInTurn, type TopicNames } from '@weir/pipeline';
import { consentKey, everyPurpose } from '@weir/policy';
import { keyedIdsOf, leafHeader, readControl, valuesUnder, type Identifiers, type Release } from '@weir/release';
import { seal, type KeyRing } from '@weir/seal';
import type { Logger } from 'pino';
import type { NewLeaf } from './audit.ts';
import { createIdentifierSearch, furtherTold, keyedIdsOfHeld, operationsTold, type Held } from './erasure-identifiers.ts';
import { createErasureProgress } from './erasure-progress.ts';
import { markOf, unmarked, type Erasure } from './erasure-receipt.ts';
import { createErasureRecords, type Withdrawal } from './erasure-records.ts';
import type { Remains } from './remains.ts';
import type { Store } from './store.ts';
import type { Follow, Subjects } from './subjects.ts';

/** Who orders, under which audit leaf; `forced`: go on also where nobody is known by what was given; `everyLink`: by links of sources that are not trusted, too. */
export interface ErasureOrder {
  readonly by: string;
  readonly leaf: string;
  readonly deadlineMs: number;
  readonly forced: boolean;
  readonly everyLink: boolean;
}

export interface ErasurePorts {
  readonly appender: Appender;
  readonly reader: Reader;
  readonly admin: Pick<LogAdmin, 'endOffsets' | 'beginningOffsets' | 'committed'>;
  readonly serde: Serde;
  readonly topics: TopicNames;
  readonly policyGroup: string;
  readonly keys: KeyRing;
  readonly barrier: Pick<ConsentBarrier, 'applied'>;
  readonly tables: Pick<ConsentTables, 'states'>;
  readonly subjects: Subjects;
  readonly remains: Remains;
  readonly store: Pick<Store, 'stages' | 'places' | 'canonicalPlaces' | 'position'>;
  readonly workspaceKey: Buffer;
  readonly release: () => Release;
  /** When the last key of raw items that were accepted until then is destroyed, ms since the epoch; null = not as far as is known. */
  readonly rawUntil: (at: number) => Promise<number | null>;
  /** Resolves when the leaf is acknowledged. */
  readonly audit: (leaf: NewLeaf) => Promise<string>;
  readonly logger: Pick<Logger, 'info' | 'warn' | 'error'>;
  readonly now: () => number;
  readonly setTimer: (run: () => void, ms: number) => unknown;
  readonly clearTimer: (timer: unknown) => void;
}

export interface Erasures {
  /** Read what was ordered before and go on with it. */
  start(): Promise<void>;
  /**
   * Begin an erasure under its audit leaf; resolves when it is written. It goes on by itself, also after a crash. One of the
   * same person that is not marked yet, and has what was given in the clear, is given instead (`joined`): it covers what was
   * accepted until its mark, so until now, and tells destinations by it. `underWay` names the others of the person that are not
   * acknowledged.
   */
  order(identifiers: Identifiers, order: ErasureOrder): Promise<{ readonly erasure: Erasure; readonly joined: boolean; readonly underWay: readonly string[] }>;
  list(): readonly Erasure[];
  get(id: string): Erasure;
  stop(): Promise<void>;
}

const receiptName = 'weir.internal.ErasureReceipt';
const receiptKey = (id: string): string => `erasure/${id}`;
const retryMs = 1000;
const watchMs = 2000;
const barrierMs = 60_000;
const day = 86_400_000;
const ended: ReadonlySet<Erasure['state']> = new Set(['done', 'unknown']);

/**
 * Erasures, each a machine whose state is a record on weir.control: every step may be repeated.
 *
 *   ordered    the order, with the identifiers that were given sealed
 *   collected  the identifiers of the person's records and links, in the clear, are sealed beside them; nobody there: unknown, the end
 *   marked     on weir.keys, for all that is linked then: nothing accepted until the time of the mark is normalised, decided or sent any more
 *   stopped    no `use` call is open and none can start (every purpose is withdrawn, and the barrier holds)
 *   told       the Erasure records for the destinations are on weir.canonical: no `use` can follow and make the person again
 *   readable   the keys are destroyed, and a reader from the beginning found records that open all the same: no acknowledgement before retention has taken them
 *   erased     the keys are destroyed, and a reader from the beginning found nothing that opens: the acknowledgement
 *   done       every destination has ended, and no failed one can be tried again; the sealed identifiers are destroyed, too
 */
export function createErasures(ports: ErasurePorts): Erasures {
  const { appender, reader, admin, serde, topics, keys, remains, logger, now } = ports;
  const all = new Map<string, Erasure>();
  const timers = new Set<unknown>();
  const running = new Set<Promise<void>>();
  const progress = createErasureProgress(ports);
  const toWrite = createErasureRecords(ports);
  const identifiersIn = createIdentifierSearch(ports);
  /** Their mark is being written: its time is taken, so an order of now is not covered by it. */
  const marking = new Set<string>();
  /** When what can be read was last looked for, of those that wait for it to go. */
  const looked = new Map<string, number>();
  const inTurn = createInTurn();
  let stopped = false;

  async function save(erasure: Erasure): Promise<Erasure> {
    await appender.append(topics.control, [{ partition: 0, key: Buffer.from(receiptKey(erasure.id)), value: serde.encode(receiptName, erasure), headers: [[leafHeader, Buffer.from(erasure.id)]] }]);
    all.set(erasure.id, erasure);
    return erasure;
  }

  function later(id: string, ms: number): void {
    if (stopped) return;
    const timer = ports.setTimer(() => {
      timers.delete(timer);
      go(id);
    }, ms);
    timers.add(timer);
  }

  /** One step after another until it must wait; a step that fails is tried again. */
  function go(id: string): void {
    const work = (async () => {
      for (;;) {
        const before = all.get(id)!;
        if (stopped || ended.has(before.state)) return;
        const after = await step(before);
        if (after === before) return later(id, watchMs);
      }
    })().catch((error: unknown) => {
      if (stopped) return;
      logger.error({ err: error, erasure: id, state: all.get(id)!.state }, 'a step of an erasure failed; it is tried again');
      later(id, retryMs);
    }).finally(() => running.delete(work));
    running.add(work);
  }

  function step(erasure: Erasure): Promise<Erasure> {
    switch (erasure.state) {
      case 'ordered': return collect(erasure);
      case 'collected': return mark(erasure);
      case 'marked': return stopUses(erasure);
      case 'stopped': return tell(erasure);
      case 'told': return destroy(erasure);
      case 'readable': return hold(erasure);
      default: return follow(erasure);
    }
  }

  /** What was given and found, in the clear; undefined = the key is destroyed. */
  function opened({ sealed }: Erasure): Held | undefined {
    const plain = keys.open(sealed!);
    return plain === undefined ? undefined : JSON.parse(plain.toString()) as Held;
  }
  function identifiersOf(erasure: Erasure): Held {
    const found = opened(erasure);
    // Only who ends it destroys that key.
    if (found === undefined) throw new WeirError('invariant-broken', `erasure ${erasure.id} was ended by another control service: there must be one; stop this one, or the other, and start the one that stays anew`);
    return found;
  }
  const sealFor = (id: string, identifiers: Held): Buffer => seal(keys.current(receiptKey(id))!, Buffer.from(JSON.stringify(identifiers)));

  /** Reads the records of the person, as far back as they are kept, and what links keep of it, while their keys are there: destinations know it by what stands there. */
  async function collect(erasure: Erasure): Promise<Erasure> {
    const { ids, onlyGiven, leftOut } = erasure.onlyGiven ? erasure : await ports.subjects.close(erasure.ids, followOf(erasure));
    if (onlyGiven) return save({ ...erasure, onlyGiven, leftOut, state: 'collected' });
    const { found, records } = await identifiersIn(ids, identifiersOf(erasure), erasure.everyLink, goOn);
    const known = records > 0 || ports.subjects.known(ids);
    if (!known && !erasure.forced) {
      // First what it is, then its key: without that it could not be read once more.
      const nobody = await save({ ...erasure, state: 'unknown', known, sealed: null });
      await keys.destroy([receiptKey(erasure.id)]);
      logger.info({ erasure: erasure.id }, 'nobody is known by what an erasure was ordered for');
      return nobody;
    }
    const named = keyedIdsOfHeld(ports.workspaceKey, found);
    const unnamed = ids.filter((id) => !named.includes(id)).map((id) => id.split(':')[0]!).sort();
    if (unnamed.length > 0) logger.warn({ erasure: erasure.id, unnamed }, 'destinations are not told of identifiers that are linked: nothing that is kept has them in the clear, or a newer one is told');
    return save({ ...erasure, state: 'collected', known, unnamed, leftOut, ids: [...new Set([...ids, ...named])], sealed: sealFor(erasure.id, found) });
  }

  const followOf = ({ everyLink }: Erasure): Follow => (everyLink ? 'all' : 'trusted');

  /** Of this moment: a mark of before the records were read would let through what was accepted meanwhile. What was linked meanwhile is read too, and marked anew. */
  async function mark(erasure: Erasure): Promise<Erasure> {
    const markedAt = now();
    marking.add(erasure.id);
    await keys.markErased(erasure.ids, markedAt, erasure.id);
    failpoint('control.erasure-marked');
    const linked = await linkedSince(erasure);
    if (linked === undefined) return save({ ...erasure, state: 'marked', markedAt, rawUntil: await ports.rawUntil(markedAt) });
    marking.delete(erasure.id);
    return linked;
  }

  /** Back to reading, with what was linked since; undefined when nothing was, or too much. */
  async function linkedSince(erasure: Erasure): Promise<Erasure | undefined> {
    if (erasure.onlyGiven) return undefined;
    const { ids, onlyGiven } = await ports.subjects.close(erasure.ids, followOf(erasure));
    if (onlyGiven) return save({ ...erasure, onlyGiven });
    const all = new Set([...erasure.ids, ...ids]);
    return all.size === erasure.ids.length ? undefined : save({ ...erasure, ids: [...all], state: 'ordered' });
  }

  /** Once, and once more for each further value of a type, which its destinations answer for apart. Under the key of the erasure, which outlives those of the person: destinations need to know whom they erase. */
  async function tell(erasure: Erasure): Promise<Erasure> {
    if (!erasure.known) return save({ ...erasure, state: 'told', destinations: [...ports.release().destinations.keys()].map((destination) => ({ destination, operation: null, state: 'not-asked', at: null })) });
    const routes = ports.release().policy.routes.get('Erasure') ?? [];
    const held = identifiersOf(erasure);
    const further = furtherTold(ports.workspaceKey, held, routes, ports.release().destinations);
    const { event, records } = toWrite.toTell(erasure, markOf(erasure)! + 1, held, further, keys.current(receiptKey(erasure.id))!);
    await appender.append(topics.canonical, records);
    const destinations = [...ports.release().destinations.keys()].flatMap((destination): Erasure['destinations'][number][] => {
      const operations = routes.filter((route) => route.destination === destination);
      return operations.length === 0 ? [{ destination, operation: null, state: 'by-hand', at: null }] : operations.flatMap((route) => operationsTold(route, further).map((operation) => ({ destination, operation, state: 'pending', at: null })));
    });
    return save({ ...erasure, state: 'told', eventId: event, destinations });
  }

  /**
   * As `weir subject stop`: every one, which closes those that a later release brings, too, whatever their legal basis; then each of the workspace, and each
   * that something is known for: a grant for one that a later release brings would come to life with it.
   */
  function purposesOf(ids: readonly string[]): ReadonlySet<string> {
    const known = ids.flatMap((id) => {
      const states = ports.tables.states(id);
      // An identifier with too many is closed whatever they say.
      return states === 'too-many' ? [] : states.map((entry) => entry.purpose);
    });
    return new Set([everyPurpose, ...ports.release().policy.purposes.keys(), ...known]);
  }

  /** Every purpose is withdrawn for every identifier, as if the person had said so: that survives a replay of everything. */
  async function stopUses(erasure: Erasure): Promise<Erasure> {
    await withdraw(erasure, [...purposesOf(erasure.ids)].flatMap((purpose) => erasure.ids.map((id) => ({ id, purpose, channel: '', topic: '', parts: [purpose] }))));
    return save({ ...erasure, state: 'stopped', stoppedAt: now() });
  }

  /** Writes withdrawals without any words of the person, and waits until they hold everywhere. */
  async function withdraw(erasure: Erasure, of: readonly Withdrawal[]): Promise<void> {
    const marks = new Map<number, number>();
    const written = of.map((change) => toWrite.withdrawal(erasure, markOf(erasure)!, change));
    const offsets = await appender.append(topics.consentChanges, written);
    written.forEach(({ partition }, i) => marks.set(partition, Math.max(marks.get(partition) ?? 0, offsets[i]!)));
    await appliedEverywhere(erasure, marks);
  }

  /** No `use` call is open and none will start that these changes forbid, or a mark or a tombstone that was written before: who announces himself later has read them, too. */
  async function appliedEverywhere({ ids }: Erasure, marks: ReadonlyMap<number, number>): Promise<void> {
    await keys.readToEnd();
    if (!await ports.barrier.applied(marks, ids, barrierMs, keys.positions())) throw new WeirError('not-ready', 'not every dispatcher has applied the withdrawal and read the mark of the erasure yet');
  }

  /**
   * States keep proof and notice of their last change in the clear: those of before the mark are withdrawn anew, key by key, until a
   * reader finds none. Named by version, as a change that was in flight may have come behind the withdrawal of before.
   */
  async function forgetProofs(erasure: Erasure): Promise<void> {
    for (;;) {
      const left = await remains.statesWithProof(erasure.ids, markOf(erasure)!, goOn);
      if (left.length === 0) return;
      await withdraw(erasure, left.map(({ id, purpose, channel, topic, version }) => ({ id, purpose, channel, topic, parts: [consentKey(id, purpose, channel, topic), String(version)] })));
    }
  }

  async function destroy(before: Erasure): Promise<Erasure> {
    let erasure = before;
    // Told before they go: a step that is repeated finds fewer, or none.
    await keys.destroy(before.ids, 'marked', async (count) => { if (count > before.keysDestroyed) erasure = await save({ ...before, keysDestroyed: count }); });
    failpoint('control.keys-destroyed');
    const left = await remains.keysLeft(erasure.ids);
    if (left > 0) throw new WeirError('not-ready', `${left} keys of before the mark are there after they were destroyed`);
    await appliedEverywhere(erasure, new Map());
    return verify(erasure);
  }

  /** Acknowledged when nothing of before the mark opens, on any topic that has it under the person's name, by a reader from the beginning. */
  async function verify(erasure: Erasure): Promise<Erasure> {
    const { keysDestroyed } = erasure;
    const { unreadable, broken, readable, until } = await remains.look(erasure.ids, markOf(erasure)!, goOn);
    looked.set(erasure.id, now());
    if (broken > 0) logger.warn({ erasure: erasure.id, unknown: broken }, 'records under the identifiers of the person are none that anybody can read: they leave with the retention of weir.canonical');
    // Last of all: what was in flight when the mark was written has come meanwhile.
    await forgetProofs(erasure);
    await remains.forgetRegions(erasure.ids, markOf(erasure)!, goOn);
    const found = { ...erasure, recordsUnreadable: unreadable, recordsReadable: readable, readableUntil: until };
    if (readable > 0) {
      logger.warn({ erasure: erasure.id, readable, until }, 'records of the person can be read without the keys that were destroyed: the erasure is not acknowledged before retention has taken them');
      if (erasure.state !== 'readable') await ports.audit({ kind: 'fact', actor: 'control', action: 'subject.readable', target: erasure.id, of: erasure.id, details: { keysDestroyed, recordsUnreadable: unreadable, recordsReadable: readable, readableUntil: until === null ? null : new Date(until).toISOString() } });
      return save({ ...found, state: 'readable' });
    }
    await ports.audit({ kind: 'fact', actor: 'control', action: 'subject.erased', target: erasure.id, of: erasure.id, details: { keysDestroyed, recordsUnreadable: unreadable, recordsReadable: 0 } });
    looked.delete(erasure.id);
    return save({ ...found, state: 'erased', erasedAt: now() });
  }

  /** Waits for retention, and follows the destinations meanwhile. */
  async function hold(before: Erasure): Promise<Erasure> {
    const { readableUntil: until } = before;
    const due = until !== null && now() < until ? until : (looked.get(before.id) ?? 0) + day;
    if (now() >= due) return verify(before);
    const found = await progress.of(before);
    return found.destinations.some((part, i) => part !== before.destinations[i]) ? save({ ...before, destinations: found.destinations }) : before;
  }

  function goOn(): void {
    if (stopped) throw new WeirError('not-ready', 'the control service stops');
  }

  /** The same object while nothing changes: then there is something to wait for. */
  async function follow(before: Erasure): Promise<Erasure> {
    const erasure = await progress.of(before);
    if (erasure === before) return before;
    if (erasure.state !== 'done') return save(erasure);
    await forgetProofs(erasure);
    await remains.forgetRegions(erasure.ids, markOf(erasure)!, goOn);
    await keys.destroy([receiptKey(erasure.id)]);
    const done = await save({ ...erasure, sealed: null });
    progress.forget(erasure.id);
    logger.info({ erasure: erasure.id, keys: done.keysDestroyed }, 'erasure done');
    return done;
  }

  /**
   * Whether destinations are told of all of these (keyed) by what the erasure holds in the clear. That an identifier is linked is
   * not enough: where nothing has it, a destination that knows the person by nothing else would never be asked. What an erasure
   * holds is not added to: a step that runs would write over it.
   */
  function tellsOf(erasure: Erasure, given: readonly string[]): boolean {
    const held = new Set(keyedIdsOfHeld(ports.workspaceKey, opened(erasure) ?? { externalIds: [] }));
    return given.every((id) => held.has(id));
  }

  /** One at a time, so that two orders of one person find each other. Two that do not join go on side by side, as one that comes behind a mark does: each step of either may find what the other has done. */
  async function begin(identifiers: Identifiers, { by, leaf, deadlineMs, forced, everyLink }: ErasureOrder): ReturnType<Erasures['order']> {
    const { ids, onlyGiven, leftOut } = await ports.subjects.resolve(identifiers, everyLink ? 'all' : 'trusted');
    const own = keyedIdsOf(ports.workspaceKey, identifiers);
    const same = [...all.values()].filter((e) => own.every((id) => e.ids.includes(id)) || (!onlyGiven && !e.onlyGiven && ids.some((id) => e.ids.includes(id))));
    const waiting = same.find((e) => unmarked.has(e.state) && !ended.has(e.state) && !marking.has(e.id) && (e.forced || !forced) && (e.everyLink || !everyLink) && tellsOf(e, own));
    if (waiting !== undefined) return { erasure: waiting, joined: true, underWay: [] };
    await keys.ensure([receiptKey(leaf)]);
    const orderedAt = now();
    const erasure = await save({
      id: leaf, ids, by, sealed: sealFor(leaf, identifiers), orderedAt, state: 'ordered', stoppedAt: null, erasedAt: null, keysDestroyed: 0, recordsUnreadable: 0, recordsReadable: 0, readableUntil: null, rawUntil: null, deadline: orderedAt + deadlineMs,
      eventId: null, destinations: [], markedAt: null, onlyGiven, forced, known: true, unnamed: [], everyLink, leftOut,
    });
    go(leaf);
    return { erasure, joined: false, underWay: same.filter((e) => e.erasedAt === null && !ended.has(e.state)).map((e) => e.id) };
  }

  return {
    async start() {
      await Promise.all([topics.control, topics.canonical, topics.consentChanges, topics.identity, topics.keys].map((topic) => appender.partitions(topic)));
      await readControl({ reader, admin, topic: topics.control }, valuesUnder<Erasure>(serde, receiptKey(''), (erasure) => { all.set(erasure.id, erasure); }));
      // Of an end that a crash cut off before its key was destroyed.
      const left = [...all.values()].filter(({ state }) => ended.has(state)).map(({ id }) => receiptKey(id)).filter((owner) => keys.current(owner) !== undefined);
      if (left.length > 0) await keys.destroy(left);
      for (const { id, state } of all.values()) if (!ended.has(state)) go(id);
    },
    order: (identifiers, given) => inTurn(() => begin(identifiers, given)),
    list: () => [...all.values()].sort((a, b) => b.orderedAt - a.orderedAt),
    get(id) {
      const found = all.get(id);
      if (found === undefined) throw new WeirError('not-found', `no erasure ${id}`);
      return found;
    },
    async stop() {
      stopped = true;
      for (const timer of timers) ports.clearTimer(timer);
      await Promise.all(running);
    },
  };
}
