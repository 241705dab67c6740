import type { Delivery, HttpRequest, HttpResponse, OperationManifest, ReadBack, Verdict } from '@weir/adapter';
import { H } from '@weir/pipeline';
import type { DestinationConfig } from '@weir/release';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { expire, prepare } from './attempt.ts';
import { closed } from './breaker.ts';
import { call, readBack } from './call.ts';
import { endValue, type Ending } from './ends.ts';
import type { Lane } from './lane.ts';
import { coveredOnLeaving, keepsInstead } from './ledger.ts';
import type { PartitionRunner } from './partition.ts';
import type { DestinationPorts } from './ports.ts';
import { createSettle } from './settle.ts';
import type { EndValue, Task } from './types.ts';

const second = 1000;
const hour = 3600 * second;
const windowMs = 24 * hour;
/** An effect shows in the vendor's answers after this time. */
const settleMs = 5 * second;

/** What becomes of a request: applied and answered, applied and no answer, lost on its way, refused for good, refused for now. */
const fates = ['answered', 'cut', 'lost', 'refused', 'busy'] as const;
type Fate = (typeof fates)[number];
type Command =
  /** `finding`: of a person, whether it is so or not. */
  | { readonly kind: 'order'; readonly unknown: 'hold' | 'resend'; readonly finding?: 'not-applied'; readonly queuedAt?: number }
  /** A person looks at the destination, who says what is so then; the order comes when what is in hand has ended. */
  | { readonly kind: 'found' }
  | { readonly kind: 'step'; readonly fate: Fate }
  | { readonly kind: 'wait'; readonly ms: number }
  /** It ends without a call, for a reason that is gone again after that. */
  | { readonly kind: 'ends'; readonly why: 'denied' | 'retired' | 'expiring' }
  | { readonly kind: 'parked' }
  | { readonly kind: 'owner'; readonly how: 'leaves' | 'dies' };

interface Vendor {
  readonly keyed: boolean;
  readonly readable: boolean;
}

/** One delivery and its redrives, one after the other, at a vendor that tells the truth: the ledger, the rules and the calls are the dispatcher's. */
class World {
  readonly vendor: Vendor;
  now = 1_800_000_000_000;
  readonly ledger = new Map<string, EndValue>();
  /** What compaction leaves of the ledger. */
  readonly compacted = new Map<string, EndValue>();
  /** Each time that it took effect: by whose record, and whether that one's order resends. */
  readonly effects: { readonly order: string; readonly resends: boolean }[] = [];
  /** Records that nobody called, of which an owner that left said that it may have, and with them of all before. */
  readonly takenForCalled: string[] = [];
  readonly appliedAt = new Map<string, number>();
  task: Task | undefined;
  private because: 'denied' | 'retired' | 'expiring' | undefined;
  private fate: Fate = 'answered';
  private openedAt = this.now;
  /** When its owner wrote the intent that covers the record, and whether the one in hand was called since the record was read first. */
  private intentAt = this.now;
  private called = false;
  private orders = 0;
  private readonly ports: DestinationPorts;
  private readonly runner: PartitionRunner;
  private readonly settle: ReturnType<typeof createSettle>;

  constructor(vendor: Vendor) {
    this.vendor = vendor;
    this.ports = {
      name: 'crm', inLaneTries: 4, callTimeoutMs: 10_000, dedupeWindowMs: () => 7 * windowMs,
      retention: { ledgerMs: () => 1e15, dispatchMs: () => (this.because === 'expiring' ? 0 : 1e15), parkedMs: () => 1e15 },
      clock: { now: () => this.now, monotonic: () => this.now, random: () => 0.5 },
      consent: { atLeast: () => true, version: () => -1, allows: () => (this.because === 'denied' ? { ok: false, reason: 'consent-withdrawn' } : { ok: true }) },
      ledger: { lastDelivered: () => undefined, counted: () => [] }, serde: { decode: () => ({ value: {} }), encode: () => Buffer.alloc(0) },
      topics: { dispatch: () => 'd', ledger: () => 'l' }, appender: { append: () => Promise.resolve([0]) },
      consumer: () => ({ leaseUntil: () => Number.POSITIVE_INFINITY, holds: () => true }), lease: { covers: () => true, began: () => () => undefined }, destination: () => ({ enabled: true }),
      metrics: { calls: { observe: () => undefined }, readBacks: { inc: () => undefined }, refused: { inc: () => undefined } },
      http: { call: (request: HttpRequest, { onBeforeWrite }: { onBeforeWrite: () => boolean }) => Promise.resolve(onBeforeWrite() ? this.answer(request) : undefined) },
    } as unknown as DestinationPorts;
    this.runner = { partition: 0, epoch: 1, openedAt: () => this.openedAt, closed: () => false, coveredBefore: () => false, neverCalledBefore: () => true, parking: { park: () => { this.parked(); } }, writer: { endOf: (key: string) => this.ledger.get(key), recentOf: () => [], applyOwn: () => undefined } } as unknown as PartitionRunner;
    this.settle = createSettle({ ports: this.ports, breaker: () => closed, end: (_lane, _runner, ending) => { this.end(ending); }, later: () => undefined, offer: () => undefined });
    this.read('', 'hold');
  }

