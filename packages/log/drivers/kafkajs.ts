/** The Kafka protocol by kafkajs. The two hot requests carry our own record batches; the rest uses the library's encoders. */
import type { BrokerConnection, Driver, Endpoint, Fetched, FetchTopic, PartitionOffset, Produced, ProduceTopic } from '../driver.ts';
import { withDeadline } from '../deadline.ts';
import { saslRefusal, tokenRefusal } from '../refusal.ts';
import { tlsOptions, type Secured } from '../security.ts';
import { call, Connection, DecoderOf, EncoderOf, socketFactory, type Call, type Decoder, type KafkajsConnection } from './kafkajs-internals.ts';

const nothing: Buffer = Buffer.alloc(0);
const silent = { debug() {}, info() {}, warn() {}, error() {}, namespace: () => silent };

const long = (decoder: Decoder): number => Number(decoder.readInt64());

function produceCall(timeoutMs: number, topics: readonly ProduceTopic[]): Call<Produced[]> {
  const size = topics.reduce((n, t) => n + 64 + t.topic.length + t.partitions.reduce((m, p) => m + 16 + p.bytes.length, 0), 64);
  return {
    request: {
      apiKey: 0, apiVersion: 7, apiName: 'Produce',
      async encode() {
        const out = new EncoderOf(size).writeString(null).writeInt16(-1).writeInt32(timeoutMs).writeInt32(topics.length);
        for (const { topic, partitions } of topics) {
          out.writeString(topic).writeInt32(partitions.length);
          for (const { partition, bytes } of partitions) out.writeInt32(partition).writeBytes(bytes);
        }
        return out;
      },
    },
    response: {
      async decode(raw) {
        const decoder = new DecoderOf(raw);
        const list: Produced[] = [];
        decoder.readArray((t) => {
          const topic = t.readString()!;
          t.readArray((p) => {
            const [partition, errorCode, baseOffset] = [p.readInt32(), p.readInt16(), long(p)];
            // Append time and log start.
            p.readInt64();
            p.readInt64();
            list.push({ topic, partition, errorCode, baseOffset });
          });
        });
        return list;
      },
    },
  };
}

function fetchCall(maxWaitMs: number, maxBytes: number, topics: readonly FetchTopic[]): Call<Fetched> {
  return {
    request: {
      apiKey: 1, apiVersion: 11, apiName: 'Fetch',
      async encode() {
        const out = new EncoderOf().writeInt32(-1).writeInt32(maxWaitMs).writeInt32(1).writeInt32(maxBytes).writeInt8(0).writeInt32(0).writeInt32(-1).writeInt32(topics.length);
        for (const { topic, partitions } of topics) {
          out.writeString(topic).writeInt32(partitions.length);
          for (const p of partitions) out.writeInt32(p.partition).writeInt32(-1).writeInt64(p.offset).writeInt64(-1).writeInt32(p.maxBytes);
        }
        return out.writeInt32(0).writeString('');
      },
    },
    response: {
      async decode(raw) {
        const decoder = new DecoderOf(raw);
        decoder.readInt32();
        const errorCode = decoder.readInt16();
        decoder.readInt32();
        const partitions = decoder.readArray((t) => {
          const topic = t.readString()!;
          return t.readArray((p) => {
            const [partition, code, highWatermark] = [p.readInt32(), p.readInt16(), long(p)];
            p.readInt64();
            const logStartOffset = long(p);
            p.readArray((aborted) => [aborted.readInt64(), aborted.readInt64()]);
            p.readInt32();
            return { topic, partition, errorCode: code, highWatermark, logStartOffset, bytes: p.readBytes() ?? nothing };
          });
        }).flat();
        return { errorCode, partitions };
      },
    },
  };
}

/**
 * OffsetFetch at version 7, which the library does not have: only from there on an answer can be asked for that has
 * everything acknowledged in it (require_stable). Flexible versions: the header ends with tagged fields, none here.
 */
function offsetFetchCall(groupId: string, topics: ReadonlyArray<{ topic: string; partitions: readonly number[] }>): Call<{ errorCode: number; offsets: PartitionOffset[] }> {
  return {
    request: {
      apiKey: 9, apiVersion: 7, apiName: 'OffsetFetch',
      async encode() {
        const wanted = topics.map((t) => new EncoderOf().writeUVarIntString(t.topic).writeUVarIntArray(t.partitions.map((p) => new EncoderOf().writeInt32(p)), 'object').writeUVarInt(0));
        return new EncoderOf().writeUVarInt(0).writeUVarIntString(groupId).writeUVarIntArray(wanted, 'object').writeBoolean(true).writeUVarInt(0);
      },
    },
    response: {
      async decode(raw) {
        const decoder = new DecoderOf(raw);
        decoder.readTaggedFields();
        decoder.readInt32();
        const offsets = (decoder.readUVarIntArray((t) => {
          const topic = t.readUVarIntString()!;
          const list = t.readUVarIntArray((p): PartitionOffset => {
            const [partition, offset] = [p.readInt32(), long(p)];
            // Leader epoch and metadata.
            p.readInt32();
            p.readUVarIntString();
            const errorCode = p.readInt16();
            p.readTaggedFields();
            return { topic, partition, errorCode, offset };
          });
          t.readTaggedFields();
          return list ?? [];
        }) ?? []).flat();
        return { errorCode: decoder.readInt16(), offsets };
      },
    },
  };
}

