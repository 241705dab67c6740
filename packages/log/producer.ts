import type { ProduceAck, ProduceBatch, ProducePort } from '../appender.ts';
import { encodeBatch } from '../wire.ts';
import { E, type Cluster } from './cluster.ts';
import { produceApi, type ProduceTopic } from './requests.ts';

interface ProduceResponse {
  readonly responses: ReadonlyArray<{ readonly name: string; readonly partitionResponses: ReadonlyArray<{ readonly index: number; readonly errorCode: number; readonly baseOffset: bigint; readonly errorMessage: string | null }> }>;
}

const fatal = new Set<number>([E.messageTooLarge, E.recordListTooLarge, E.topicAuthorization, E.invalidTopic, E.invalidRecord]);

/** One produce request to one broker: acks=all, no idempotence, no retry; one ack for each batch asked for. */
export function createProducePort(cluster: Cluster): ProducePort {
  return {
    partitions: (topic) => cluster.partitions(topic),
    partitionsKnown: (topic) => cluster.partitionsKnown(topic),
    leader: (topic, partition) => cluster.leader(topic, partition),
    refresh: (topics) => cluster.refresh(topics),
    async produce(leader, batches: readonly ProduceBatch[], timeoutMs) {
      const now = Date.now();
      const topics = new Map<string, { partition: number; batch: Buffer }[]>();
      for (const { topic, partition, records } of batches) {
        const entry = { partition, batch: encodeBatch(records, now) };
        const list = topics.get(topic);
        if (list === undefined) topics.set(topic, [entry]);
        else list.push(entry);
      }
      const connection = await cluster.connection('produce', leader);
      const request: ProduceTopic[] = [...topics].map(([topic, partitions]) => ({ topic, partitions }));
      const response = await cluster.request<[number, ProduceTopic[]], ProduceResponse>(connection, 'produce', produceApi, [timeoutMs, request], timeoutMs + 2000);
      const acks = new Map<string, ProduceAck>();
      for (const { name, partitionResponses } of response.responses) {
        for (const p of partitionResponses) {
          const key = `${name}/${p.index}`;
          if (p.errorCode === 0) acks.set(key, { kind: 'acked', baseOffset: Number(p.baseOffset) });
          else acks.set(key, { kind: fatal.has(p.errorCode) ? 'fatal' : 'again', detail: `error ${p.errorCode} ${p.errorMessage ?? ''}`.trim() });
        }
      }
      return batches.map(({ topic, partition }) => acks.get(`${topic}/${partition}`) ?? { kind: 'again', detail: 'partition is not in the answer' });
    },
    discard: (leader) => cluster.discard('produce', leader),
    close: () => cluster.close(),
  };
}
