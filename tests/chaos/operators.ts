/** Who orders changes by the control API while it is killed: kill switches, tokens, releases, replays over the same records, erasures. What was answered is judged in the end. */
import { registry as adapters, readAdapterFile } from '@weir/adapters';
import type { Failpoint } from '@weir/failpoint';
import { readWorkspace, withDefaults, type ReleaseFile } from '@weir/release';
import type { Random } from './random.ts';
import type { SentCall } from './traffic.ts';

/** A destination that was switched off, by what was answered (ms since the epoch). */
export interface Pause { readonly destination: string; /** No dispatcher starts a call from then on. */ readonly from: number; /** When it was told to go on. */ readonly to: number }
export interface OrderedErasure { readonly id: string; readonly userId: string; readonly email: string; /** Answered before the order. */ readonly events: readonly string[] }

/** What operators were told. */
export interface OperatorsLog {
  readonly pauses: Pause[];
  /** By destination: whether the last answered switch paused it. */
  readonly switches: Map<string, boolean>;
  /** By id: whether its revocation was answered. */
  readonly tokens: Map<string, boolean>;
  readonly replays: Set<string>;
  readonly erasures: OrderedErasure[];
  /** Answers that nobody should get: anything but what was ordered, and what says that it is away or busy. */
  readonly odd: string[];
}

export interface Operators {
  readonly log: OperatorsLog;
  /** Something was asked and is not answered, or an order that was answered has not ended. */
  open(): boolean;
  /** When a request was last cut off (performance.now()). */
  cutAt(): number;
  /** The next change is one that passes the point. */
  provoke(point: Failpoint): void;
  /** Asks for the other of two releases until it is answered, or `enough`: at least once. Whether it was made. */
  switchRelease(enough: () => boolean): Promise<boolean>;
  /** Until `done`; then what was switched off goes on. */
  run(done: () => boolean): Promise<void>;
  /** Orders that were answered and have not ended, with how far they are; rejects while nobody answers. */
  unended(): Promise<readonly string[]>;
}

export interface OperatorsOptions {
  readonly control: string;
  readonly token: string;
  /** Folder of the workspace whose releases are applied. */
  readonly workspace: string;
  readonly destinations: readonly string[];
  readonly random: Random;
  /** Sends events, and gives their ids when they are answered. */
  readonly send: (calls: readonly SentCall[]) => Promise<readonly string[]>;
}

type Act = 'switch' | 'token' | 'release' | 'replay' | 'erase';

/** Longer than the slowest change waits for others (services/control/switches.ts). */
const requestTimeoutMs = 30_000;
/** So long a destination stands still: longer than a call that began before may take to arrive. */
const pauseMs = 6000;
/** States of replays, and of erasures: with `erased` an erasure is acknowledged. */
const ended: ReadonlySet<string> = new Set(['finished', 'cancelled', 'failed', 'empty', 'erased', 'done', 'unknown']);
const operators = 2;

/** What the odd release maps besides, of a profile of either source: the plan is its title, too. */
const more = {
  'mappings/members.yaml': ['      plan: plan\n', '      plan: plan\n      title: { from: plan }\n'],
  'mappings/segment.yaml': ['      title: { from: traits.title, onError: skip }\n', '      title: { from: [traits.title, traits.plan], onError: skip }\n'],
} as const;

/**
 * Of two releases that agree in what they route, let pass and name, and differ in what they map: the same item gives other
 * bytes under the other one. So a change in the middle of a batch shows, and each record must name its own.
 */
export function filesOf(workspace: string, version: number): ReleaseFile[] {
  const files = new Map(readWorkspace(workspace).map(({ path, content }) => [path, content]));
  files.set('weir.yaml', `name: chaos\ndoc: Version ${version}.\nregion: DE\n`);
  if (version % 2 === 1) {
    files.set('sources/segment.yaml', `${files.get('sources/segment.yaml')!}mapping: segment.yaml\n`);
    files.set('mappings/segment.yaml', readAdapterFile('segment', 'mappings/segment.yaml'));
    for (const [path, [from, to]] of Object.entries(more)) {
      const before = files.get(path)!;
      if (before.split(from).length !== 2) throw new Error(`${path} has not one line ${from.trim()}`);
      files.set(path, before.replace(from, to));
    }
  }
  return withDefaults([...files].map(([path, content]) => ({ path, content })), adapters, readAdapterFile);
}

const sleep = (ms: number): Promise<void> => new Promise((done) => { setTimeout(done, ms); });

