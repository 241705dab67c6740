/** Consumer groups as the coordinators of a cluster keep them: generations, sessions, joining and syncing. Sources: https://kafka.apache.org/protocol, KIP-394 (member id required). */
import { E, type BrokerConnection, type Joined, type Member } from '../../../packages/log/driver.ts';
import type { Faults } from './faults.ts';
import type { Random, Scheduler } from './time.ts';

interface GroupMember { readonly id: string; readonly client: string; metadata: Buffer; sessionMs: number; rebalanceMs: number; expire: () => void; joined: ((answer: Joined) => void) | undefined; synced: ((answer: { errorCode: number; assignment: Buffer }) => void) | undefined; assignment: Buffer }
export interface Group { state: 'empty' | 'joining' | 'syncing' | 'stable'; generation: number; coordinator: number; leader: string; readonly members: Map<string, GroupMember>; readonly pending: Set<string>; readonly offsets: Map<string, number>; endJoin: (() => void) | undefined }

const empty: Buffer = Buffer.alloc(0);

export class Coordinator {
  readonly groups = new Map<string, Group>();
  readonly #scheduler: Scheduler;
  readonly #random: Random;
  readonly #faults: Faults;
  readonly #nodes: number;
  readonly #committed: (groupId: string, topic: string, partition: number, offset: number) => void;
  #members = 0;

  constructor(options: { scheduler: Scheduler; random: Random; faults: Faults; nodes: number; committed: (groupId: string, topic: string, partition: number, offset: number) => void }) {
    this.#scheduler = options.scheduler;
    this.#random = options.random;
    this.#faults = options.faults;
    this.#nodes = options.nodes;
    this.#committed = options.committed;
  }

  group(id: string): Group {
    let group = this.groups.get(id);
    if (group === undefined) this.groups.set(id, group = { state: 'empty', generation: 0, coordinator: Math.floor(this.#random() * this.#nodes), leader: '', members: new Map(), pending: new Set(), offsets: new Map(), endJoin: undefined });
    return group;
  }

  #touch(groupId: string, group: Group, member: GroupMember): void {
    member.expire();
    member.expire = this.#scheduler.after(member.sessionMs, this.#scheduler.world, () => {
      // Who waits for an answer of the coordinator is not silent.
      if (member.joined !== undefined || member.synced !== undefined) this.#touch(groupId, group, member);
      else this.leave(groupId, member.id);
    });
  }

  join(node: number, client: string, options: Parameters<BrokerConnection['joinGroup']>[0]): Joined | Promise<Joined> {
    const group = this.group(options.groupId);
    const answer = (errorCode: number, memberId: string): Joined => ({ errorCode, generationId: -1, leader: '', memberId, protocol: '', members: [] });
    if (group.coordinator !== node) return answer(E.notCoordinator, options.memberId);
    if (options.memberId === '') {
      const id = `${client}-${++this.#members}`;
      group.pending.add(id);
      return answer(E.memberIdRequired, id);
    }
    let member = group.members.get(options.memberId);
    if (member === undefined) {
      if (!group.pending.delete(options.memberId)) return answer(E.unknownMember, '');
      member = { id: options.memberId, client, metadata: options.metadata, sessionMs: options.sessionMs, rebalanceMs: options.rebalanceMs, expire: () => {}, joined: undefined, synced: undefined, assignment: empty };
      group.members.set(member.id, member);
    }
    member.metadata = options.metadata;
    this.#touch(options.groupId, group, member);
    if (group.state !== 'joining') this.#prepare(group, group.state === 'empty' ? 100 : Math.max(...[...group.members.values()].map((m) => m.rebalanceMs)));
    const { id } = member;
    return new Promise((resolve) => {
      const waiting = group.members.get(id)!;
      waiting.joined?.(answer(E.unknownMember, ''));
      waiting.joined = resolve;
      this.#endJoinIfAll(group);
    });
  }

