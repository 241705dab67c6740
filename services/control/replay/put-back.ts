import { headerBytes, Packer, type Appender, type Headers, type LogAdmin, type OutRecord, type Reader } from '@weir/log';
import { erasureSource, H, type groupNames, type Standing, type TopicNames } from '@weir/pipeline';
import type { Clock } from '@weir/service';
import { textOf } from './derive.ts';
import type { ReplayOrder } from './order.ts';
import type { Position } from './scan.ts';
import { unknownRule, type Item, type UnknownRule } from './select.ts';
import { sends } from './standing.ts';

export interface PutBackPorts {
  readonly appender: Appender;
  readonly reader: Reader;
  readonly admin: LogAdmin;
  readonly topics: TopicNames;
  readonly groups: ReturnType<typeof groupNames>;
  readonly clock: Clock;
}

const pollMs = 50;
/** Of one append: orders and audit leaves go through the same appender, which refuses what would be too much at once. */
const maxAppendBytes = 4 * 1024 * 1024;
const dropped: readonly string[] = [H.intent, H.resend, H.origin, H.verified, H.only, H.corrects, H.settled, H.dispatched];

/**
 * The record as it was, on its topic and partition, under its key; its headers without those of an earlier replay, and
 * with those of this one. A canonical or raw record goes the whole way again, for one destination when the order or its letter names it.
 * Whether the order sends what may have taken effect (unknownRule) goes with it: the key window may pass before its turn comes.
 */
export function recordOf(order: Pick<ReplayOrder, 'id'> & UnknownRule, item: Pick<Item, 'origin' | 'from' | 'kind' | 'deliveries' | 'corrects' | 'only'>, partition = item.origin.partition): OutRecord {
  const { key, value } = item.origin;
  const headers: (readonly [string, Buffer])[] = item.origin.headers.filter(([name]) => !dropped.includes(name));
  headers.push([H.intent, Buffer.from(order.id)], [H.origin, Buffer.from(item.from)]);
  if (unknownRule(order, item.kind) === 'resend') headers.push([H.resend, Buffer.from(order.id)]);
  if (item.kind === 'delivery' && item.deliveries[0]!.found.standing === 'applied') headers.push([H.verified, Buffer.from('applied')]);
  if (item.kind === 'derived' && item.only !== undefined) headers.push([H.only, Buffer.from(item.only)]);
  if (item.corrects !== undefined) headers.push([H.corrects, Buffer.from(item.corrects)]);
  const settled = settledOf(item, order);
  if (settled !== '') headers.push([H.settled, Buffer.from(settled)]);
  return { partition, key, value, headers: headers as Headers };
}

/** What a header may have: the names of the deliveries of an item of some hundred records. Who is named no more is left to the ledger. */
const maxSettledBytes = 64 * 1024;
/** Standings of what ended, or is on its way. With `unknownHeld` and those that are not sent for another reason policy or the dispatcher say so themselves. */
const settledStandings: ReadonlySet<Standing> = new Set<Standing>(['applied', 'confirmed', 'pending', 'conflict', 'failedOver', 'unknownHeld']);

/**
 * `H.settled` of a record that is decided anew; '' = nothing. The ledger would absorb most of these deliveries, but not one that is known
 * by what the vendor was asked, nor one that a release since gave another subject, whose end is on another partition.
 */
function settledOf({ kind, deliveries, corrects, origin }: Pick<Item, 'kind' | 'deliveries' | 'corrects' | 'origin'>, order: UnknownRule): string {
  if (kind !== 'derived') return '';
  const unknown = unknownRule(order, kind);
  const corrected = new Set(corrects?.split(',').map((part) => part.split('=', 1)[0]!));
  let text = leftOutOf(origin, deliveries[0]?.facts.source);
  for (const { facts: { outputId, destination, operation }, found: { standing } } of deliveries) {
    const name = `${outputId}/${destination}/${operation}`;
    if (!settledStandings.has(standing) || (standing !== 'applied' && sends(standing, unknown)) || corrected.has(name)) continue;
    if (text.length + name.length >= maxSettledBytes) break;
    text += text === '' ? name : `,${name}`;
  }
  return text;
}

