/** The Kafka protocol by @platformatic/kafka. The two hot requests carry our own record batches; the rest uses the library's encoders. */
import { AuthenticationError, Connection, ConnectionStatuses, createAPI, createTopicsV7, deleteTopicsV5, describeConfigsV4, fetchV12, findCoordinatorV4, heartbeatV4, joinGroupV9, leaveGroupV5, listOffsetsV7, metadataV12, NetworkError, offsetCommitV8, offsetFetchV8, produceV11, syncGroupV5, TimeoutError, Writer, type Reader, type ResponseError } from '@platformatic/kafka';
import { WeirError } from '@weir/errors';
import { chainOf, saslRefusal, tokenRefusal } from '../refusal.ts';
import { tlsOptions } from '../security.ts';
import type { BrokerConnection, Driver, Fetched, FetchedPartition, PartitionOffset, Produced, ProduceTopic } from '../driver.ts';

const nothing: Buffer = Buffer.alloc(0);

function produceRequest(timeoutMs: number, topics: ProduceTopic[]): Writer {
  return Writer.create()
    .appendString(null)
    .appendInt16(-1)
    .appendInt32(timeoutMs)
    .appendArray(topics, (w, t) => {
      w.appendString(t.topic).appendArray(t.partitions as { partition: number; bytes: Buffer }[], (w2, p) => {
        w2.appendInt32(p.partition).appendUnsignedVarInt(p.bytes.length + 1).append(p.bytes);
      });
    })
    .appendTaggedFields();
}

const produceApi = createAPI(0, 11, produceRequest, produceV11.parseResponse);

function fetchResponse(_correlationId: number, _key: number, _version: number, reader: Reader): Fetched {
  reader.readInt32();
  const errorCode = reader.readInt16();
  reader.readInt32();
  const partitions: FetchedPartition[] = [];
  reader.readArray((r) => {
    const topic = r.readString();
    r.readArray((r2) => {
      const partition = r2.readInt32();
      const code = r2.readInt16();
      const highWatermark = Number(r2.readInt64());
      r2.readInt64();
      const logStartOffset = Number(r2.readInt64());
      r2.readNullableArray((r3) => [r3.readInt64(), r3.readInt64()]);
      r2.readInt32();
      let size = r2.readUnsignedVarInt();
      let bytes = nothing;
      if (size > 1) {
        size--;
        bytes = r2.buffer.subarray(r2.position, r2.position + size).buffer;
        r2.skip(size);
      }
      partitions.push({ topic, partition, errorCode: code, highWatermark, logStartOffset, bytes });
      return undefined;
    });
    return undefined;
  });
  return { errorCode, partitions };
}

const fetchApi = createAPI(1, 12, fetchV12.createRequest, fetchResponse);

interface ProduceAnswer { readonly responses: ReadonlyArray<{ readonly name: string; readonly partitionResponses: ReadonlyArray<{ readonly index: number; readonly errorCode: number; readonly baseOffset: bigint }> }> }
interface MetadataAnswer { readonly brokers: ReadonlyArray<{ nodeId: number; host: string; port: number }>; readonly topics: ReadonlyArray<{ errorCode: number; name: string; topicId: string; isInternal: boolean; partitions: ReadonlyArray<{ partitionIndex: number; leaderId: number; replicaNodes: readonly number[] }> }> }
interface OffsetsAnswer { readonly topics: ReadonlyArray<{ readonly name: string; readonly partitions: ReadonlyArray<{ readonly partitionIndex: number; readonly errorCode: number; readonly offset: bigint }> }> }
interface CommittedAnswer { readonly groups: ReadonlyArray<{ readonly errorCode: number; readonly topics: ReadonlyArray<{ readonly name: string; readonly partitions: ReadonlyArray<{ readonly partitionIndex: number; readonly committedOffset: bigint; readonly errorCode: number }> }> }> }
interface JoinAnswer { errorCode: number; memberId: string; generationId: number; leader: string; protocolName: string | null; members: { memberId: string; metadata: Buffer }[] }

interface Opened {
  readonly connection: Connection;
  /** What ended the connection, where the error of the request says only that it ended: with TLS 1.3 a refused client certificate is told after the handshake. */
  readonly lost: () => Error | undefined;
}

