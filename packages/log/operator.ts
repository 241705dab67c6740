/**
 * What an operator does to a cluster, for the proofs that the port survives it (tests/conformance): leaders are
 * moved, partitions added, records deleted. Not part of the port. https://kafka.apache.org/protocol
 */
import { alterClientQuotasV1, alterPartitionReassignmentsV0, Connection, createAclsV3, createAPI, createPartitionsV3, deleteRecordsV2, findCoordinatorV4, metadataV12, Writer, type Reader } from '@platformatic/kafka';

export interface Operator {
  /** Node id of the leader per partition; -1 = none now. */
  leaders(topic: string): Promise<readonly number[]>;
  /** Whether every partition has a leader and all of its replicas are in sync. */
  inSync(topic: string): Promise<boolean>;
  /** Makes each of these brokers the first replica of its partition and elects it; it must be in sync. */
  moveLeaders(topic: string, leaders: readonly number[]): Promise<void>;
  addPartitions(topic: string, count: number): Promise<void>;
  /** Deletes everything below the offset, as retention does. */
  deleteRecords(topic: string, partition: number, before: number): Promise<void>;
  coordinator(groupId: string): Promise<number>;
  /** What each broker lets the client write and read, bytes a second; undefined = no limit any more. Brokers learn it in their own time. */
  throttle(clientId: string, bytesPerSecond: number | undefined): Promise<void>;
  /** Lets the user do this, from anywhere. */
  allow(user: string, rules: ReadonlyArray<{ readonly resource: 'Topic' | 'Group'; readonly name: string; readonly prefixed: boolean; readonly operation: string }>): Promise<void>;
}

interface Metadata {
  readonly brokers: ReadonlyArray<{ nodeId: number; host: string; port: number }>;
  readonly topics: ReadonlyArray<{ partitions: ReadonlyArray<{ partitionIndex: number; leaderId: number; replicaNodes: readonly number[]; isrNodes: readonly number[] }> }>;
}

const timeoutMs = 15_000;
const preferred = 0;
/** https://kafka.apache.org/protocol, AclOperation. */
const aclOperations: Readonly<Record<string, number>> = { Read: 3, Write: 4, Create: 5, Describe: 8, DescribeConfigs: 10 };

/** ElectLeaders (43), version 2: the library does not have it. The outcome per partition is not of interest: the leaders are looked at. */
const electLeaders = createAPI(43, 2, (topic: string, partitions: readonly number[]) => Writer.create()
  .appendInt8(preferred)
  .appendArray([topic], (w, name) => { w.appendString(name).appendArray([...partitions], (w2, p) => { w2.appendInt32(p); }, true, false); })
  .appendInt32(timeoutMs)
  .appendTaggedFields(), (_correlationId: number, _key: number, _version: number, reader: Reader) => {
  reader.readInt32();
  return reader.readInt16();
});

export function createOperator(bootstrap: readonly string[]): Operator {
  /** One request on a connection of its own, to the first broker of the list that answers. */
  async function ask<R>(addresses: readonly string[], api: unknown, args: readonly unknown[]): Promise<R> {
    let last: unknown;
    for (const address of addresses) {
      const at = address.lastIndexOf(':');
      const connection = new Connection('operator', { connectTimeout: 3000, requestTimeout: timeoutMs + 5000 });
      try {
        await connection.connect(address.slice(0, at), Number(address.slice(at + 1)));
        return await new Promise<R>((resolve, reject) => {
          (api as (...all: unknown[]) => void)(connection, ...args, (error: Error | null, result: R) => (error ? reject(error) : resolve(result)));
        });
      } catch (error) {
        last = error;
      } finally {
        await connection.close().catch((error: unknown) => error);
      }
    }
    throw last;
  }
  const metadata = (topic: string): Promise<Metadata> => ask(bootstrap, metadataV12.api, [[topic], false, false]);
  const partitionsOf = async (topic: string): Promise<Metadata['topics'][number]['partitions']> => (await metadata(topic)).topics[0]!.partitions.toSorted((a, b) => a.partitionIndex - b.partitionIndex);

  return {
    leaders: async (topic) => (await partitionsOf(topic)).map((p) => p.leaderId),
    inSync: async (topic) => (await partitionsOf(topic)).every((p) => p.leaderId > 0 && p.isrNodes.length === p.replicaNodes.length),
    async moveLeaders(topic, leaders) {
      const partitions = (await partitionsOf(topic)).map((p) => {
        const first = leaders[p.partitionIndex]!;
        return { partitionIndex: p.partitionIndex, replicas: [first, ...p.replicaNodes.filter((r) => r !== first)] };
      });
      await ask(bootstrap, alterPartitionReassignmentsV0.api, [timeoutMs, false, [{ name: topic, partitions }]]);
      await ask(bootstrap, electLeaders, [topic, partitions.map((p) => p.partitionIndex)]);
    },
    async addPartitions(topic, count) {
      await ask(bootstrap, createPartitionsV3.api, [[{ name: topic, count, assignments: null }], timeoutMs, false]);
    },
    async deleteRecords(topic, partition, before) {
      const { brokers, topics: [found] } = await metadata(topic);
      const leader = brokers.find((b) => b.nodeId === found!.partitions.find((p) => p.partitionIndex === partition)!.leaderId)!;
      await ask([`${leader.host}:${leader.port}`], deleteRecordsV2.api, [[{ name: topic, partitions: [{ partitionIndex: partition, offset: BigInt(before) }] }], timeoutMs]);
    },
    async coordinator(groupId) {
      const { coordinators: [found] } = await ask<{ coordinators: { nodeId: number }[] }>(bootstrap, findCoordinatorV4.api, [0, [groupId]]);
      return found!.nodeId;
    },
    async throttle(clientId, bytesPerSecond) {
      const ops = ['producer_byte_rate', 'consumer_byte_rate'].map((key) => ({ key, value: bytesPerSecond ?? 0, remove: bytesPerSecond === undefined }));
      await ask(bootstrap, alterClientQuotasV1.api, [[{ entities: [{ entityType: 'client-id', entityName: clientId }], ops }], false]);
    },
    async allow(user, rules) {
      await ask(bootstrap, createAclsV3.api, [rules.map(({ resource, name, prefixed, operation }) => ({
        resourceType: resource === 'Topic' ? 2 : 3, resourceName: name, resourcePatternType: prefixed ? 4 : 3, principal: `User:${user}`, host: '*', operation: aclOperations[operation], permissionType: 3,
      }))]);
    },
  };
}
