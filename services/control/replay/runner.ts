import { randomUUID } from 'node:crypto';
import { WeirError } from '@weir/errors';
import { failpoint } from '@weir/failpoint';
import type { LogAdmin } from '@weir/log';
import { isAway, patiently, retentionOf, type ReplayPreview } from '@weir/pipeline';
import type { Logger } from 'pino';
import type { NewLeaf } from '../audit.ts';
import { maxOrders, type Corrector } from './correct.ts';
import { createLines } from './lines.ts';
import type { ReplayMetrics } from './metrics.ts';
import { overlap, type ReplayOrder, type ReplayRange, type Selection } from './order.ts';
import { atEnd, endedStates, firstProgress, workingStates, type Entry, type Orders, type ReplayProgress, type State } from './orders.ts';
import { createPutBack, endsOf, putBackSince, targetsOf, type PutBack, type PutBackPorts } from './put-back.ts';
import { scan, type Position } from './scan.ts';
import { createSelector, goesBack, type Item, type Looked, type SelectPorts, type Selector } from './select.ts';
import { createSettled, type SettlePorts } from './settle.ts';
import { createSurvey, type Survey } from './survey.ts';
import type { Verifier } from './verify.ts';

export interface RunnerPorts {
  readonly putBack: PutBackPorts;
  readonly select: SelectPorts;
  readonly settle: SettlePorts;
  readonly admin: LogAdmin;
  readonly orders: Orders;
  readonly verifier: Verifier;
  readonly corrector: Corrector;
  readonly runner: string;
  readonly logger: Logger;
  readonly metrics: ReplayMetrics;
  /** Append an audit leaf; resolves with its id after it is kept. */
  readonly audit: (leaf: NewLeaf) => Promise<string>;
  /** Something nobody declared: the process stops, and goes on from the cursor. */
  readonly fail: (error: unknown) => void;
}

/** Who changes an order, and the leaf that says so. */
export interface By {
  readonly actor: string;
  readonly leaf: string;
}

/**
 * Replay orders as resumable machines: previewing → previewed → running ⇄ paused → delivering → finished. One order
 * runs at a time, in the order of their starts, and one whose stages have no room lets the others go first; previews have a line of their own, and delivery is waited for by each for itself. Everything that is needed to go on
 * is on weir.control, see docs/decisions/0008-replay.md.
 */
export interface Runner {
  /** Writes the order and begins its preview. Throws bad-request when its topics hold nothing. */
  add(selection: Selection, by: By): Promise<{ readonly entry: Entry; readonly overlaps: readonly Entry[] }>;
  start(id: string, by: By): Promise<Entry>;
  pause(id: string, by: By): Promise<Entry>;
  cancel(id: string, by: By): Promise<Entry>;
  /** Take up what a crash or a stop left open. */
  resume(): void;
  /** What a preview or a run waits for; undefined = nothing. */
  waitingFor(id: string): string | undefined;
  close(): Promise<void>;
}

const saveEveryMs = 1000;
/** Ended orders whose names of those that a vendor was asked about are kept. */
const keptNames = 20;
const unknowns = new Set(['unknownKeyed', 'unknownReadable', 'unknownHeld']);

const previewOf = ({ progress }: Pick<Entry, 'progress'>): ReplayPreview => JSON.parse(progress.preview) as ReplayPreview;

/** Adds what came of a chunk; `over` was passed over. */
function tally(counts: Record<string, number>, chunk: Readonly<Record<'read' | 'lost' | 'selected' | 'requeued', number>>, over: readonly Item[]): void {
  const count = (name: string, n: number): void => { counts[name] = (counts[name] ?? 0) + n; };
  for (const [name, n] of Object.entries(chunk)) if (n > 0 || name !== 'lost') count(name, n);
  for (const { note, deliveries } of over) {
    if (note !== undefined) count(note, 1);
    for (const { found: { standing } } of deliveries) count(standing, 1);
  }
}