  private get destination(): DestinationConfig {
    const { keyed, readable } = this.vendor;
    const put: OperationManifest = { kind: 'use', accepts: [], doc: '', idempotency: keyed ? { scheme: 'header', windowMs, pastWindow: 'hold', cite: '' } : { scheme: 'none', pastWindow: 'hold', cite: '' }, ...(readable ? { verify: { settleMs, cite: '' } } : {}) };
    const request = (method: string) => (_delivery: Delivery, key: string): HttpRequest => ({ method, url: key, headers: {} }) as unknown as HttpRequest;
    const adapter = {
      request: request('POST'),
      classify: (response: HttpResponse): Verdict => ({ 200: { kind: 'ok', effect: 'done' }, 422: { kind: 'permanent', effect: 'none', code: 'delivery-rejected' }, 503: { kind: 'retry', effect: 'none', code: 'vendor-unavailable' } } as Record<number, Verdict>)[response.status] ?? { kind: 'retry', effect: 'maybe', code: 'vendor-unavailable' },
      verify: readable ? { request: (delivery: Delivery, key: string) => request('GET')(delivery, key), classify: (response: HttpResponse): ReadBack => (response.status === 200 ? { kind: 'applied' } : response.status === 404 ? { kind: 'not-applied' } : { kind: 'retry', code: 'vendor-unavailable' }) as ReadBack } : undefined,
    };
    return { operations: this.because === 'retired' ? {} : { put }, caps: [], retryHorizonMs: 72 * hour, adapter: { destination: adapter } } as unknown as DestinationConfig;
  }

  private answer({ method, url: key }: HttpRequest): object {
    // A call takes time.
    const now = this.now++;
    const { fate } = this;
    const at = this.appliedAt.get(key);
    if (method === 'GET') return { status: fate === 'answered' ? (at !== undefined && now - at >= settleMs ? 200 : 404) : 503, headers: {}, body: '' };
    this.called = true;
    if ((fate === 'answered' || fate === 'cut') && !(this.vendor.keyed && at !== undefined && now - at <= windowMs)) {
      this.appliedAt.set(key, now);
      this.effects.push({ order: this.task!.redrive, resends: this.task!.record.headers.some(([name]) => name === H.resend) });
    }
    return { status: { answered: 200, cut: 0, lost: 0, refused: 422, busy: 503 }[fate], headers: {}, body: '' };
  }

  /** A record on the topic, the first or one that an order put back. */
  private read(redrive: string, unknown: 'hold' | 'resend', finding?: 'not-applied', queuedAt = this.now): void {
    const delivery = { outputId: 'out_1', destination: 'crm', operation: 'put', recordType: 'weir.canonical.Event', intent: '0', itemHash: 'h', acceptedAt: 1_800_000_000_000, notBefore: null, ids: [], purpose: 'service', consentOffsets: [], identityOffsets: [] };
    const headers = [...(unknown === 'resend' ? [[H.resend, Buffer.from(redrive)]] : []), ...(finding === undefined ? [] : [[H.verified, Buffer.from(finding)]])];
    this.task = { delivery, sealedBy: '', subject: 's', offset: 10 + this.orders, parkedOffset: -1, queuedAt, redrive, key: '', generation: 0, attempts: 0, readBacks: 0, doubtSince: 0, notApplied: false, maybeSince: 0, last: undefined, path: '', ahead: '', record: { timestamp: this.now, headers } } as unknown as Task;
    [this.intentAt, this.called] = [this.now, false];
  }

