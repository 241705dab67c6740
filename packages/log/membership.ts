import { decodeConsumerProtocolAssignment, decodeConsumerProtocolSubscription, encodeConsumerProtocolAssignment, encodeConsumerProtocolSubscription } from '@platformatic/kafka';
import { WeirError } from '@weir/errors';
import { failpoint } from '@weir/failpoint';
import type { Cluster } from './cluster.ts';
import { coordinatorMoved, findCoordinator } from './coordinator.ts';
import { E, type BrokerConnection, type Joined, type Member } from './driver.ts';
import { moment, type Moment } from './lease.ts';

export interface Generation {
  /** Before the request that made us a member of it: the broker's session began later. */
  readonly since: Moment;
  readonly assigned: ReadonlyArray<{ readonly topic: string; readonly partitions: readonly number[] }>;
}

/** What a heartbeat said; `unknown` = no answer, or the coordinator is elsewhere. */
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

const protocol = 'roundrobin';
const commitMs = 10_000;
const leaveMs = 3000;
const joinGraceMs = 10_000;
const passing: ReadonlySet<number> = new Set<number>([...coordinatorMoved, E.illegalGeneration, E.unknownMember, E.rebalanceInProgress, E.memberIdRequired, E.fencedInstance]);

/** The classic group protocol of one member, one request at a time; no timers, no policy. */
export class Membership {
  readonly #cluster: Cluster;
  readonly #options: { readonly groupId: string; readonly topics: readonly string[]; readonly sessionMs: number; readonly rebalanceMs: number };
  readonly #purpose: string;
  readonly #signal: AbortSignal;
  #memberId = '';
  #generation = -1;
  #coordinator: number | undefined;
  /** Partition counts that the plan was made for, when it was made here (by the leader of the group). */
  #planned: ReadonlyMap<string, number> = new Map();

  /** `purpose` names its connection; `signal` ends the waiting for a coordinator. */
  constructor(cluster: Cluster, options: { groupId: string; topics: readonly string[]; sessionMs: number; rebalanceMs: number }, purpose: string, signal: AbortSignal) {
    this.#cluster = cluster;
    this.#options = options;
    this.#purpose = purpose;
    this.#signal = signal;
  }

  async coordinator(): Promise<number> {
    return this.#coordinator ??= await findCoordinator(this.#cluster, this.#options.groupId, this.#signal);
  }

  get #member(): Member {
    return { groupId: this.#options.groupId, generationId: this.#generation, memberId: this.#memberId };
  }