  /** The group waits until its members have joined anew, at most `ms`; who has not by then is out of it. */
  #prepare(group: Group, ms: number): void {
    const first = group.state === 'empty';
    group.state = 'joining';
    for (const m of group.members.values()) {
      m.synced?.({ errorCode: E.rebalanceInProgress, assignment: empty });
      m.synced = undefined;
    }
    group.endJoin?.();
    const cancel = this.#scheduler.after(ms, this.#scheduler.world, () => {
      for (const m of [...group.members.values()]) {
        if (m.joined !== undefined) continue;
        m.expire();
        group.members.delete(m.id);
      }
      this.#endJoin(group);
    });
    group.endJoin = cancel;
    // A new group waits for others to come; a known one ends when all are there.
    if (!first) this.#endJoinIfAll(group);
    else group.leader = '';
  }

  #endJoinIfAll(group: Group): void {
    if (group.state === 'joining' && group.generation > 0 && [...group.members.values()].every((m) => m.joined !== undefined)) this.#endJoin(group);
  }

  #endJoin(group: Group): void {
    group.endJoin?.();
    group.endJoin = undefined;
    if (group.members.size === 0) {
      group.state = 'empty';
      return;
    }
    group.generation++;
    group.state = 'syncing';
    const list = [...group.members.values()];
    if (!group.members.has(group.leader)) group.leader = list[0]!.id;
    const members = list.map((m) => ({ memberId: m.id, metadata: m.metadata }));
    for (const m of list) {
      m.assignment = empty;
      const reply = m.joined!;
      m.joined = undefined;
      reply({ errorCode: 0, generationId: group.generation, leader: group.leader, memberId: m.id, protocol: 'roundrobin', members: m.id === group.leader ? members : [] });
    }
  }

  #check(node: number, { groupId, generationId, memberId }: Member): number {
    const group = this.group(groupId);
    const member = group.members.get(memberId);
    if (group.coordinator !== node) return E.notCoordinator;
    if (member === undefined) return E.unknownMember;
    if (generationId !== group.generation) return E.illegalGeneration;
    return 0;
  }

  sync(node: number, asked: Member, plan: Parameters<BrokerConnection['syncGroup']>[2]): { errorCode: number; assignment: Buffer } | Promise<{ errorCode: number; assignment: Buffer }> {
    const errorCode = this.#check(node, asked);
    const group = this.group(asked.groupId);
    if (errorCode !== 0) return { errorCode, assignment: empty };
    const member = group.members.get(asked.memberId)!;
    this.#touch(asked.groupId, group, member);
    if (group.state === 'joining') return { errorCode: E.rebalanceInProgress, assignment: empty };
    if (group.state === 'stable') return { errorCode: 0, assignment: member.assignment };
    if (asked.memberId !== group.leader) return new Promise((resolve) => { member.synced = resolve; });
    group.state = 'stable';
    for (const { memberId, assignment } of plan) {
      const m = group.members.get(memberId);
      if (m === undefined) continue;
      m.assignment = Buffer.from(assignment);
      m.synced?.({ errorCode: 0, assignment: m.assignment });
      m.synced = undefined;
    }
    return { errorCode: 0, assignment: member.assignment };
  }

  heartbeat(node: number, asked: Member): number {
    const errorCode = this.#check(node, asked);
    if (errorCode !== 0) return errorCode;
    const group = this.group(asked.groupId);
    this.#touch(asked.groupId, group, group.members.get(asked.memberId)!);
    return group.state === 'joining' ? E.rebalanceInProgress : 0;
  }

  leave(groupId: string, memberId: string): number {
    const group = this.group(groupId);
    const member = group.members.get(memberId);
    if (member === undefined) return E.unknownMember;
    member.expire();
    group.members.delete(memberId);
    if (group.state === 'joining') this.#endJoinIfAll(group);
    else if (group.members.size === 0) group.state = 'empty';
    else this.#prepare(group, Math.max(...[...group.members.values()].map((m) => m.rebalanceMs)));
    return 0;
  }

  commit(node: number, asked: Member, topics: Parameters<BrokerConnection['commit']>[1]): { errorCode: number }[] {
    const group = this.group(asked.groupId);
    const errorCode = this.#faults.hit('commit.not-coordinator') ? E.notCoordinator : this.#check(node, asked) || (group.state === 'syncing' ? E.rebalanceInProgress : 0);
    return topics.flatMap(({ topic, partitions }) => partitions.map(({ partition, offset }) => {
      if (errorCode === 0) {
        group.offsets.set(`${topic}/${partition}`, offset);
        this.#committed(asked.groupId, topic, partition, offset);
      }
      return { errorCode };
    }));
  }
}
