/**
 * Kafka as packages/log sees it, in memory: brokers with connections that answer in order, partitions with a leader,
 * compaction; and the ways in which it fails. What it holds is the truth
 * that checkers read. Sources: https://kafka.apache.org/protocol, KIP-394 (member id required).
 */
import { E, type BrokerConnection, type Driver, type Fetched, type PartitionOffset, type Produced } from '../../../packages/log/driver.ts';
import { decodeBatches, encodeBatch } from '../../../packages/log/records.ts';
import type { LogRecord } from '@weir/log';
import type { Faults } from './faults.ts';
import { Coordinator, type Group } from './groups.ts';
import type { Actor, Random, Scheduler } from './time.ts';

interface Segment { readonly base: number; readonly count: number; bytes: Buffer }
interface Partition { readonly segments: Segment[]; leader: number; end: number; start: number; readonly records: LogRecord[]; readonly ends: { readonly at: number; readonly end: number }[] }
interface Topic { readonly name: string; readonly partitions: Partition[]; readonly compacted: boolean }

/** Told of what the cluster does, as it does it. */
export interface Witness {
  appended(topic: string, partition: number, records: readonly LogRecord[]): void;
  committed(groupId: string, topic: string, partition: number, offset: number): void;
}

const empty: Buffer = Buffer.alloc(0);
/** As old an end is shown, and for as long, at most, ms. */
const maxOldMs = 6000;
const maxShownMs = 2500;
/** OFFSET_NOT_AVAILABLE (KIP-207), of a leader that was just elected: it tells no end before it knows it. */
const offsetNotAvailable = 78;

export class SimBroker {
  readonly topics = new Map<string, Topic>();
  readonly coordinator: Coordinator;
  readonly #scheduler: Scheduler;
  readonly #random: Random;
  readonly #faults: Faults;
  readonly #nodes: number;
  readonly #down = new Set<number>();
  readonly #connections = new Set<{ node: number; cut: () => void }>();
  readonly #appended = new Map<string, Set<() => void>>();
  /** Client and partition → what it is shown of it, by a leader that was cut off and does not know it yet; and up to where it has fetched. */
  readonly #old = new Map<string, { readonly end: number; readonly until: number }>();
  readonly #fetched = new Map<string, number>();
  readonly #oldRandom: Random | undefined;
  witness: Witness | undefined;
  /** Client → until when the brokers take their time over what it asks of the topics of consent, while all else is quick. */
  readonly consentLate = new Map<string, number>();

  /** @param options.old of its own, so that it changes nothing else of a run; undefined = no leader shows an old end */
  constructor(options: { scheduler: Scheduler; random: Random; faults: Faults; nodes: number; old?: Random | undefined }) {
    this.#oldRandom = options.old;
    this.#scheduler = options.scheduler;
    this.#random = options.random;
    this.#faults = options.faults;
    this.#nodes = options.nodes;
    this.coordinator = new Coordinator({ ...options, committed: (...commit) => this.witness?.committed(...commit) });
  }

  get groups(): Map<string, Group> {
    return this.coordinator.groups;
  }