interface MetadataAnswer { brokers: { nodeId: number; host: string; port: number }[]; topicMetadata: { topicErrorCode: number; topic: string; isInternal: boolean; partitionMetadata: { partitionId: number; leader: number; replicas: number[] }[] }[] }
interface OffsetsAnswer { responses: { topic: string; partitions: { partition: number; errorCode: number; offset: string }[] }[] }
interface JoinAnswer { errorCode: number; generationId: number; leaderId: string | null; memberId: string; groupProtocol: string | null; members: { memberId: string; memberMetadata: Buffer | null }[] }

function offsetsOf(answer: OffsetsAnswer): PartitionOffset[] {
  return answer.responses.flatMap((t) => t.partitions.map((p): PartitionOffset => ({ topic: t.topic, partition: p.partition, errorCode: p.errorCode, offset: Number(p.offset) })));
}

function createBroker(connection: KafkajsConnection, destroy: () => void): BrokerConnection {
  // The library's `parse` turns error codes into exceptions; here they are values.
  const ask = <R>({ request, response }: Call<R>): Promise<R> => connection.send({ request, response: { decode: (raw) => response.decode(raw), parse: async (decoded) => decoded }, logResponseError: false });
  return {
    async metadata(topics) {
      // The library writes an empty list as null, which means all topics.
      const answer = await ask(call<MetadataAnswer>('Metadata', 6, { topics: topics ?? [], allowAutoTopicCreation: false }));
      return {
        brokers: answer.brokers.map(({ nodeId, host, port }) => ({ nodeId, host, port })),
        topics: answer.topicMetadata.map((t) => ({ name: t.topic, errorCode: t.topicErrorCode, internal: t.isInternal, partitions: t.partitionMetadata.map((p) => ({ partition: p.partitionId, leader: p.leader, replicas: p.replicas.length })) })),
      };
    },
    produce: (timeoutMs, topics) => ask(produceCall(timeoutMs, topics)),
    fetch: (maxWaitMs, maxBytes, topics) => ask(fetchCall(maxWaitMs, maxBytes, topics)),
    async listOffsets(topic, partitions, timestamp) {
      return offsetsOf(await ask(call<OffsetsAnswer>('ListOffsets', 3, { isolationLevel: 0, topics: [{ topic, partitions: partitions.map((partition) => ({ partition, timestamp })) }] })));
    },
    async findCoordinator(groupId) {
      const { errorCode, coordinator } = await ask(call<{ errorCode: number; coordinator: { nodeId: number } }>('GroupCoordinator', 2, { groupId }));
      return { errorCode, nodeId: coordinator.nodeId };
    },
    async joinGroup({ groupId, sessionMs, rebalanceMs, memberId, protocol, metadata }) {
      const answer = await ask(call<JoinAnswer>('JoinGroup', 5, { groupId, sessionTimeout: sessionMs, rebalanceTimeout: rebalanceMs, memberId, protocolType: 'consumer', groupProtocols: [{ name: protocol, metadata }] }));
      return { errorCode: answer.errorCode, generationId: answer.generationId, leader: answer.leaderId ?? '', memberId: answer.memberId, protocol: answer.groupProtocol ?? '', members: answer.members.map((m) => ({ memberId: m.memberId, metadata: m.memberMetadata ?? nothing })) };
    },
    async syncGroup({ groupId, generationId, memberId }, _protocol, plan) {
      const answer = await ask(call<{ errorCode: number; memberAssignment: Buffer | null }>('SyncGroup', 3, { groupId, generationId, memberId, groupAssignment: plan.map((p) => ({ memberId: p.memberId, memberAssignment: p.assignment })) }));
      return { errorCode: answer.errorCode, assignment: answer.memberAssignment ?? nothing };
    },
    heartbeat: async ({ groupId, generationId, memberId }) => (await ask(call<{ errorCode: number }>('Heartbeat', 3, { groupId, groupGenerationId: generationId, memberId, groupInstanceId: null }))).errorCode,
    leaveGroup: async (groupId, memberId) => (await ask(call<{ errorCode: number }>('LeaveGroup', 3, { groupId, memberId }))).errorCode,
    async commit({ groupId, generationId, memberId }, topics) {
      return (await ask(call<OffsetsAnswer>('OffsetCommit', 5, { groupId, groupGenerationId: generationId, memberId, topics }))).responses.flatMap((t) => t.partitions);
    },
    committed: (groupId, topics) => ask(offsetFetchCall(groupId, topics)),
    async createTopics(timeoutMs, topics) {
      const wanted = topics.map((t) => ({ topic: t.name, numPartitions: t.partitions, replicationFactor: t.replicationFactor, configEntries: Object.entries(t.config).map(([name, value]) => ({ name, value })) }));
      const answer = await ask(call<{ topicErrors: { topic: string; errorCode: number; errorMessage: string | null }[] }>('CreateTopics', 3, { topics: wanted, timeout: timeoutMs }));
      return answer.topicErrors.map((t) => ({ name: t.topic, errorCode: t.errorCode, message: t.errorMessage ?? `error ${t.errorCode}` }));
    },
    async deleteTopics(timeoutMs, names) {
      const answer = await ask(call<{ topicErrors: { topic: string; errorCode: number }[] }>('DeleteTopics', 1, { topics: names, timeout: timeoutMs }));
      return answer.topicErrors.map((t) => ({ name: t.topic, errorCode: t.errorCode }));
    },
    async topicConfigs(names) {
      const answer = await ask(call<{ resources: { resourceName: string; configEntries: { configName: string; configValue: string | null }[] }[] }>('DescribeConfigs', 2, { resources: names.map((name) => ({ type: 2, name, configNames: [] })) }));
      return answer.resources.map((r) => ({ name: r.resourceName, config: Object.fromEntries(r.configEntries.map((c) => [c.configName, c.configValue ?? ''])) }));
    },
    destroy,
  };
}

