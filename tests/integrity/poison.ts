/** A hot person whose events are poison, one in a hundred, and what their neighbours notice of it. */
import { createLog } from '@weir/log';
import type { Fleet } from '@weir/testing';

export interface PoisonFigures {
  readonly perSecond: number;
  readonly seconds: number;
  readonly neighboursP99CleanMs: number;
  readonly neighboursP99PoisonedMs: number;
  readonly neighbours: number;
  /** Poison of both kinds: items that no mapping takes, deliveries that the vendor refuses for good. */
  readonly poison: number;
  readonly deadLettersIntact: number;
  readonly deadLetters: number;
  readonly problems: readonly string[];
}

interface Sent { readonly n: number; readonly bytes: string }

const hotShare = 0.3;
const people = 500;

/** Traffic of so many seconds in phases, clean and poisoned in turn, so that what else the machine does falls on both. */
export async function runPoison(fleet: Fleet, options: { readonly brokers: readonly string[]; readonly registryUrl: string; readonly perSecond: number; readonly phaseMs: number; readonly phases: number }): Promise<PoisonFigures> {
  const authorization = `Basic ${Buffer.from(`${fleet.secret('SEGMENT_WRITE_KEY')}:`).toString('base64')}`;
  const poison: Sent[] = [];
  const sentIn = new Map<number, 'clean' | 'poisoned'>();
  let n = 0;
  let hotOnes = 0;

  async function tick(kind: 'clean' | 'poisoned', count: number): Promise<void> {
    const items: string[] = [];
    for (let i = 0; i < count; i++, n++) {
      const isHot = n % 10 < hotShare * 10;
      const at = new Date().toISOString();
      const isPoison = isHot && kind === 'poisoned' && hotOnes++ % 100 === 50;
      // Poison at the normalizer: a consent that is neither yes nor no.
      const item = JSON.stringify(isPoison ? { type: 'identify', messageId: `poison-${n}`, userId: 'hot', timestamp: at, traits: { marketingConsent: 'perhaps', note: `bytes \u00e9\u4e2d ${n}` } } : { type: 'track', messageId: `m-${n}`, userId: isHot ? 'hot' : `u${n % people}`, timestamp: at, event: 'Viewed', properties: { n, sentAt: Date.now() } });
      if (isPoison) poison.push({ n, bytes: item });
      else if (!isHot) sentIn.set(n, kind);
      items.push(item);
    }
    const answer = await fetch(`${fleet.ingest}/v1/batch`, { method: 'POST', headers: { 'content-type': 'application/json', authorization }, body: `{"batch":[${items.join(',')}]}` });
    if (answer.status !== 200) throw new Error(`${answer.status} ${await answer.text()}`);
  }

  async function phase(kind: 'clean' | 'poisoned'): Promise<void> {
    const everyMs = 50;
    const end = performance.now() + options.phaseMs;
    for (let due = performance.now(); due < end; due += everyMs) {
      await tick(kind, Math.max(1, Math.round(options.perSecond * everyMs / 1000)));
      await new Promise((done) => setTimeout(done, Math.max(0, due + everyMs - performance.now())));
    }
  }

  const order = (fault: object | undefined) => fetch(`${fleet.sandbox}/faults`, fault === undefined ? { method: 'DELETE' } : { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(fault) });
  await phase('clean');
  await fleet.settled(120_000);
  sentIn.clear();
  const from = (await (await fetch(`${fleet.sandbox}/arrivals?destination=warehouse`)).json() as { n: number }[]).at(-1)?.n ?? 0;
  for (let i = 0; i < options.phases; i++) {
    const kind = i % 2 === 0 ? 'clean' : 'poisoned';
    // Poison at the vendor: one in a hundred of the hot person is refused for good.
    if (kind === 'poisoned') await order({ mode: 'permanent', destination: 'warehouse', subject: 'hot', rate: 0.01, seed: i + 1 });
    await phase(kind);
    await fleet.settled(120_000);
    await order(undefined);
  }
  const arrivals = (await (await fetch(`${fleet.sandbox}/arrivals?destination=warehouse&since=${from}`)).json()) as { at: string; status: number; body: any }[];
  const latencies = { clean: [] as number[], poisoned: [] as number[] };
  for (const { at, body } of arrivals) {
    const { number, ms } = read(body);
    const kind = sentIn.get(number);
    if (kind !== undefined && ms > 0) latencies[kind].push(Date.parse(at) - ms);
  }
  const p99 = (list: number[]): number => list.sort((a, b) => a - b)[Math.floor(list.length * 0.99)] ?? Number.NaN;
  const refused = arrivals.filter((a) => a.status === 400).length;
  const letters = await readLetters(fleet, options);
  const problems: string[] = [];
  let intact = 0;
  for (const { bytes } of poison) {
    if (letters.raw.has(bytes)) intact++;
    else problems.push(`not among the dead letters as it was sent: ${bytes.slice(0, 80)}`);
  }
  intact += letters.same;
  if (letters.same !== letters.dispatched || letters.dispatched !== refused) problems.push(`${refused} refused for good, ${letters.dispatched} dead letters of the dispatcher, ${letters.same} with the bytes of their record`);
  return { perSecond: options.perSecond, seconds: options.phases * options.phaseMs / 1000, neighboursP99CleanMs: p99(latencies.clean), neighboursP99PoisonedMs: p99(latencies.poisoned), neighbours: latencies.clean.length + latencies.poisoned.length, poison: poison.length + refused, deadLettersIntact: intact, deadLetters: letters.raw.size + letters.dispatched, problems: problems.slice(0, 10) };
}

/** Number and time of sending: properties of the event, as an object or as text. */
function read(body: unknown): { number: number; ms: number } {
  const text = JSON.stringify(body).replaceAll('\\', '');
  return { number: Number(/"n":(\d+)/.exec(text)?.[1] ?? -1), ms: Number(/"sentAt":(\d{13})/.exec(text)?.[1] ?? 0) };
}

/** Dead letters as an operator gets them: of the mapping by their text, of the dispatcher beside the record that they name. */
async function readLetters(fleet: Fleet, options: { brokers: readonly string[]; registryUrl: string }): Promise<{ raw: Set<string>; dispatched: number; same: number }> {
  const api = async (path: string): Promise<any> => (await fetch(fleet.url('control') + path, { headers: { authorization: `Bearer ${fleet.secret('ADMIN_TOKEN')}` } })).json();
  const log = createLog({ brokers: options.brokers, clientId: 'letters' });
  const reader = await log.reader();
  const raw = new Set<string>();
  let dispatched = 0;
  let same = 0;
  for (const { id, stage } of (await api('/v1/dlq?limit=10000')).deadLetters as { id: string; stage: string }[]) {
    const letter = await api(`/v1/dlq/${id}`);
    if (stage !== 'dispatcher') raw.add(letter.text);
    else {
      dispatched++;
      const original = await reader.readOne(letter.topic, letter.partition, letter.offset);
      if (original?.value?.toString('base64') === letter.value) same++;
    }
  }
  await log.close();
  return { raw, dispatched, same };
}
