/**
 * What a driver is: one connection to one broker, and the requests that Weir needs of the Kafka protocol.
 * No routing, no retry, no timers, no policy: those are written once, above (cluster, appender, group, reader).
 * An error code in an answer is a value; a rejection means that no answer came or it could not be read.
 * https://kafka.apache.org/protocol
 */

import type { Secured } from './security.ts';

/** Error codes that the port looks at. https://kafka.apache.org/protocol#protocol_error_codes */
export const E = {
  none: 0, offsetOutOfRange: 1, corruptMessage: 2, unknownTopic: 3, leaderNotAvailable: 5, notLeader: 6, requestTimedOut: 7, messageTooLarge: 10, coordinatorLoading: 14,
  coordinatorNotAvailable: 15, notCoordinator: 16, invalidTopic: 17, recordListTooLarge: 18, illegalGeneration: 22, inconsistentProtocol: 23, invalidGroup: 24, unknownMember: 25,
  invalidSessionTimeout: 26, rebalanceInProgress: 27, topicAuthorization: 29, groupAuthorization: 30, clusterAuthorization: 31, topicExists: 36, invalidReplicationFactor: 38, invalidRequest: 42, policyViolation: 44,
  memberIdRequired: 79, groupMaxSize: 81, fencedInstance: 82, invalidRecord: 87,
} as const;

export interface Endpoint {
  readonly host: string;
  readonly port: number;
}

export interface TopicMetadata {
  readonly name: string;
  /** Another one when the topic is made anew; undefined = the driver asks by a version that has none. */
  readonly id?: string | undefined;
  readonly errorCode: number;
  readonly internal: boolean;
  readonly partitions: ReadonlyArray<{ readonly partition: number; readonly leader: number; readonly replicas: number }>;
}

export interface ClusterMetadata {
  readonly brokers: ReadonlyArray<Endpoint & { readonly nodeId: number }>;
  readonly topics: readonly TopicMetadata[];
}

/** `bytes` is one record batch as it goes over the wire. */
export interface ProduceTopic {
  readonly topic: string;
  readonly partitions: ReadonlyArray<{ readonly partition: number; readonly bytes: Buffer }>;
}

export interface Produced {
  readonly topic: string;
  readonly partition: number;
  readonly errorCode: number;
  readonly baseOffset: number;
}

export interface FetchTopic {
  readonly topic: string;
  readonly partitions: ReadonlyArray<{ readonly partition: number; readonly offset: number; readonly maxBytes: number }>;
}

export interface FetchedPartition {
  readonly topic: string;
  readonly partition: number;
  readonly errorCode: number;
  readonly highWatermark: number;
  readonly logStartOffset: number;
  /** Record batches as they came, the last one perhaps cut; empty when there are none. */
  readonly bytes: Buffer;
}

export interface Fetched {
  readonly errorCode: number;
  readonly partitions: readonly FetchedPartition[];
}

export interface PartitionOffset {
  readonly topic: string;
  readonly partition: number;
  readonly errorCode: number;
  /** -1 = none. */
  readonly offset: number;
}

export interface Joined {
  readonly errorCode: number;
  readonly generationId: number;
  readonly leader: string;
  readonly memberId: string;
  readonly protocol: string;
  readonly members: ReadonlyArray<{ readonly memberId: string; readonly metadata: Buffer }>;
}

export interface Member {
  readonly groupId: string;
  readonly generationId: number;
  readonly memberId: string;
}

export interface BrokerConnection {
  /** null = all topics. */
  metadata(topics: readonly string[] | null): Promise<ClusterMetadata>;
  /** acks = all, no transaction. One entry per partition asked for. */
  produce(timeoutMs: number, topics: readonly ProduceTopic[]): Promise<readonly Produced[]>;
  fetch(maxWaitMs: number, maxBytes: number, topics: readonly FetchTopic[]): Promise<Fetched>;
  /** -1 = end, -2 = beginning. */
  listOffsets(topic: string, partitions: readonly number[], timestamp: number): Promise<readonly PartitionOffset[]>;
  findCoordinator(groupId: string): Promise<{ readonly errorCode: number; readonly nodeId: number }>;
  joinGroup(options: { groupId: string; sessionMs: number; rebalanceMs: number; memberId: string; protocol: string; metadata: Buffer }): Promise<Joined>;
  syncGroup(member: Member, protocol: string, plan: ReadonlyArray<{ memberId: string; assignment: Buffer }>): Promise<{ readonly errorCode: number; readonly assignment: Buffer }>;
  heartbeat(member: Member): Promise<number>;
  leaveGroup(groupId: string, memberId: string): Promise<number>;
  commit(member: Member, topics: ReadonlyArray<{ topic: string; partitions: ReadonlyArray<{ partition: number; offset: number }> }>): Promise<ReadonlyArray<{ readonly errorCode: number }>>;
  /** With require_stable: a coordinator that took over answers without it from a state that may be older than what was acknowledged. */
  committed(groupId: string, topics: ReadonlyArray<{ topic: string; partitions: readonly number[] }>): Promise<{ readonly errorCode: number; readonly offsets: readonly PartitionOffset[] }>;
  createTopics(timeoutMs: number, topics: ReadonlyArray<{ name: string; partitions: number; replicationFactor: number; config: Readonly<Record<string, string>> }>): Promise<ReadonlyArray<{ readonly name: string; readonly errorCode: number; readonly message: string }>>;
  deleteTopics(timeoutMs: number, names: readonly string[]): Promise<ReadonlyArray<{ readonly name: string; readonly errorCode: number }>>;
  topicConfigs(names: readonly string[]): Promise<ReadonlyArray<{ readonly name: string; readonly config: Readonly<Record<string, string>> }>>;
  /** Cut it now: every request without an answer rejects, nothing that still arrives is looked at. */
  destroy(): void;
}

export interface Driver {
  readonly name: 'kafkajs' | 'platformatic';
  /**
   * Rejects when there is no connection within the time; with log-auth-failed when the broker refuses the login.
   * `onClose` is called once when it ended, whoever ended it. `secured` undefined = plaintext.
   */
  connect(clientId: string, endpoint: Endpoint, timeoutMs: number, onClose: () => void, secured?: Secured): Promise<BrokerConnection>;
}