/** Share of the lifetime that is left when the login is made again; the other library's is the same. */
const lifetimeLeft = 0.2;
/** What the library's authenticator asks for before it is asked anything else: both at any version that it has. */
const saslVersions = { 17: { minVersion: 0, maxVersion: 1 }, 36: { minVersion: 0, maxVersion: 1 } };

function saslOptions(sasl: Secured['sasl']): Record<string, unknown> | null {
  if (sasl === undefined) return null;
  const { mechanism, username, password, token } = sasl;
  return token === undefined ? { mechanism, username, password } : { mechanism, oauthBearerProvider: async () => ({ value: await token() }) };
}

/** Logs in. The library wraps a cut connection in the same error as a refusal: what the broker answered tells them apart. */
async function logIn(connection: KafkajsConnection, endpoint: Endpoint, secured: Secured, timeoutMs: number): Promise<void> {
  let answered: Error | undefined;
  const { send } = connection;
  connection.send = (async (request: { request: { apiName: string } }) => {
    try {
      const answer = await send.call(connection, request as never) as { readonly authBytes?: Buffer };
      // Behind its length.
      if (secured.sasl?.token !== undefined && request.request.apiName === 'SaslAuthenticate') answered = tokenRefusal(answer.authBytes?.subarray(4) ?? nothing);
      if (answered !== undefined) throw answered;
      return answer;
    } catch (error) {
      if ((error as Error).name === 'KafkaJSProtocolError') answered = error as Error;
      throw error;
    }
  }) as never;
  connection.setVersions(saslVersions);
  connection.setSupportAuthenticationProtocol(true);
  try {
    await withDeadline(connection.authenticate(), timeoutMs, 'SASL');
    // The broker takes no login within a second of the last: with the library's 10 s a short lifetime would ask for one at once.
    connection.reauthenticationThreshold = Math.min(connection.reauthenticationThreshold, connection.sessionLifetime.toNumber() * lifetimeLeft);
  } catch (error) {
    const refused = answered ?? ((error as Error).name === 'KafkaJSSASLAuthenticationError' && connection.isConnected() ? error as Error : undefined);
    throw refused === undefined ? error : saslRefusal(endpoint, secured, refused.message, error);
  } finally {
    connection.send = send;
  }
}

export const kafkajs: Driver = {
  name: 'kafkajs',
  async connect(clientId, endpoint, timeoutMs, onClose, secured) {
    const { host, port } = endpoint;
    const ssl = secured?.tls === undefined ? null : tlsOptions(secured.tls, host);
    const connection = new Connection({ host, port, clientId, ssl, sasl: saslOptions(secured?.sasl), logger: silent, socketFactory, connectionTimeout: timeoutMs, requestTimeout: 600_000, enforceRequestTimeout: false, maxInFlightRequests: null });
    const queue = connection.requestQueue;
    // The library re-arms a negative timer after every answer, for ever (tulios/kafkajs #1704, #1751).
    queue.scheduleCheckPendingRequests = () => {
      if (queue.pending.length === 0 || queue.throttleCheckTimeoutId) return;
      queue.throttleCheckTimeoutId = setTimeout(() => {
        queue.throttleCheckTimeoutId = null;
        queue.checkPendingRequests();
      }, Math.max(1, queue.throttledUntil - Date.now()));
    };
    await connection.connect();
    let closed = false;
    const ended = (): void => {
      if (closed) return;
      closed = true;
      connection.rejectRequests(new Error('the connection was closed'));
      queue.destroy();
      onClose();
    };
    connection.socket.once('close', ended);
    if (secured?.sasl !== undefined) {
      await logIn(connection, endpoint, secured, timeoutMs).catch((error: unknown) => {
        connection.socket.destroy();
        throw error;
      });
    }
    return createBroker(connection, () => {
      connection.socket.destroy();
      ended();
    });
  },
};