export function createRunner(ports: RunnerPorts): Runner {
  const { orders, admin, select, logger } = ports;
  const { topics, clock, reader } = ports.putBack;
  const settled = createSettled(ports.settle);
  const lines = createLines({
    clock, orders, logger, fail: ports.fail,
    async ends(entry, { code, message }) {
      const leaf = await ports.audit({ kind: 'fact', actor: 'control', action: 'replay.failed', target: entry.order.id, of: entry.order.leaf, details: { code } });
      await keep(entry, { state: 'failed', by: 'control', leaf, finishedAt: clock.now(), reason: message });
    },
  });
  const { goesOn, enqueue } = lines;

  /** Counts at once, also when the write is refused: who asked for it is told. */
  async function save(entry: Entry, patch: Partial<ReplayProgress>): Promise<void> {
    const before = entry.progress;
    const saved = orders.save({ ...before, ...patch, at: Math.max(clock.now(), before.at + 1), runner: ports.runner });
    if (entry.progress.state !== before.state) ports.metrics.moved(before.state, entry.progress.state);
    await saved;
  }

  /** As `save`, of the work itself: brokers that are away are waited for. What is written in the end is how the order is by then. */
  function keep(entry: Entry, patch: Partial<ReplayProgress>): Promise<void> {
    let first = true;
    return patiently(clock, lines.closed, () => {
      if (!first) return orders.save(entry.progress);
      first = false;
      return save(entry, patch);
    }, undefined, isAway);
  }

  /** The release under which a corrected order showed what it would send, where another one runs now: its differences are others, and nobody saw them. */
  function otherRelease({ order, progress }: Entry): string | undefined {
    if (!order.corrected || progress.preview === '') return undefined;
    const shown = previewOf({ progress }).release;
    return shown === select.release().hash ? undefined : `its differences were shown under ${shown}, and ${select.release().hash} runs now, which would send others`;
  }

  /** Ask the vendors about what is unknown; what they have becomes applied, what they surely have not is to be sent. */
  async function verify(entry: Entry, items: readonly Item[], state: State, survey?: Survey): Promise<void> {
    const unknown: Looked[] = items.flatMap((item) => item.deliveries.filter((d) => unknowns.has(d.found.standing)));
    const answers = await ports.verifier.ask(entry.order, unknown, () => goesOn(entry, state));
    for (const [i, answer] of answers.entries()) {
      survey?.answered(answer);
      const looked = unknown[i]!;
      if (answer === 'applied') looked.found = { ...looked.found, standing: 'applied' };
      else if (answer === 'not-applied') looked.found = { ...looked.found, standing: 'notApplied' };
    }
  }

  /**
   * An index that is being built anew (a new folder, a torn file) knows of no end: what it is asked before it is whole would be
   * taken for on its way, and passed over. False: the order left the state before.
   */
  function indexed(entry: Entry, state: State): Promise<boolean> {
    return lines.named(entry.order.id, 'the index of control', () => settled.indexed(() => goesOn(entry, state)));
  }

  async function preview(entry: Entry): Promise<void> {
    const { order } = entry;
    if (!await indexed(entry, 'previewing')) return;
    const release = select.release();
    const shown = entry.progress.preview === '' ? undefined : previewOf(entry).release;
    // Of an attempt before.
    if (order.corrected) ports.corrector.forget(order.id);
    const survey = createSurvey();
    const selector = createSelector(select, order);
    const correct = order.corrected ? await ports.corrector.open(order, () => goesOn(entry, 'previewing')) : undefined;
    try {
      for await (const { records } of scan(reader, order.range)) {
        if (!goesOn(entry, 'previewing')) return;
        const items = await selector.take(records);
        lines.answered(order.id);
        if (order.verify) await verify(entry, items, 'previewing', survey);
        for (const item of items) {
          const differences = correct?.differences(item) ?? [];
          for (const d of differences) survey.differs(d.destination, d.operation, d.fields);
          survey.add(item, differences.length > 0, order, correct?.approved(item));
        }
      }
    } finally {
      correct?.close();
    }
    const result = survey.result(release, selector.passed, { derived: order.from === 'raw' || order.from === 'canonical', rate: order.rate, goneBefore: await goneBefore(order) });
    const empty = result.records === 0;
    if (!goesOn(entry, 'previewing')) return;
    // It is of two releases.
    if (order.corrected && select.release() !== release) return preview(entry);
    // Made again by itself, of what nobody has looked at: the one that was shown stays, and a start is refused.
    if (shown !== undefined && shown !== release.hash) return keep(entry, { state: 'previewed' });
    await keep(entry, { state: empty ? 'empty' : 'previewed', preview: JSON.stringify(result), finishedAt: empty ? clock.now() : null });
    if (order.start && goesOn(entry, 'previewed')) await patiently(clock, () => !goesOn(entry, 'previewed'), () => begin(entry, { actor: order.by, leaf: order.leaf }));
  }

  /** Ends of the target topics first: whatever is put back from now on lies behind them. False: somebody else changed the order meanwhile. */
  async function begin(entry: Entry, by: By): Promise<boolean> {
    const { state } = entry.progress;
    const tails = entry.progress.startedAt === null ? await endsOf(admin, targets(entry.order)) : entry.progress.tails;
    if (entry.progress.state !== state) return false;
    await keep(entry, { state: 'running', by: by.actor, leaf: by.leaf, startedAt: entry.progress.startedAt ?? clock.now(), tails, reason: null });
    enqueue('run', entry.order.id, run);
    return true;
  }

  const targets = (order: ReplayOrder): string[] => targetsOf(order, topics, select.release().sources.keys(), select.release().destinations.keys());

  /** What the selector met before the cursor, so that a copy behind it is still known for one. */
  async function remember(entry: Entry, selector: Selector): Promise<void> {
    const { order, progress } = entry;
    const before = order.range.map((range): ReplayRange => ({ ...range, end: progress.positions.find((p) => p.topic === range.topic && p.partition === range.partition)?.offset ?? range.start })).filter((r) => r.start < r.end);
    if (before.length === 0) return;
    for await (const { records } of scan(reader, before)) {
      if (!goesOn(entry, 'running')) return;
      await selector.meet(records);
    }
  }

  /** To the end, or until it is paused, cancelled or closed; a corrected order is paused when the release changes under it. */
  async function run(entry: Entry): Promise<void> {
    const { order } = entry;
    while (goesOn(entry, 'running')) {
      const other = otherRelease(entry);
      if (other === undefined) {
        const blocked = await pass(entry);
        if (blocked !== undefined) return lines.stepAside(order.id, blocked, run);
      } else {
        const leaf = await ports.audit({ kind: 'fact', actor: 'control', action: 'replay.paused', target: order.id, of: order.leaf, details: { release: select.release().hash } });
        if (goesOn(entry, 'running')) await keep(entry, { state: 'paused', by: 'control', leaf, reason: `${other}: order it again` });
      }
    }
  }

  /** From the cursor on; at the end the order is `delivering`. Comes back before when the order left its state, or a corrected one its release; with its put-back when that has no room, and others wait. */
  async function pass(entry: Entry): Promise<PutBack | undefined> {
    const { order } = entry;
    const release = select.release();
    const on = (): boolean => goesOn(entry, 'running') && (!order.corrected || select.release() === release);
    if (!on() || !await indexed(entry, 'running')) return undefined;
    const selector = createSelector(select, order);
    await remember(entry, selector);
    const already = await putBackSince(ports.putBack, order, entry.progress.tails);
    if (already.size > 0) logger.info({ order: order.id, records: already.size }, 'put back behind the cursor, known by their origin');
    const correct = order.corrected ? await ports.corrector.open(order, on) : undefined;
    const counts: Record<string, number> = { ...entry.progress.counts };
    const putBack = createPutBack(ports.putBack, order);
    const leaves = lines.putsBack(order.id, putBack);
    const puts = (): boolean => {
      // What was put back is found again by its origin.
      const aside = leaves();
      return on() && !aside;
    };
    let savedAt = clock.monotonic();
    /** What is being put back; the next chunk is selected meanwhile, and put back behind it. */
    let under: { readonly whole: Promise<boolean>; readonly some: boolean; readonly acknowledged: () => void; readonly positions: readonly Position[] } | undefined;
    /** False: paused, cancelled or closed within the chunk: what of it was put back is found again by its origin. */
    async function settle(): Promise<boolean> {
      if (under === undefined) return on();
      const { whole, some, acknowledged, positions } = under;
      under = undefined;
      if (!await whole) return false;
      acknowledged();
      if (some) failpoint('control.put-back');
      if (clock.monotonic() - savedAt < saveEveryMs && !atEnd(order, positions)) return true;
      await keep(entry, { positions, counts: { ...counts }, tails: await endsOf(admin, targets(order)) });
      savedAt = clock.monotonic();
      return on();
    }
    try {
      for await (const { records, positions, lost } of scan(reader, order.range, entry.progress.positions)) {
        const found = await selector.take(records);
        lines.answered(order.id);
        const items = correct === undefined ? found : found.map((item) => correct.mark(item));
        if (order.verify) await verify(entry, items.filter((item) => !already.has(item.from)), 'running');
        const back: Item[] = [];
        const over: Item[] = [];
        for (const item of items) (already.has(item.from) || goesBack(item, order) ? back : over).push(item);
        if (!await settle()) return on() ? putBack : undefined;
        const acknowledged = (): void => {
          tally(counts, { read: records.length, lost, selected: items.length, requeued: back.length }, over);
          ports.metrics.requeued.inc(back.length);
        };
        under = { whole: putBack.put(already.size === 0 ? back : back.filter((item) => !already.has(item.from)), puts), some: back.length > 0, acknowledged, positions };
        // Told when it is waited for.
        under.whole.catch(() => {});
      }
      if (!await settle()) return on() ? putBack : undefined;
    } finally {
      await under?.whole.catch(() => {});
      lines.putBackEnds(order.id);
      correct?.close();
    }
    await keep(entry, { state: 'delivering' });
    lines.beside(order.id, deliver);
    return undefined;
  }

  /** Everything was put back: wait until the stages have taken it, then tell how it ended. */
  async function deliver(entry: Entry): Promise<void> {
    if (!goesOn(entry, 'delivering')) return;
    const left = await settled.taken(entry.order, entry.progress.startedAt ?? entry.order.at, () => goesOn(entry, 'delivering'));
    if (left === undefined) return;
    const report = { ...entry.progress.counts, ended: settled.outcomes(entry.order.id), seconds: Math.round((clock.now() - (entry.progress.startedAt ?? clock.now())) / 1000), ...(left.length === 0 ? {} : { left }) };
    const leaf = await ports.audit({ kind: 'fact', actor: 'control', action: 'replay.finished', target: entry.order.id, of: entry.order.leaf, details: { selected: report['selected' as never] ?? 0, requeued: report['requeued' as never] ?? 0 } });
    // Cancelled while the leaf was written: that stands.
    if (!goesOn(entry, 'delivering')) return;
    await keep(entry, { state: 'finished', by: 'control', leaf, finishedAt: clock.now(), report: JSON.stringify(report) });
    ports.corrector.forget(entry.order.id);
    forgetNames();
    logger.info({ order: entry.order.id, ...report }, 'replay finished');
  }

  /** Names of those that a vendor was asked about are kept after the end, so that the report can be checked; of the newest orders. */
  function forgetNames(): void {
    const ended = orders.list().filter(({ order, progress }) => order.verify && endedStates.has(progress.state)).sort((a, b) => b.progress.at - a.progress.at);
    for (const { order } of ended.slice(keptNames)) ports.verifier.forget(order.id);
  }

  /** Its preview once more, for the differences that went with a restart. */
  async function previewAgain(entry: Entry): Promise<void> {
    if (!goesOn(entry, 'previewed')) return;
    await keep(entry, { state: 'previewing' });
    await preview(entry);
  }

  function topicsOf({ source, destination, from }: Selection): string[] {
    const release = select.release();
    return from === 'dlq' ? [topics.dlq] : from === 'canonical' ? [topics.canonical] : from === 'raw' ? (source === null ? [...release.sources.keys()] : [source]).map(topics.raw) : (destination === null ? [...release.destinations.keys()] : [destination]).map(topics.dispatch);
  }

  async function range(selection: Selection): Promise<ReplayRange[]> {
    const { since } = selection;
    const found = await Promise.all(topicsOf(selection).map(async (topic) => {
      const [ends, begins, at] = await Promise.all([admin.endOffsets(topic), admin.beginningOffsets(topic), since === null ? undefined : admin.offsetsAt(topic, since)]);
      return [...ends].map(([partition, end]): ReplayRange => ({ topic, partition, start: at === undefined ? begins.get(partition) ?? 0 : at.get(partition) ?? end, end }));
    }));
    return found.flat().filter((r) => r.start < r.end);
  }

  /**
   * Since when what the selection asks for is there; null = retention has deleted nothing of it. Where a partition has lost
   * all that it held nothing tells its time but the retention, which is what it was older than.
   */
  async function goneBefore(selection: Selection): Promise<number | null> {
    const found = await Promise.all(topicsOf(selection).map(async (topic) => {
      const begins = [...await admin.beginningOffsets(topic)].filter(([, begin]) => begin > 0);
      if (begins.length === 0) return [];
      const [ends, [spec]] = await Promise.all([admin.endOffsets(topic), admin.describeTopics([topic])]);
      const kept = retentionOf(spec?.config);
      // Deleted otherwise (by size, by hand), or after a time that the brokers do not tell: it may have been of any time.
      const emptied = clock.now() - (Number.isFinite(kept) ? kept : 0);
      return Promise.all(begins.map(async ([partition, begin]) => (begin >= (ends.get(partition) ?? 0) ? emptied : (await reader.readOne(topic, partition, begin))?.timestamp ?? emptied)));
    }));
    const oldest = Math.max(0, ...found.flat());
    return oldest > (selection.since ?? 0) ? oldest : null;
  }

  /** Why a selection has no record to read. */
  async function nothing(selection: Selection): Promise<WeirError> {
    const gone = await goneBefore(selection);
    return new WeirError('bad-request', `nothing to replay: the topics hold no record in this range${gone === null ? '' : `; what was put there before ${new Date(gone).toISOString()} is gone (retention)`}`);
  }

  /** Nothing is sent anew that could not be looked at first. One that was ordered to start at once was not to be looked at. */
  function lacksDifferences({ order, progress }: Entry): boolean {
    return progress.state === 'previewed' && order.corrected && !order.start && previewOf({ progress }).differs > 0 && !ports.corrector.has(order.id);
  }

  function refuse(entry: Entry, wanted: string): never {
    throw new WeirError('bad-request', `order ${entry.order.id} is ${entry.progress.state}: ${wanted}`);
  }

  return {
    async add(selection, { actor, leaf }) {
      const ranges = await range(selection);
      if (ranges.length === 0) throw await nothing(selection);
      const order: ReplayOrder = { ...selection, range: ranges, id: `rpl_${leaf.replace(/^leaf_/, '') || randomUUID()}`, at: clock.now(), by: actor, leaf };
      const overlaps = orders.list().filter((e) => !endedStates.has(e.progress.state) && overlap(e.order, order));
      // Half of it may be on the topic, and would run at the next start: it is written whole.
      await patiently(clock, lines.closed, () => orders.add(order, firstProgress(order, ports.runner)), undefined, isAway);
      ports.metrics.moved(undefined, 'previewing');
      enqueue('preview', order.id, preview);
      return { entry: orders.get(order.id), overlaps };
    },
    async start(id, by) {
      const entry = orders.get(id);
      const wanted = 'only what is previewed or paused can be started';
      if (entry.progress.state !== 'previewed' && entry.progress.state !== 'paused') refuse(entry, wanted);
      const other = otherRelease(entry);
      if (other !== undefined) refuse(entry, `${other}: order it again, and look at the new preview`);
      if (lacksDifferences(entry)) refuse(entry, 'its differences, which the run would send, are not at hand any more: wait until they are made again, or order it again');
      if (!await begin(entry, by)) refuse(entry, wanted);
      return entry;
    },
    async pause(id, by) {
      const entry = orders.get(id);
      if (entry.progress.state !== 'running') refuse(entry, 'only what is running can be paused');
      await save(entry, { state: 'paused', by: by.actor, leaf: by.leaf });
      return entry;
    },
    async cancel(id, by) {
      const entry = orders.get(id);
      if (endedStates.has(entry.progress.state)) refuse(entry, 'it has ended');
      await save(entry, { state: 'cancelled', by: by.actor, leaf: by.leaf, finishedAt: clock.now() });
      return entry;
    },
    resume() {
      const again = new Set(orders.list().filter((entry) => lacksDifferences(entry) && otherRelease(entry) === undefined).slice(0, maxOrders).map(({ order }) => order.id));
      for (const { order, progress } of orders.list().toReversed()) {
        ports.metrics.moved(undefined, progress.state);
        if (again.has(order.id)) enqueue('preview', order.id, previewAgain);
        // Ordered to start at once, and cut between the preview and the start.
        if (progress.state === 'previewed' && order.start) enqueue('run', order.id, async (entry) => { if (goesOn(entry, 'previewed')) await begin(entry, { actor: order.by, leaf: order.leaf }); });
        if (!workingStates.has(progress.state)) continue;
        logger.info({ order: order.id, state: progress.state }, 'going on with a replay');
        if (progress.state === 'previewing') enqueue('preview', order.id, preview);
        else if (progress.state === 'running') enqueue('run', order.id, run);
        else lines.beside(order.id, deliver);
      }
    },
    waitingFor: lines.waitingFor,
    close: lines.close,
  };
}
