/** `bare-loop.ts <prefix> <run>`: the raw client, consumed and produced batch by batch as its own documentation has it; until it is ended. */
import { Consumer, MessagesStreamModes, ProduceAcks, Producer, type Message } from '@platformatic/kafka';
import { topicNames } from '@weir/pipeline';

const [prefix, run] = process.argv.slice(2) as [string, string];
const bootstrapBrokers = process.env['KAFKA_BROKERS']!.split(',');
const topic = topicNames(prefix).raw('contacts');
const out = `${prefix}.out.${run}`;
const producer = new Producer<Buffer, Buffer, Buffer, Buffer>({ clientId: 'bench-bare', bootstrapBrokers, acks: ProduceAcks.ALL });
const consumer = new Consumer<Buffer, Buffer, Buffer, Buffer>({ clientId: 'bench-bare', bootstrapBrokers, groupId: `${prefix}.${run}`, sessionTimeout: 30_000, heartbeatInterval: 3000, highWaterMark: 8192, maxBytes: 4_194_304 });
const stream = await consumer.consume({ topics: [topic], mode: MessagesStreamModes.EARLIEST, autocommit: false });
const size = 1000;
let batch: Message<Buffer, Buffer, Buffer, Buffer>[] = [];

async function flush(): Promise<void> {
  if (batch.length === 0) return;
  const taken = batch;
  batch = [];
  await producer.send({ messages: taken.map((m) => ({ topic: out, key: m.key, value: m.value, headers: m.headers })) });
  const next = new Map<number, Message<Buffer, Buffer, Buffer, Buffer>>();
  for (const message of taken) next.set(message.partition, message);
  await consumer.commit({ offsets: [...next.values()].map((m) => ({ topic, partition: m.partition, offset: m.offset + 1n, leaderEpoch: -1 })) });
}

let running = false;
function turn(): void {
  if (running) return;
  running = true;
  stream.pause();
  flush().then(() => {
    running = false;
    stream.resume();
  }, (error: unknown) => {
    console.error(error);
    process.exit(1);
  });
}
stream.on('data', (message) => {
  batch.push(message as Message<Buffer, Buffer, Buffer, Buffer>);
  if (batch.length >= size) turn();
});
// What is left at the end of a topic fills no batch.
setInterval(turn, 100);