/** What an erasure leaves out of its record, of its own accord (services/control/erasure-records.ts). What an order before said is no part of that. */
function leftOutOf({ headers }: Pick<Item['origin'], 'headers'>, source: string | undefined): string {
  if (source !== erasureSource || headers.some(([name]) => name === H.intent)) return '';
  return headers.find(([name]) => name === H.settled)?.[1].toString('latin1') ?? '';
}

const originName = headerName(H.origin);
const settledName = headerName(H.settled);
const onlyName = headerName(H.only);
const verified = headerBytes(H.verified, 'applied');

/** A header's name with its length before it. */
function headerName(name: string): Buffer {
  return headerBytes(name, '').subarray(0, -1);
}

/** Writes the same records as `recordOf`, those of dead letters with their headers as they stand in the letter, into one packer. */
export function createRecords(order: Pick<ReplayOrder, 'id'> & UnknownRule): (packer: Packer, item: Parameters<typeof recordOf>[1], partition?: number) => OutRecord {
  const intent = headerBytes(H.intent, order.id);
  const resend = headerBytes(H.resend, order.id);
  return (packer, item, partition = item.origin.partition) => {
    const { origin: { key, value, encoded }, kind } = item;
    // Few, or of another version of Weir.
    if (encoded === undefined || key === null || value === null || item.corrects !== undefined) return recordOf(order, item, partition);
    packer.begin();
    packer.key(key, 0, key.length);
    packer.value(value, 0, value.length);
    if (!encoded.pack(packer, dropped)) return recordOf(order, item, partition);
    packer.headers(intent, 0, intent.length, 1);
    packer.header(originName, item.from);
    if (unknownRule(order, kind) === 'resend') packer.headers(resend, 0, resend.length, 1);
    if (kind === 'delivery' && item.deliveries[0]!.found.standing === 'applied') packer.headers(verified, 0, verified.length, 1);
    if (kind === 'derived' && item.only !== undefined) packer.header(onlyName, item.only);
    const settled = settledOf(item, order);
    if (settled !== '') packer.header(settledName, settled);
    return packer.end(partition);
  };
}

/** Puts items back in their order, no faster than the order's rate, and never further ahead of the stages than it allows. */
export interface PutBack {
  /** Resolves when all are acknowledged; false = stopped before the end (`goesOn` said so). */
  put(items: readonly Item[], goesOn: () => boolean): Promise<boolean>;
  /** Resolves when what is ahead of the stages is little enough to put back more, or `goesOn` says no. `everyMs`: how often it looks. */
  room(goesOn: () => boolean, everyMs?: number): Promise<void>;
  /** Topic whose stage has not taken enough yet of what was put there, as far as it is known. */
  waitingFor(): string | undefined;
}