/** Until the broker has the login again (connections.max.reauth.ms): what is sent meanwhile would end the connection. */
function reauthenticated(connection: Connection): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      for (const event of ['connect', 'error', 'close'] as const) connection.off(event, done);
      resolve();
    };
    for (const event of ['connect', 'error', 'close'] as const) connection.once(event, done);
  });
}

/** What the broker says against the login; undefined when the connection was only lost. */
function refusedLogin(error: unknown): string | undefined {
  const chain = chainOf(error);
  const refused = chain.findIndex((e) => e instanceof AuthenticationError);
  if (refused < 0) return undefined;
  const below = chain.slice(refused + 1);
  // No token to be had is no refusal of the broker.
  return below.some((e) => e instanceof NetworkError || e instanceof TimeoutError || e instanceof WeirError) ? undefined : [...new Set([chain[refused]!, below.at(-1) ?? chain[refused]!].map((e) => e.message))].join(' ');
}

/** The library turns an answer with an error code into an exception that carries the answer. */
async function ask<R>({ connection, lost }: Opened, api: unknown, args: readonly unknown[]): Promise<R> {
  if (connection.status === ConnectionStatuses.REAUTHENTICATING) await reauthenticated(connection);
  return new Promise((resolve, reject) => {
    (api as (...all: unknown[]) => void)(connection, ...args, (error: Error | null | undefined, result: R) => {
      const answer = (error as ResponseError | null | undefined)?.response as R | undefined;
      if (error && answer === undefined) reject(lost() ?? error);
      else resolve(answer ?? result);
    });
  });
}