  get brokers(): string[] {
    return Array.from({ length: this.#nodes }, (_, i) => `sim-${i}:9092`);
  }

  create(name: string, partitions: number, compacted: boolean): void {
    this.topics.set(name, { name, compacted, partitions: Array.from({ length: partitions }, () => ({ segments: [], leader: Math.floor(this.#random() * this.#nodes), end: 0, start: 0, records: [], ends: [] })) });
  }

  /** Another broker leads the partition. */
  moveLeader(topic: string, partition: number): void {
    const p = this.topics.get(topic)!.partitions[partition]!;
    p.leader = this.#other(p.leader);
    for (const wakes of this.#appended.values()) for (const wake of [...wakes]) wake();
  }

  moveCoordinator(groupId: string): void {
    const group = this.groups.get(groupId);
    if (group !== undefined) group.coordinator = this.#other(group.coordinator);
  }

  /** Its connections are cut and others lead, until `up`. */
  down(node: number): void {
    this.#down.add(node);
    for (const connection of [...this.#connections]) if (connection.node === node) connection.cut();
    for (const { partitions } of this.topics.values()) for (const p of partitions) if (p.leader === node) p.leader = this.#other(node);
    for (const group of this.groups.values()) if (group.coordinator === node) group.coordinator = this.#other(node);
  }

  up(node: number): void {
    this.#down.delete(node);
  }

  /** Of each key only the newest record is kept; the newest batch of a partition stays as it is. */
  compact(): void {
    for (const { compacted, partitions } of this.topics.values()) {
      if (!compacted) continue;
      for (const p of partitions) {
        const newest = new Map(p.records.map((r) => [r.key?.toString('latin1') ?? '', r.offset]));
        for (const segment of p.segments.slice(0, -1)) {
          const kept = decodeBatches(segment.bytes, segment.base).records.filter((r) => newest.get(r.key?.toString('latin1') ?? '') === r.offset);
          segment.bytes = Buffer.concat(kept.map((r) => based(encodeBatch([{ partition: 0, key: r.key, value: r.value, headers: r.headers }], r.timestamp), r.offset)));
        }
      }
    }
  }

  /** Retention: of each partition the segments that the group has read are deleted, but for the last. */
  trim(groupId: string, topic: string): void {
    this.topics.get(topic)!.partitions.forEach((p, partition) => {
      const committed = this.groups.get(groupId)?.offsets.get(`${topic}/${partition}`) ?? 0;
      while (p.segments.length > 1 && p.segments[0]!.base + p.segments[0]!.count <= committed) p.segments.shift();
      p.start = Math.max(p.start, p.segments[0]?.base ?? 0);
    });
  }

  #other(node: number): number {
    const up = Array.from({ length: this.#nodes }, (_, i) => i).filter((i) => i !== node && !this.#down.has(i));
    return up[Math.floor(this.#random() * up.length)] ?? node;
  }

  /** Which client holds each partition of the topic by the group's newest finished generation; undefined = nobody now. */
  holder(groupId: string, topic: string, partition: number): string | undefined {
    const group = this.groups.get(groupId);
    if (group === undefined || group.state !== 'stable') return undefined;
    for (const m of group.members.values()) if (m.assignment.length > 0 && readAssignment(m.assignment).some((a) => a.topic === topic && a.partitions.includes(partition))) return m.client;
    return undefined;
  }

  /** The driver of one client; what it asks ends with the actor. */
  driver(actor: Actor): Driver {
    return {
      name: 'platformatic',
      connect: (_client, { host }, _timeoutMs, onClose) => new Promise((resolve, reject) => {
        const node = Number(host.slice(4));
        this.#scheduler.after(this.#latency(), actor, () => {
          if (this.#down.has(node)) reject(new Error('connection refused'));
          else resolve(this.#connection(actor, node, onClose));
        });
      }),
    };
  }

  #latency(): number {
    return 0.2 + this.#random() * 3;
  }

  #connection(actor: Actor, node: number, onClose: () => void): BrokerConnection {
    const waiting = new Set<(error: Error) => void>();
    const queue: (() => Promise<void>)[] = [];
    let busy = false;
    let open = true;
    const cut = (): void => {
      if (!open) return;
      open = false;
      this.#connections.delete(entry);
      for (const reject of waiting) reject(new Error('connection was cut'));
      waiting.clear();
      onClose();
    };
    const entry = { node, cut: () => { this.#scheduler.after(0, actor, cut); } };
    this.#connections.add(entry);
    const proceed = (): void => {
      if (busy) return;
      const work = queue.shift();
      if (work === undefined) return;
      busy = true;
      void work().then(() => {
        busy = false;
        proceed();
      });
    };

    /** One request: on its way, done by the broker in the order of the connection, its answer on its way. */
    const ask = <T>(work: () => T | Promise<T>, loss?: { request?: boolean; reply?: boolean; lateMs?: number; applyAfterCutMs?: number }): Promise<T> => new Promise((resolve, reject) => {
      if (!open) return reject(new Error('connection was cut'));
      waiting.add(reject);
      const { world } = this.#scheduler;
      if (loss?.applyAfterCutMs !== undefined) {
        // It stood in a queue of the broker when its connection ended.
        this.#scheduler.after(loss.applyAfterCutMs, world, () => { void work(); });
        this.#scheduler.after(this.#latency(), actor, cut);
        return;
      }
      this.#scheduler.after(this.#latency(), world, () => {
        if (loss?.request === true || this.#down.has(node)) return void this.#scheduler.after(this.#latency(), actor, cut);
        queue.push(async () => {
          const answer = await work();
          if (loss?.reply === true) return void this.#scheduler.after(this.#latency(), actor, cut);
          const lateMs = this.#latency() + (loss?.lateMs ?? 0);
          await new Promise<void>((sent) => { this.#scheduler.after(lateMs / 2, world, sent); });
          this.#scheduler.after(lateMs / 2, actor, () => {
            if (!open) return;
            waiting.delete(reject);
            resolve(answer);
          });
        });
        proceed();
      });
    });
    const hit = this.#faults.hit;
    return {
      metadata: (topics) => ask(() => this.#metadata(topics), { request: hit('metadata.lost') }),
      produce: (_timeoutMs, topics) => ask(() => this.#late(actor, topics, () => topics.flatMap((t) => t.partitions.map((p) => this.#produce(node, t.topic, p.partition, p.bytes)))), {
        request: hit('produce.request-lost'), reply: hit('produce.reply-lost'), lateMs: hit('produce.reply-late') ? 100 + this.#random() * 4000 : 0, applyAfterCutMs: hit('produce.applied-late') ? 20 + this.#random() * 400 : undefined,
      }),
      fetch: (maxWaitMs, maxBytes, topics) => ask(() => this.#late(actor, topics, () => this.#fetch(actor, node, maxWaitMs, maxBytes, topics)), { reply: hit('fetch.reply-lost') }),
      listOffsets: (topic, partitions, timestamp) => ask(() => partitions.map((partition): PartitionOffset => {
        const p = this.topics.get(topic)?.partitions[partition];
        const errorCode = p === undefined ? E.unknownTopic : p.leader !== node || hit('offsets.not-leader') ? E.notLeader : 0;
        if (errorCode !== 0) return { topic, partition, errorCode, offset: -1 };
        return timestamp === -1 ? this.#endOf(actor, topic, partition, p!) : { topic, partition, errorCode, offset: p!.start };
      })),
      findCoordinator: (groupId) => ask(() => ({ errorCode: 0, nodeId: this.coordinator.group(groupId).coordinator })),
      joinGroup: (options) => ask(() => this.coordinator.join(node, actor.name, options), { reply: hit('join.reply-lost') }),
      syncGroup: (member, _protocol, plan) => ask(() => this.coordinator.sync(node, member, plan)),
      heartbeat: (member) => ask(() => this.coordinator.heartbeat(node, member), { request: hit('heartbeat.lost') }),
      leaveGroup: (groupId, memberId) => ask(() => this.coordinator.leave(groupId, memberId)),
      commit: (member, topics) => ask(() => this.coordinator.commit(node, member, topics), { reply: hit('commit.reply-lost'), request: hit('commit.request-lost') }),
      committed: (groupId, topics) => ask(() => {
        const group = this.coordinator.group(groupId);
        if (group.coordinator !== node) return { errorCode: E.notCoordinator, offsets: [] };
        return { errorCode: 0, offsets: topics.flatMap(({ topic, partitions }) => partitions.map((partition): PartitionOffset => ({ topic, partition, errorCode: 0, offset: group.offsets.get(`${topic}/${partition}`) ?? -1 }))) };
      }),
      createTopics: (_timeoutMs, topics) => ask(() => topics.map(({ name, partitions, config }) => {
        const exists = this.topics.has(name);
        if (!exists) this.create(name, partitions, config['cleanup.policy'] === 'compact');
        return { name, errorCode: exists ? E.topicExists : 0, message: '' };
      })),
      deleteTopics: (_timeoutMs, names) => ask(() => names.map((name) => ({ name, errorCode: this.topics.delete(name) ? 0 : E.unknownTopic }))),
      topicConfigs: (names) => ask(() => names.map((name) => ({ name, config: { 'cleanup.policy': this.topics.get(name)?.compacted === true ? 'compact' : 'delete' } }))),
      destroy: cut,
    };
  }

  /**
   * The end as a client is told it. Who asks a leader that was cut off is told the end of then, and is shown no more when it fetches, for a
   * while: it has no acknowledgement from there, so what it writes meanwhile goes to another one, whom it may ask next or not.
   */
  #endOf(actor: Actor, topic: string, partition: number, p: Partition): PartitionOffset {
    const answer = { topic, partition, errorCode: 0, offset: p.end };
    if (this.#oldRandom === undefined) return answer;
    const name = `${actor.name} ${topic}/${partition}`;
    const shown = this.#shown(name, p);
    if (shown < p.end) return { ...answer, offset: shown };
    if (!this.#faults.hitBy('offsets.old-end', this.#oldRandom)) return answer;
    if (this.#oldRandom() < 0.2) return { ...answer, errorCode: offsetNotAvailable, offset: -1 };
    const at = this.#scheduler.now - this.#oldRandom() ** 2 * maxOldMs;
    const end = Math.max(p.ends.findLast((e) => e.at <= at)?.end ?? 0, this.#fetched.get(name) ?? 0, p.start);
    if (end < p.end) this.#faults.count('offsets.old-end');
    this.#old.set(name, { end, until: this.#scheduler.now + this.#oldRandom() * maxShownMs });
    return { ...answer, offset: end };
  }

  #shown(name: string, p: Partition): number {
    const old = this.#old.get(name);
    if (old === undefined) return p.end;
    if (old.until > this.#scheduler.now) return Math.min(old.end, p.end);
    this.#old.delete(name);
    return p.end;
  }

  /** The work, after the time that the topics of consent have for this client. */
  #late<T>(actor: Actor, topics: readonly { readonly topic: string }[], work: () => T | Promise<T>): T | Promise<T> {
    if (!this.#isLate(actor) || !topics.some(({ topic }) => /\.consent(\.applied)?$/.test(topic))) return work();
    return new Promise<void>((go) => { this.#scheduler.after(this.consentLate.get(actor.name)! - this.#scheduler.now, this.#scheduler.world, go); }).then(work);
  }

  /** Of such a client links show nothing new, either: they come in one request with what is not late. */
  #isLate({ name }: Actor): boolean {
    return (this.consentLate.get(name) ?? 0) > this.#scheduler.now;
  }

  #metadata(asked: readonly string[] | null) {
    const names = asked ?? [...this.topics.keys()];
    return {
      brokers: this.brokers.map((text, nodeId) => ({ nodeId, host: text.split(':')[0]!, port: 9092 })).filter((b) => !this.#down.has(b.nodeId)),
      topics: names.map((name) => {
        const topic = this.topics.get(name);
        return { name, errorCode: topic === undefined ? E.unknownTopic : 0, internal: false, partitions: topic?.partitions.map((p, partition) => ({ partition, leader: p.leader, replicas: this.#nodes })) ?? [] };
      }),
    };
  }

  #produce(node: number, topic: string, partition: number, bytes: Buffer): Produced {
    const p = this.topics.get(topic)?.partitions[partition];
    if (p === undefined) return { topic, partition, errorCode: E.unknownTopic, baseOffset: -1 };
    if (p.leader !== node || this.#faults.hit('produce.not-leader')) return { topic, partition, errorCode: E.notLeader, baseOffset: -1 };
    const base = p.end;
    const stored = based(Buffer.from(bytes), base);
    const { records, next } = decodeBatches(stored, base);
    p.segments.push({ base, count: next - base, bytes: stored });
    p.records.push(...records);
    p.end = next;
    p.ends.push({ at: this.#scheduler.now, end: next });
    this.witness?.appended(topic, partition, records);
    for (const wake of [...(this.#appended.get(topic) ?? [])]) wake();
    return { topic, partition, errorCode: 0, baseOffset: base };
  }

  async #fetch(actor: Actor, node: number, maxWaitMs: number, maxBytes: number, topics: Parameters<BrokerConnection['fetch']>[2]): Promise<Fetched> {
    const look = (): Fetched => ({ errorCode: 0, partitions: topics.flatMap((t) => t.partitions.map(({ partition, offset }) => {
      const p = this.topics.get(t.topic)?.partitions[partition];
      const name = `${actor.name} ${t.topic}/${partition}`;
      const shown = p === undefined ? -1 : this.#isLate(actor) && t.topic.endsWith('.identity') ? Math.min(offset, this.#shown(name, p)) : this.#shown(name, p);
      const part = { topic: t.topic, partition, highWatermark: shown, logStartOffset: p?.start ?? 0, bytes: empty };
      if (p === undefined) return { ...part, errorCode: E.unknownTopic };
      if (p.leader !== node) return { ...part, errorCode: E.notLeader };
      if (offset > p.end || offset < p.start) return { ...part, errorCode: E.offsetOutOfRange };
      let size = 0;
      const found = p.segments.slice(firstAfter(p.segments, offset)).filter((s) => s.base < shown && ((size += s.bytes.length) <= maxBytes || size === s.bytes.length));
      const last = found.at(-1);
      if (last !== undefined) this.#fetched.set(name, Math.max(this.#fetched.get(name) ?? 0, last.base + last.count));
      return { ...part, errorCode: 0, bytes: found.length === 0 ? empty : Buffer.concat(found.map((s) => s.bytes)) };
    })) });
    const ready = (found: Fetched): boolean => found.partitions.some((p) => p.errorCode !== 0 || p.bytes.length > 0);
    const [first] = topics[0]?.partitions ?? [];
    const spoil = (errorCode: number): Fetched => ({ errorCode: 0, partitions: topics[0] === undefined || first === undefined ? [] : [{ topic: topics[0].topic, partition: first.partition, errorCode, highWatermark: -1, logStartOffset: 0, bytes: empty }] });
    if (this.#faults.hit('fetch.not-leader')) return spoil(E.notLeader);
    if (this.#faults.hit('fetch.out-of-range')) return spoil(E.offsetOutOfRange);
    let found = look();
    if (ready(found)) return found;
    // Idle polls are answered late, as by a busy broker: fewer events, and a wait the client must bear.
    await new Promise<void>((resolve) => {
      const done = (): void => {
        for (const { topic } of topics) this.#appended.get(topic)?.delete(wake);
        cancel();
        resolve();
      };
      const wake = (): void => {
        found = look();
        if (ready(found)) done();
      };
      const cancel = this.#scheduler.after(maxWaitMs <= 25 ? maxWaitMs : maxWaitMs * 8, this.#scheduler.world, done);
      for (const { topic } of topics) {
        const wakes = this.#appended.get(topic);
        if (wakes === undefined) this.#appended.set(topic, new Set([wake]));
        else wakes.add(wake);
      }
    });
    return found;
  }
}

/** The batch at this offset; its checksum does not cover the field. */
function based(batch: Buffer, offset: number): Buffer {
  batch.writeBigInt64BE(BigInt(offset), 0);
  return batch;
}

/** ConsumerProtocolAssignment: version, then topics with their partitions. https://kafka.apache.org/protocol#protocol_messages */
function readAssignment(bytes: Buffer): { topic: string; partitions: number[] }[] {
  let at = 6;
  return Array.from({ length: bytes.readInt32BE(2) }, () => {
    const size = bytes.readInt16BE(at);
    const topic = bytes.toString('utf8', at + 2, at + 2 + size);
    at += 2 + size;
    const partitions = Array.from({ length: bytes.readInt32BE(at) }, (_, i) => bytes.readInt32BE(at + 4 + 4 * i));
    at += 4 + 4 * partitions.length;
    return { topic, partitions };
  });
}

/** Index of the first segment with a record at or after the offset. */
function firstAfter(segments: readonly Segment[], offset: number): number {
  let low = 0;
  for (let high = segments.length; low < high;) {
    const middle = (low + high) >> 1;
    if (segments[middle]!.base + segments[middle]!.count <= offset) low = middle + 1;
    else high = middle;
  }
  return low;
}