  private end(ending: Ending): void {
    this.task = undefined;
    if (ending.repeated !== undefined) return;
    const end = endValue(ending, this.now, 'o');
    const before = this.ledger.get(end.key);
    if (before === undefined || keepsInstead(before, end)) this.ledger.set(end.key, end);
    this.compacted.set(end.key, end);
  }

  /** Of what is parked the same owner knows this, and looks at the ledger again for the rest (parking.ts). */
  private parked(): void {
    if (this.task !== undefined) this.task = { ...this.task, doubtSince: 0 };
  }

  private owner(how: 'leaves' | 'dies'): void {
    const { task } = this;
    if (task === undefined) return;
    // Beside a delivery that nobody has called.
    const left = coveredOnLeaving(task.offset - 1, undefined, [{ offset: task.offset - 1, parkedOffset: -1, maybeSince: 0 }, task]);
    if (how === 'leaves' && !this.called && left !== undefined) this.takenForCalled.push(task.redrive);
    this.task = { ...task, attempts: 0, readBacks: 0, doubtSince: 0, notApplied: false, last: undefined, maybeSince: how === 'dies' ? this.intentAt : left?.at ?? 0 };
    this.openedAt = this.now;
    // What an earlier owner may have called stays covered.
    this.called ||= how === 'dies';
  }

  private async step(fate: Fate): Promise<void> {
    const { task, ports, runner, destination } = this;
    if (task === undefined) return;
    this.fate = fate;
    const prepared = (this.because === 'expiring' ? expire(ports, runner, task) : undefined) ?? prepare(ports, runner, destination, task);
    if (prepared.kind === 'end') this.end(prepared.ending);
    else if (prepared.kind === 'silent') this.task = undefined;
    else if (prepared.kind === 'park') this.parked();
    else if (prepared.kind === 'call') this.settle.call({} as Lane, runner, task, await call(ports, runner, destination, task, prepared.operation));
    else if (prepared.kind === 'read-back') this.settle.read({} as Lane, runner, task, await readBack(ports, runner, destination, task, prepared.operation));
  }

  async run(command: Command): Promise<void> {
    switch (command.kind) {
      case 'order':
        if (this.task === undefined) this.read(`rpl_${++this.orders}`, command.unknown, command.finding, command.queuedAt);
        return;
      case 'found':
        if (this.task === undefined && this.effects.length === 0) this.read(`res_${++this.orders}`, 'hold', 'not-applied');
        return;
      case 'step': return this.step(command.fate);
      case 'wait': this.now += command.ms; return;
      case 'ends':
        this.because = command.why;
        await this.step('answered');
        this.because = undefined;
        return;
      case 'parked': return this.parked();
      case 'owner': return this.owner(command.how);
    }
  }
}

const command: fc.Arbitrary<Command> = fc.oneof(
  { weight: 5, arbitrary: fc.record({ kind: fc.constant('step' as const), fate: fc.constantFrom(...fates, 'cut' as const, 'lost' as const) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('order' as const), unknown: fc.constantFrom('hold' as const, 'resend' as const) }) },
  { weight: 1, arbitrary: fc.constant({ kind: 'found' as const }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('wait' as const), ms: fc.constantFrom(second, 6 * second, 10 * hour, 30 * hour, 80 * hour) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('ends' as const), why: fc.constantFrom('denied' as const, 'retired' as const, 'expiring' as const) }) },
  fc.constant({ kind: 'parked' as const }),
  fc.record({ kind: fc.constant('owner' as const), how: fc.constantFrom('leaves' as const, 'dies' as const) }),
);

test('whatever becomes of a delivery and its redrives, it takes effect once: a second time only by an order that resends, where the vendor cannot be asked', async () => {
  await fc.assert(fc.asyncProperty(fc.boolean(), fc.boolean(), fc.array(command, { maxLength: 24, size: 'max' }), async (keyed, readable, commands) => {
    const world = new World({ keyed, readable });
    for (const one of commands) await world.run(one);
    expect(world.takenForCalled).toEqual([]);
    expect([...world.compacted.values()], 'what compaction leaves is what was kept').toEqual([...world.ledger.values()]);
    const again = world.effects.slice(1);
    expect(readable ? again : again.filter(({ resends }) => !resends)).toEqual([]);
  }), { numRuns: 3000 });
});