function createBroker(connection: Opened): BrokerConnection {
  return {
    async metadata(topics) {
      const answer = await ask<MetadataAnswer>(connection, metadataV12.api, [topics, false, false]);
      return {
        brokers: answer.brokers.map(({ nodeId, host, port }) => ({ nodeId, host, port })),
        topics: answer.topics.map((t) => ({ name: t.name, id: t.topicId, errorCode: t.errorCode, internal: t.isInternal, partitions: t.partitions.map((p) => ({ partition: p.partitionIndex, leader: p.leaderId, replicas: p.replicaNodes.length })) })),
      };
    },
    async produce(timeoutMs, topics) {
      const answer = await ask<ProduceAnswer>(connection, produceApi, [timeoutMs, topics]);
      const list: Produced[] = [];
      for (const { name, partitionResponses } of answer.responses) for (const p of partitionResponses) list.push({ topic: name, partition: p.index, errorCode: p.errorCode, baseOffset: Number(p.baseOffset) });
      return list;
    },
    fetch(maxWaitMs, maxBytes, topics) {
      const wanted = topics.map((t) => ({ topicId: t.topic, partitions: t.partitions.map((p) => ({ partition: p.partition, currentLeaderEpoch: -1, fetchOffset: BigInt(p.offset), lastFetchedEpoch: -1, partitionMaxBytes: p.maxBytes })) }));
      return ask<Fetched>(connection, fetchApi, [maxWaitMs, 1, maxBytes, 0, 0, -1, wanted, [], '']);
    },
    async listOffsets(topic, partitions, timestamp) {
      const answer = await ask<OffsetsAnswer>(connection, listOffsetsV7.api, [-1, 0, [{ name: topic, partitions: partitions.map((partitionIndex) => ({ partitionIndex, currentLeaderEpoch: -1, timestamp: BigInt(timestamp) })) }]]);
      return answer.topics.flatMap((t) => t.partitions.map((p): PartitionOffset => ({ topic: t.name, partition: p.partitionIndex, errorCode: p.errorCode, offset: Number(p.offset) })));
    },
    async findCoordinator(groupId) {
      const { coordinators: [found] } = await ask<{ coordinators: { nodeId: number; errorCode: number }[] }>(connection, findCoordinatorV4.api, [0, [groupId]]);
      return { errorCode: found?.errorCode ?? -1, nodeId: found?.nodeId ?? -1 };
    },
    async joinGroup({ groupId, sessionMs, rebalanceMs, memberId, protocol, metadata }) {
      const answer = await ask<JoinAnswer>(connection, joinGroupV9.api, [groupId, sessionMs, rebalanceMs, memberId, null, 'consumer', [{ name: protocol, metadata }], null]);
      return { errorCode: answer.errorCode, generationId: answer.generationId, leader: answer.leader, memberId: answer.memberId, protocol: answer.protocolName ?? '', members: answer.members };
    },
    syncGroup: ({ groupId, generationId, memberId }, protocol, plan) => ask(connection, syncGroupV5.api, [groupId, generationId, memberId, null, 'consumer', protocol, plan]),
    heartbeat: async ({ groupId, generationId, memberId }) => (await ask<{ errorCode: number }>(connection, heartbeatV4.api, [groupId, generationId, memberId, null])).errorCode,
    leaveGroup: async (groupId, memberId) => (await ask<{ errorCode: number }>(connection, leaveGroupV5.api, [groupId, [{ memberId, groupInstanceId: null, reason: null }]])).errorCode,
    async commit({ groupId, generationId, memberId }, topics) {
      const wanted = topics.map((t) => ({ name: t.topic, partitions: t.partitions.map((p) => ({ partitionIndex: p.partition, committedOffset: BigInt(p.offset), committedLeaderEpoch: -1, committedMetadata: null })) }));
      const answer = await ask<{ topics: { partitions: { errorCode: number }[] }[] }>(connection, offsetCommitV8.api, [groupId, generationId, memberId, null, wanted]);
      return answer.topics.flatMap((t) => t.partitions);
    },
    async committed(groupId, topics) {
      const { groups: [group] } = await ask<CommittedAnswer>(connection, offsetFetchV8.api, [[{ groupId, memberId: null, memberEpoch: -1, topics: topics.map((t) => ({ name: t.topic, partitionIndexes: [...t.partitions] })) }], true]);
      if (group === undefined) return { errorCode: -1, offsets: [] };
      return { errorCode: group.errorCode, offsets: group.topics.flatMap((t) => t.partitions.map((p): PartitionOffset => ({ topic: t.name, partition: p.partitionIndex, errorCode: p.errorCode, offset: Number(p.committedOffset) }))) };
    },
    async createTopics(timeoutMs, topics) {
      const wanted = topics.map((t) => ({ name: t.name, numPartitions: t.partitions, replicationFactor: t.replicationFactor, assignments: [], configs: Object.entries(t.config).map(([name, value]) => ({ name, value })) }));
      const answer = await ask<{ topics: { name: string; errorCode: number; errorMessage: string | null }[] }>(connection, createTopicsV7.api, [wanted, timeoutMs, false]);
      return answer.topics.map((t) => ({ name: t.name, errorCode: t.errorCode, message: t.errorMessage ?? `error ${t.errorCode}` }));
    },
    async deleteTopics(timeoutMs, names) {
      return (await ask<{ responses: { name: string; errorCode: number }[] }>(connection, deleteTopicsV5.api, [names.map((name) => ({ name })), timeoutMs])).responses;
    },
    async topicConfigs(names) {
      const answer = await ask<{ results: { resourceName: string; configs: { name: string; value: string | null }[] }[] }>(connection, describeConfigsV4.api, [names.map((resourceName) => ({ resourceType: 2, resourceName, configurationKeys: null })), false, false]);
      return answer.results.map((r) => ({ name: r.resourceName, config: Object.fromEntries(r.configs.map((c) => [c.name, c.value ?? ''])) }));
    },
    destroy() {
      connection.connection.socket.destroy();
    },
  };
}

export const platformatic: Driver = {
  name: 'platformatic',
  async connect(clientId, endpoint, timeoutMs, onClose, secured) {
    const { host, port } = endpoint;
    // Deadlines are the caller's; this one only ends a request that its caller has long given up.
    const connection = new Connection(clientId, {
      connectTimeout: timeoutMs, requestTimeout: 600_000, maxInflights: 1000,
      sasl: secured?.sasl?.token === undefined ? secured?.sasl : { ...secured.sasl, authBytesValidator: (answer, done) => done(tokenRefusal(answer) ?? null, answer) },
      tls: secured?.tls === undefined ? undefined : tlsOptions(secured.tls, host),
    });
    let lost: Error | undefined;
    connection.once('close', () => {
      // Of a connection that was cut the library leaves the timer of the next login.
      connection.close(() => undefined);
      onClose();
    });
    connection.on('error', (error) => {
      lost ??= error;
      connection.socket.destroy();
    });
    await connection.connect(host, port)!.catch((error: unknown) => {
      const why = secured?.sasl === undefined ? undefined : refusedLogin(error);
      throw why === undefined ? error : saslRefusal(endpoint, secured!, why, error);
    });
    return createBroker({ connection, lost: () => lost });
  },
};