export function createOperators({ control, token, workspace, destinations, random, send }: OperatorsOptions): Operators {
  const log: OperatorsLog = { pauses: [], switches: new Map(), tokens: new Map(), replays: new Set(), erasures: [], odd: [] };
  /** Asked or ordered, and not ended as far as is known. */
  const underWay = new Set<string>();
  let inFlight = 0;
  let cut = -Infinity;
  const wanted: Act[] = [];
  let people = 0;
  let version = 0;

  /** The answer of one request; undefined: none came, so it may be done or not. */
  async function ask(method: string, path: string, body?: object): Promise<{ readonly status: number; readonly value: any } | undefined> {
    inFlight++;
    try {
      const response = await fetch(`${control}${path}`, { method, headers: { authorization: `Bearer ${token}`, ...(body === undefined ? {} : { 'content-type': 'application/json' }) }, ...(body === undefined ? {} : { body: JSON.stringify(body) }), signal: AbortSignal.timeout(requestTimeoutMs) });
      return { status: response.status, value: await response.json() };
    } catch (error) {
      const { code } = (error as { cause?: { code?: string } }).cause ?? {};
      if (code === 'UND_ERR_SOCKET' || code === 'ECONNRESET') cut = performance.now();
      return undefined;
    } finally {
      inFlight--;
    }
  }

  /** Again until it is answered: each of these may be repeated. Undefined: it is not to be had any more. `mayRefuse`: there may be nothing to do it to. */
  async function insist(method: string, path: string, body: object | undefined, done: () => boolean, mayRefuse = false): Promise<any> {
    for (let tries = 0; ; tries++) {
      const answer = await ask(method, path, body);
      if (answer !== undefined && answer.status < 300) return answer.value;
      // 5xx and 429 say that it is away, or busy.
      if (answer !== undefined && answer.status < 500 && answer.status !== 429) {
        if (!mayRefuse || answer.status !== 400) log.odd.push(`${method} ${path.replace(/[0-9a-f-]{16,}/, '…')} was answered ${answer.status}: ${JSON.stringify(answer.value).slice(0, 200)}`);
        return undefined;
      }
      if (done()) return undefined;
      await sleep(Math.min(2000, 100 * 2 ** tries));
    }
  }

  /** What is paused goes on in any case. */
  const never = (): boolean => false;

  async function switchOff(destination: string, done: () => boolean): Promise<void> {
    const paused = await insist('POST', `/v1/destinations/${destination}/pause`, { reason: 'chaos' }, done);
    const from = Date.now();
    if (paused !== undefined) log.switches.set(destination, true);
    const isQuiet = paused?.applied === true;
    for (let waited = 0; waited < pauseMs && isQuiet && !done(); waited += 250) await sleep(250);
    const to = Date.now();
    if (isQuiet) log.pauses.push({ destination, from, to });
    if (await insist('POST', `/v1/destinations/${destination}/resume`, { reason: 'chaos' }, never) !== undefined) log.switches.set(destination, false);
  }

  async function tokens(done: () => boolean): Promise<void> {
    const issued = await insist('POST', '/v1/tokens', { name: 'chaos', grants: ['viewer'], days: 1 }, done);
    if (issued === undefined) return;
    log.tokens.set(issued.id, false);
    if (await insist('DELETE', `/v1/tokens/${issued.id}`, undefined, done) !== undefined) log.tokens.set(issued.id, true);
  }

  async function release(enough: () => boolean): Promise<boolean> {
    return await insist('POST', '/v1/releases', { files: filesOf(workspace, ++version % 2), message: 'chaos' }, enough) !== undefined;
  }

  /** Both operators at once, so that two orders select the same records. */
  async function replay(done: () => boolean): Promise<void> {
    const body = { from: random.pick(['dlq', 'dlq', 'dispatch', 'canonical', 'raw']), since: Date.now() - 45_000, start: true };
    await Promise.all(Array.from({ length: operators }, async () => {
      const ordered = await insist('POST', '/v1/replays', body, () => done() || random.next() < 0.3, true);
      if (ordered === undefined) return;
      log.replays.add(ordered.id);
      underWay.add(ordered.id);
    }));
  }

  async function erase(done: () => boolean): Promise<void> {
    const n = people++;
    const [userId, email] = [`x-${n}`, `x${n}@larkspur.example`];
    const common = { userId, timestamp: new Date().toISOString() };
    const events = await send([
      { userId, email, consent: true, body: { ...common, messageId: `x-${n}-0`, type: 'identify', traits: { email, marketingConsent: true } } },
      ...[1, 2, 3].map((i): SentCall => ({ userId, email, body: { ...common, messageId: `x-${n}-${i}`, type: i === 3 ? 'identify' : 'track', ...(i === 3 ? { traits: { email, plan: 'last' } } : { event: 'Product Viewed', properties: { n: i } }) } })),
    ]);
    await sleep(random.below(4000));
    // Forced: it may be ordered before anything of the person is normalised.
    const ordered = await insist('POST', '/v1/subjects/erase', { identifier: `userId:${userId}`, force: true }, done);
    if (ordered === undefined) return;
    underWay.add(ordered.id);
    log.erasures.push({ id: ordered.id, userId, email, events });
  }

  async function unended(): Promise<string[]> {
    const [replays, erasures] = await Promise.all([ask('GET', '/v1/replays'), ask('GET', '/v1/erasures')]);
    if (replays?.status !== 200 || erasures?.status !== 200) throw new Error('the control service does not answer');
    // Also orders whose answer was lost.
    const states = new Map<string, string>([...replays.value.replays, ...erasures.value.erasures].map(({ id, state }) => [id, state]));
    const left = [...new Set([...states.keys(), ...log.replays, ...log.erasures.map(({ id }) => id)])].filter((id) => !ended.has(states.get(id) ?? ''));
    for (const id of underWay) if (!left.includes(id)) underWay.delete(id);
    return left.map((id) => `${id} is ${states.get(id) ?? 'not known'}`);
  }

  async function operator(index: number, done: () => boolean): Promise<void> {
    while (!done()) {
      const act = wanted.shift() ?? random.pick<Act>(['switch', 'token', 'token', 'release', 'replay', 'replay', 'erase', 'erase', 'erase']);
      if (act === 'switch') await switchOff(destinations[index % destinations.length]!, done);
      else if (act === 'token') await tokens(done);
      else if (act === 'release') await release(() => true);
      else if (act === 'replay') await replay(done);
      else await erase(done);
      await unended().catch(() => undefined);
      await sleep(500 + random.below(1500));
    }
  }

  return {
    log, unended, switchRelease: release,
    open: () => inFlight > 0 || underWay.size > 0,
    cutAt: () => cut,
    provoke(point) {
      if (point === 'control.put-back') wanted.push('replay');
      else if (point === 'control.erasure-marked' || point === 'control.keys-destroyed') wanted.push('erase');
    },
    async run(done) {
      await Promise.all(Array.from({ length: operators }, (_, i) => operator(i, done)));
    },
  };
}