const play = async (vendor: Vendor, commands: readonly Command[]): Promise<World> => {
  const world = new World(vendor);
  for (const one of commands) await world.run(one);
  return world;
};
const step = (fate: Fate): Command => ({ kind: 'step', fate });
const ends = (why: 'denied' | 'retired' | 'expiring'): Command => ({ kind: 'ends', why });
const wait = (ms: number): Command => ({ kind: 'wait', ms });
const order = (unknown: 'hold' | 'resend'): Command => ({ kind: 'order', unknown });

test('what was denied in doubt and then ended without a call is not sent under a new key', async () => {
  for (const why of ['expiring', 'retired'] as const) {
    const world = await play({ keyed: true, readable: false }, [step('cut'), ends('denied'), order('resend'), ends(why), wait(30 * hour), order('hold'), step('answered')]);
    expect(world.effects).toHaveLength(1);
    expect([...world.ledger.values()]).toMatchObject([{ state: 'quarantined', effect: 'maybe' }]);
  }
});

test('what a person found not applied is called, and is not known to be without effect when it ends without a call: should they be wrong, the next order does not send it under a new key', async () => {
  const found: Command = { kind: 'order', unknown: 'hold', finding: 'not-applied' };
  const start = [step('cut'), ends('denied'), wait(30 * hour)];
  const wrong = await play({ keyed: true, readable: false }, [...start, found, ends('denied'), order('hold'), step('answered')]);
  expect([wrong.effects.length, [...wrong.ledger.values()]]).toMatchObject([1, [{ state: 'quarantined', effect: 'maybe' }]]);
  // Said twice: the second was said of what the first has not called yet.
  const twice = await play({ keyed: false, readable: false }, [step('lost'), step('answered'), found, step('cut'), step('answered'), { kind: 'order', unknown: 'hold', finding: 'not-applied', queuedAt: 1_800_000_000_000 }, step('answered')]);
  expect([twice.effects.length, [...twice.ledger.values()]]).toMatchObject([1, [{ state: 'quarantined', effect: 'maybe' }]]);
  const right = await play({ keyed: false, readable: true }, [step('lost'), ...start.slice(1), found, step('answered')]);
  expect([right.effects.length, [...right.ledger.values()]]).toMatchObject([1, [{ state: 'delivered' }]]);
});

test('a doubt that the vendor cleared is cleared for good, whatever the redrive ends as', async () => {
  const world = await play({ keyed: false, readable: true }, [step('lost'), ends('denied'), wait(6 * second), order('hold'), step('answered'), ends('retired')]);
  expect([...world.ledger.values()]).toMatchObject([{ state: 'dead-lettered', effect: 'none' }]);
});

test('a question that has no answer leaves the doubt, also of what is parked meanwhile; one that has clears it, also for the time it is parked', async () => {
  const start = [step('cut'), ends('expiring'), wait(6 * second), order('hold')] as const;
  const world = await play({ keyed: false, readable: true }, [...start, step('busy'), { kind: 'parked' }, wait(6 * second), step('answered')]);
  expect([world.effects.length, [...world.ledger.values()].map(({ state }) => state)]).toEqual([1, ['delivered']]);
  const lost = await play({ keyed: false, readable: true }, [step('lost'), ...start.slice(1), step('answered'), { kind: 'parked' }, step('answered')]);
  expect(lost.effects).toHaveLength(1);
  expect(lost.task).toBeUndefined();
});

test('a call under a key that was found not applied is given the time to show, also where an older end of it is known', async () => {
  const world = await play({ keyed: false, readable: true }, [step('lost'), step('answered'), wait(80 * hour), order('hold'), step('answered'), step('cut'), ends('retired'), order('hold'), step('answered'), step('answered'), wait(6 * second), step('answered')]);
  expect([world.effects.length, [...world.ledger.values()].map(({ state }) => state)]).toEqual([1, ['delivered']]);
});

test('a redrive that follows at once asks the vendor when the call before can show', async () => {
  const world = await play({ keyed: false, readable: true }, [wait(hour), step('cut'), ends('denied'), order('hold'), step('answered'), step('answered'), wait(6 * second), step('answered')]);
  expect([world.effects.length, [...world.ledger.values()].map(({ state }) => state)]).toEqual([1, ['delivered']]);
});
