import { decodeConsumerProtocolAssignment, decodeConsumerProtocolSubscription, encodeConsumerProtocolAssignment, encodeConsumerProtocolSubscription, heartbeatV4, joinGroupV9, leaveGroupV5, offsetCommitV8, syncGroupV5 } from '@platformatic/kafka';
import { WeirError } from '@weir/errors';
import { E, type Cluster } from './cluster.ts';
import { coordinatorMoved, findCoordinator } from './coordinator.ts';

export interface Generation {
  readonly generationId: number;
  readonly memberId: string;
  readonly assigned: ReadonlyArray<{ readonly topic: string; readonly partitions: readonly number[] }>;
}

/** What a heartbeat said. */
export type Beat = 'alive' | 'rebalance' | 'lost' | 'unknown';

/** Round-robin over the sorted members, topic by topic: co-partitioned topics land on the same member. */
export function assign(members: readonly string[], partitions: ReadonlyMap<string, number>): Map<string, Map<string, number[]>> {
  const sorted = [...members].sort();
  const plan = new Map(sorted.map((m) => [m, new Map<string, number[]>()]));
  for (const topic of [...partitions.keys()].sort()) {
    for (let p = 0; p < partitions.get(topic)!; p++) {
      const member = plan.get(sorted[p % sorted.length]!)!;
      const list = member.get(topic);
      if (list === undefined) member.set(topic, [p]);
      else list.push(p);
    }
  }
  return plan;
}

/** The classic group protocol of one member, one request at a time; no timers, no policy. */
export class Membership {
  readonly #cluster: Cluster;
  readonly #groupId: string;
  readonly #topics: readonly string[];
  readonly #sessionMs: number;
  readonly #rebalanceMs: number;
  #memberId = '';
  #generation = -1;
  #coordinator: number | undefined;

  constructor(cluster: Cluster, options: { groupId: string; topics: readonly string[]; sessionMs: number; rebalanceMs: number }) {
    this.#cluster = cluster;
    this.#groupId = options.groupId;
    this.#topics = options.topics;
    this.#sessionMs = options.sessionMs;
    this.#rebalanceMs = options.rebalanceMs;
  }

  async coordinator(): Promise<number> {
    return this.#coordinator ??= await findCoordinator(this.#cluster, this.#groupId);
  }

