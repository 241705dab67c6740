import type { ProduceAck, ProducePort } from './appender.ts';
import type { Cluster } from './cluster.ts';
import { E } from './driver.ts';
import { encodeBatch } from './records.ts';

const fatal: ReadonlySet<number> = new Set<number>([E.messageTooLarge, E.recordListTooLarge, E.topicAuthorization, E.clusterAuthorization, E.invalidTopic, E.invalidRecord, E.policyViolation]);
const answerGraceMs = 2000;

/** One produce request to one broker: acks = all, no client idempotence, no retry; one ack for each batch asked for. */
export function createProducePort(cluster: Cluster): ProducePort {
  return {
    partitions: (topic) => cluster.partitions(topic),
    partitionsKnown: (topic) => cluster.partitionsKnown(topic),
    leader: (topic, partition) => cluster.leader(topic, partition),
    refresh: (topics) => cluster.refresh(topics),
    async produce(leader, batches, timeoutMs) {
      const topics = new Map<string, { partition: number; bytes: Buffer }[]>();
      for (const { topic, partition, records, at } of batches) {
        const entry = { partition, bytes: encodeBatch(records, at) };
        const list = topics.get(topic);
        if (list === undefined) topics.set(topic, [entry]);
        else list.push(entry);
      }
      const request = [...topics].map(([topic, partitions]) => ({ topic, partitions }));
      const answers = await cluster.ask('produce', leader, 'produce', timeoutMs + answerGraceMs, (broker) => broker.produce(timeoutMs, request));
      const acks = new Map<string, ProduceAck>();
      for (const { topic, partition, errorCode, baseOffset } of answers) {
        if (errorCode !== 0) acks.set(`${topic}/${partition}`, { kind: fatal.has(errorCode) ? 'fatal' : 'again', detail: `broker error ${errorCode}` });
        else if (baseOffset >= 0) acks.set(`${topic}/${partition}`, { kind: 'acked', baseOffset });
      }
      return batches.map(({ topic, partition }) => acks.get(`${topic}/${partition}`) ?? { kind: 'again', detail: 'the partition is not in the answer' });
    },
    close: () => cluster.close(),
  };
}