export function createPutBack(ports: PutBackPorts, order: ReplayOrder): PutBack {
  const { appender, admin, topics, groups, clock } = ports;
  /** Behind the last record put on each partition. */
  const put = new Map<string, Map<number, number>>();
  const make = createRecords(order);
  /** Its records are acknowledged; undefined while some are not. */
  let idle: Packer | undefined = new Packer();
  let unseen = 0;
  let due = 0;
  let waiting: string | undefined;

  const groupOf = (topic: string): string => (topic === topics.canonical ? groups.policy : topic.startsWith(topics.raw('')) ? groups.normalizer : groups.dispatcher(topic.slice(topics.dispatch('').length)));

  async function ahead(topic: string, ends: ReadonlyMap<number, number>): Promise<number> {
    const committed = await admin.committed(groupOf(topic), topic);
    let behind = 0;
    for (const [partition, end] of ends) behind += Math.max(0, end - (committed.get(partition) ?? 0));
    return behind;
  }

  /** Until every stage has less than `order.ahead` of it before it. */
  async function room(goesOn: () => boolean, everyMs = pollMs): Promise<void> {
    if (order.ahead === 0 || unseen < order.ahead / 2) return;
    for (;;) {
      let behind: string | undefined;
      let most = 0;
      for (const [topic, ends] of put) {
        const n = await ahead(topic, ends);
        if (n > order.ahead / 2) behind = topic;
        most = Math.max(most, n);
      }
      unseen = most;
      waiting = behind;
      if (behind === undefined || !goesOn()) return;
      await pause(everyMs);
    }
  }

  const pause = (ms: number): Promise<void> => new Promise((resolve) => { clock.setTimer(resolve, ms); });

  async function pace(n: number): Promise<void> {
    if (order.rate === 0) return;
    const now = clock.monotonic();
    due = Math.max(due, now - 1000) + (n / order.rate) * 1000;
    if (due > now) await pause(due - now);
  }

  async function append(items: readonly Item[]): Promise<void> {
    const byTopic = Map.groupBy(items, (item) => item.origin.topic);
    const packer = idle ?? new Packer();
    idle = undefined;
    await Promise.all([...byTopic].map(async ([topic, list]) => {
      await appender.partitions(topic);
      const records = list.map((item) => make(packer, item, item.origin.unplaced === true ? appender.partitionFor(topic, item.origin.key!) : undefined));
      const offsets = await appender.append(topic, records);
      let ends = put.get(topic);
      if (ends === undefined) put.set(topic, ends = new Map());
      for (const [i, record] of records.entries()) ends.set(record.partition, Math.max(ends.get(record.partition) ?? 0, offsets[i]! + 1));
    }));
    packer.reset();
    idle = packer;
    unseen += items.length;
  }

  return {
    room,
    waitingFor: () => waiting,
    async put(items, goesOn) {
      const size = Math.max(1, Math.min(items.length, order.rate > 0 ? Math.ceil(order.rate / 10) : items.length, order.ahead > 0 ? Math.ceil(order.ahead / 2) : items.length));
      for (let at = 0, end = 0; at < items.length; at = end) {
        await room(goesOn);
        if (!goesOn()) return false;
        for (let bytes = 0; end < items.length && end - at < size && (end === at || bytes + sizeOf(items[end]!) <= maxAppendBytes); end++) bytes += sizeOf(items[end]!);
        const slice = items.slice(at, end);
        await pace(slice.length);
        await append(slice);
      }
      return true;
    },
  };
}

/** About; headers are small. */
const sizeOf = ({ origin: { key, value } }: Item): number => (key?.length ?? 0) + (value?.length ?? 0);

/** Every topic that the order may write to. */
export function targetsOf(order: ReplayOrder, topics: TopicNames, sources: Iterable<string>, destinations: Iterable<string>): string[] {
  const raw = [...sources].map(topics.raw);
  const dispatch = [...destinations].map(topics.dispatch);
  if (order.from === 'raw') return raw;
  if (order.from === 'canonical') return [topics.canonical];
  return order.from === 'dispatch' ? dispatch : [...raw, topics.canonical, ...dispatch];
}

export async function endsOf(admin: LogAdmin, targets: readonly string[]): Promise<Position[]> {
  const found = await Promise.all(targets.map(async (topic) => [...await admin.endOffsets(topic)].map(([partition, offset]) => ({ topic, partition, offset }))));
  return found.flat();
}

/** Origins of what this order put back at or behind these ends: the part of a run that its cursor does not tell. */
export async function putBackSince(ports: Pick<PutBackPorts, 'reader' | 'admin'>, order: ReplayOrder, tails: readonly Position[]): Promise<Set<string>> {
  const found = new Set<string>();
  const ends = new Map((await endsOf(ports.admin, [...new Set(tails.map((t) => t.topic))])).map((p) => [`${p.topic}/${p.partition}`, p.offset]));
  await Promise.all(tails.map(({ topic, partition, offset }) => ports.reader.read(topic, partition, offset, ends.get(`${topic}/${partition}`) ?? offset, (batch) => {
    for (const { headers } of batch.records) if (textOf(headers, H.intent) === order.id) found.add(textOf(headers, H.origin));
  })));
  return found;
}