  async #ask<T>(what: string, deadlineMs: number, request: (broker: BrokerConnection) => Promise<T>): Promise<T> {
    const node = await this.coordinator();
    try {
      return await this.#cluster.ask(this.#purpose, node, what, deadlineMs, request);
    } catch (error) {
      this.#coordinator = undefined;
      throw error;
    }
  }

  /** Join and sync; undefined = try again. Waits for the other members as long as the rebalance timeout. */
  async join(): Promise<Generation | undefined> {
    const { groupId, sessionMs, rebalanceMs, topics } = this.#options;
    const metadata = encodeConsumerProtocolSubscription({ version: 1, topics: [...topics] } as Parameters<typeof encodeConsumerProtocolSubscription>[0]);
    const wait = rebalanceMs + joinGraceMs;
    const join = (): Promise<Joined> => this.#ask('join group', wait, (broker) => {
      this.#throwIfClosing();
      return broker.joinGroup({ groupId, sessionMs, rebalanceMs, memberId: this.#memberId, protocol, metadata });
    });
    let joined = await join();
    if (joined.errorCode === E.memberIdRequired) {
      this.#memberId = joined.memberId;
      joined = await join();
    }
    if (joined.errorCode !== 0) return this.#refused(joined.errorCode, 'join group');
    this.#memberId = joined.memberId;
    this.#generation = joined.generationId;
    this.#planned = new Map();
    const plan = joined.leader === joined.memberId ? await this.#plan(joined.members) : [];
    const since = moment();
    const synced = await this.#ask('sync group', wait, (broker) => {
      this.#throwIfClosing();
      return broker.syncGroup(this.#member, joined.protocol, plan);
    });
    if (synced.errorCode !== 0) return this.#refused(synced.errorCode, 'sync group');
    return { since, assigned: synced.assignment.length === 0 ? [] : decodeConsumerProtocolAssignment(synced.assignment).assignedPartitions };
  }

  /** The answer may wait for the other members: whoever is closing must not begin to wait for it. */
  #throwIfClosing(): void {
    if (this.#signal.aborted) throw new WeirError('log-unavailable', `the member of ${this.#options.groupId} is being closed`);
  }

  async #plan(members: Joined['members']): Promise<{ memberId: string; assignment: Buffer }[]> {
    const takers = new Map<string, string[]>();
    for (const m of members) {
      for (const topic of (decodeConsumerProtocolSubscription(m.metadata) as { topics: string[] }).topics) takers.set(topic, [...(takers.get(topic) ?? []), m.memberId]);
    }
    await this.#cluster.refresh([...takers.keys()]);
    const plan = new Map(members.map((m) => [m.memberId, new Map<string, number[]>()]));
    const planned = new Map<string, number>();
    for (const [topic, ids] of takers) {
      const count = await this.#cluster.partitions(topic);
      planned.set(topic, count);
      for (const [member, share] of assign(ids, new Map([[topic, count]]))) for (const [t, list] of share) plan.get(member)!.set(t, list);
    }
    this.#planned = planned;
    return [...plan].map(([memberId, share]) => ({ memberId, assignment: encodeConsumerProtocolAssignment({ version: 1, assignedPartitions: [...share].map(([topic, partitions]) => ({ topic, partitions })) }) }));
  }

  /** Whether a topic has other partitions now than the plan of this generation gave out. Only the leader, who made the plan, can tell. */
  async outgrown(): Promise<boolean> {
    const planned = this.#planned;
    if (planned.size === 0) return false;
    await this.#cluster.refresh([...planned.keys()]);
    // Not of a plan that was replaced meanwhile.
    return planned === this.#planned && [...planned].some(([topic, count]) => (this.#cluster.partitionsKnown(topic) ?? count) !== count);
  }

  #refused(code: number, what: string): undefined {
    if (!passing.has(code)) throw new WeirError('log-fatal', `${what} of ${this.#options.groupId} refused: ${code === E.groupAuthorization || code === E.topicAuthorization ? 'not authorised' : `broker error ${code}`}`);
    this.#note(code, this.#member);
    return undefined;
  }

  /** What an error code says about who we are and where the coordinator is. @param asked as whom; who has joined again since is another one */
  #note(code: number, asked: Member): void {
    if (coordinatorMoved.has(code)) this.#coordinator = undefined;
    if (code !== E.unknownMember && code !== E.fencedInstance) return;
    if (asked.memberId !== this.#memberId || asked.generationId !== this.#generation) return;
    // The broker does not know this member any more: the next join is a new one.
    this.#memberId = '';
    this.#generation = -1;
  }

  async heartbeat(deadlineMs: number): Promise<Beat> {
    const member = this.#member;
    const code = await this.#ask('heartbeat', deadlineMs, (broker) => broker.heartbeat(member));
    if (code === 0) return 'alive';
    if (code === E.rebalanceInProgress) return 'rebalance';
    this.#note(code, member);
    if (code === E.unknownMember || code === E.illegalGeneration || code === E.fencedInstance) return 'lost';
    if (!coordinatorMoved.has(code)) throw new WeirError('log-fatal', `heartbeat of ${this.#options.groupId} refused: broker error ${code}`);
    return 'unknown';
  }

  /** The first error code of a partition; 0 = all committed. Sent as who we are when it is called, however long the coordinator has to be looked for. */
  async commit(offsets: ReadonlyArray<{ topic: string; partition: number; offset: number }>): Promise<number> {
    const member = this.#member;
    const topics = [...Map.groupBy(offsets, (o) => o.topic)].map(([topic, partitions]) => ({ topic, partitions }));
    const answers = await this.#ask('offset commit', commitMs, (broker) => {
      const sent = broker.commit(member, topics);
      failpoint('log.commit-sent', this.#options.groupId);
      return sent;
    });
    const code = answers.find((p) => p.errorCode !== 0)?.errorCode ?? (answers.length === offsets.length ? 0 : E.coordinatorNotAvailable);
    if (coordinatorMoved.has(code)) this.#coordinator = undefined;
    return code;
  }

  /** Cut a join that waits for the other members. */
  interrupt(): void {
    this.#cluster.discard(this.#purpose);
  }

  async leave(): Promise<void> {
    if (this.#memberId === '') return;
    await this.#ask('leave group', leaveMs, (broker) => broker.leaveGroup(this.#options.groupId, this.#memberId));
    this.#memberId = '';
  }
}
