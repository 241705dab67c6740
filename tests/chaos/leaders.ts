/**
 * Moves leaders as an operator's reassignment does: AlterPartitionReassignments v0 and ElectLeaders v2, written by
 * hand, because no client that Weir uses has both. https://kafka.apache.org/protocol
 */
import { connect } from 'node:net';

const timeoutMs = 5000;

function int32(n: number): Buffer {
  const out = Buffer.alloc(4);
  out.writeInt32BE(n);
  return out;
}
function varint(n: number): Buffer {
  const out: number[] = [];
  for (let v = n; ; v >>>= 7) {
    if (v < 128) return Buffer.from([...out, v]);
    out.push((v & 127) | 128);
  }
}
const list = (items: readonly Buffer[]): Buffer => Buffer.concat([varint(items.length + 1), ...items]);
const text = (s: string): Buffer => Buffer.concat([varint(Buffer.byteLength(s) + 1), Buffer.from(s)]);
const noTags: Buffer = Buffer.from([0]);

/** One request of a flexible version; its answer is awaited, not read: what it did shows in the metadata. */
function ask(address: string, apiKey: number, version: number, body: Buffer): Promise<void> {
  const head = Buffer.alloc(8);
  head.writeInt16BE(apiKey, 0);
  head.writeInt16BE(version, 2);
  head.writeInt32BE(1, 4);
  const client = Buffer.from([0, 5, ...Buffer.from('chaos')]);
  const message = Buffer.concat([head, client, noTags, body]);
  const [host, port] = address.split(':');
  return new Promise((resolve, reject) => {
    const socket = connect(Number(port), host!, () => { socket.write(Buffer.concat([int32(message.length), message])); });
    const timer = setTimeout(() => socket.destroy(new Error(`no answer to request ${apiKey} within ${timeoutMs} ms`)), timeoutMs);
    socket.on('data', () => socket.destroy());
    socket.on('error', reject);
    socket.on('close', () => {
      clearTimeout(timer);
      resolve();
    });
  });
}

/** The first of `replicas` leads each partition of the topic from now on. */
export async function moveLeaders(address: string, topic: string, replicasOf: ReadonlyArray<readonly number[]>): Promise<void> {
  const partitions = replicasOf.map((replicas, i) => Buffer.concat([int32(i), list(replicas.map(int32)), noTags]));
  await ask(address, 45, 0, Buffer.concat([int32(timeoutMs), list([Buffer.concat([text(topic), list(partitions), noTags])]), noTags]));
  const preferred = Buffer.from([0]);
  await ask(address, 43, 2, Buffer.concat([preferred, list([Buffer.concat([text(topic), list(replicasOf.map((_, i) => int32(i))), noTags])]), int32(timeoutMs), noTags]));
}