  async #ask<R>(what: string, api: unknown, args: unknown[], deadlineMs?: number): Promise<R> {
    const node = await this.coordinator();
    try {
      const connection = await this.#cluster.connection(`group-${this.#groupId}`, node);
      return await this.#cluster.request<unknown[], R>(connection, what, api, args, deadlineMs);
    } catch (error) {
      this.#cluster.discard(`group-${this.#groupId}`, node);
      this.#coordinator = undefined;
      throw error;
    }
  }

  /** Join and sync; undefined = try again. Waits for the other members as long as the rebalance timeout. */
  async join(): Promise<Generation | undefined> {
    const metadata = encodeConsumerProtocolSubscription({ version: 1, topics: [...this.#topics] } as Parameters<typeof encodeConsumerProtocolSubscription>[0]);
    const joined = await this.#ask<{ errorCode: number; memberId: string; generationId: number; leader: string; protocolName: string | null; members: { memberId: string; metadata: Buffer }[] }>('join group', joinGroupV9.api, [this.#groupId, this.#sessionMs, this.#rebalanceMs, this.#memberId, null, 'consumer', [{ name: 'roundrobin', metadata }], null], this.#rebalanceMs + 10_000);
    if (joined.errorCode === E.memberIdRequired) {
      this.#memberId = joined.memberId;
      return this.join();
    }
    if (joined.errorCode !== 0) return this.#refused(joined.errorCode, 'join group');
    this.#memberId = joined.memberId;
    this.#generation = joined.generationId;
    const plan = joined.leader === joined.memberId ? await this.#plan(joined.members) : [];
    const synced = await this.#ask<{ errorCode: number; assignment: Buffer }>('sync group', syncGroupV5.api, [this.#groupId, this.#generation, this.#memberId, null, 'consumer', joined.protocolName, plan], this.#rebalanceMs + 10_000);
    if (synced.errorCode !== 0) return this.#refused(synced.errorCode, 'sync group');
    const assigned = synced.assignment.length === 0 ? [] : decodeConsumerProtocolAssignment(synced.assignment).assignedPartitions;
    return { generationId: this.#generation, memberId: this.#memberId, assigned };
  }

  async #plan(members: readonly { memberId: string; metadata: Buffer }[]): Promise<{ memberId: string; assignment: Buffer }[]> {
    const topics = new Set<string>();
    const subscribed = new Map<string, readonly string[]>();
    for (const m of members) {
      const list = (decodeConsumerProtocolSubscription(m.metadata) as { topics: string[] }).topics;
      subscribed.set(m.memberId, list);
      for (const topic of list) topics.add(topic);
    }
    await this.#cluster.refresh([...topics]);
    const plan = new Map(members.map((m) => [m.memberId, new Map<string, number[]>()]));
    for (const topic of topics) {
      const count = await this.#cluster.partitions(topic);
      const takers = members.map((m) => m.memberId).filter((m) => subscribed.get(m)!.includes(topic));
      for (const [member, share] of assign(takers, new Map([[topic, count]]))) for (const [t, list] of share) plan.get(member)!.set(t, list);
    }
    return [...plan].map(([memberId, share]) => ({ memberId, assignment: encodeConsumerProtocolAssignment({ version: 1, assignedPartitions: [...share].map(([topic, partitions]) => ({ topic, partitions })) }) }));
  }

  #refused(code: number, what: string): undefined {
    if (code === E.groupAuthorization || code === E.topicAuthorization) throw new WeirError('log-fatal', `${what} of ${this.#groupId}: not authorised`);
    if (coordinatorMoved.has(code)) this.#coordinator = undefined;
    if (code === E.unknownMember || code === E.illegalGeneration || code === E.fencedInstance) this.forget();
    return undefined;
  }

  /** The broker does not know this member any more: the next join is a new one. */
  forget(): void {
    this.#memberId = '';
    this.#generation = -1;
  }

  async heartbeat(deadlineMs: number): Promise<Beat> {
    const { errorCode } = await this.#ask<{ errorCode: number }>('heartbeat', heartbeatV4.api, [this.#groupId, this.#generation, this.#memberId, null], deadlineMs);
    if (errorCode === 0) return 'alive';
    if (errorCode === E.rebalanceInProgress) return 'rebalance';
    if (errorCode === E.unknownMember || errorCode === E.illegalGeneration || errorCode === E.fencedInstance) return 'lost';
    if (coordinatorMoved.has(errorCode)) this.#coordinator = undefined;
    return 'unknown';
  }

  /** Error code of the worst partition; 0 = all committed. */
  async commit(offsets: ReadonlyArray<{ topic: string; partition: number; offset: number }>): Promise<number> {
    const topics = new Map<string, { partitionIndex: number; committedOffset: bigint; committedLeaderEpoch: number; committedMetadata: null }[]>();
    for (const { topic, partition, offset } of offsets) {
      const entry = { partitionIndex: partition, committedOffset: BigInt(offset), committedLeaderEpoch: -1, committedMetadata: null };
      const list = topics.get(topic);
      if (list === undefined) topics.set(topic, [entry]);
      else list.push(entry);
    }
    const response = await this.#ask<{ topics: { partitions: { errorCode: number }[] }[] }>('offset commit', offsetCommitV8.api, [this.#groupId, this.#generation, this.#memberId, null, [...topics].map(([name, partitions]) => ({ name, partitions }))], 10_000);
    const code = response.topics.flatMap((t) => t.partitions).find((p) => p.errorCode !== 0)?.errorCode ?? 0;
    if (coordinatorMoved.has(code)) this.#coordinator = undefined;
    return code;
  }

  async leave(): Promise<void> {
    if (this.#memberId === '') return;
    await this.#ask('leave group', leaveGroupV5.api, [this.#groupId, [{ memberId: this.#memberId, groupInstanceId: null, reason: null }]], 3000);
    this.forget();
  }
}
