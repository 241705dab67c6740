/**
 * Who holds which partitions, as the coordinators tell it: DescribeGroups v0 (https://kafka.apache.org/protocol), which
 * the clients of the services have no use for.
 */
import { connect } from 'node:net';

const timeoutMs = 1500;

export interface GroupMember {
  readonly memberId: string;
  /** As the process calls itself: `weir-<stage>-<instance>`. */
  readonly clientId: string;
  /** topic → partitions. */
  readonly partitions: ReadonlyMap<string, readonly number[]>;
}

function text(s: string): Buffer {
  const out = Buffer.alloc(2 + Buffer.byteLength(s));
  out.writeInt16BE(out.length - 2);
  out.write(s, 2);
  return out;
}

/** The whole message of a request for what is known of the groups. */
export function describeRequest(groups: readonly string[]): Buffer {
  const head = Buffer.alloc(8);
  head.writeInt16BE(15, 0);
  head.writeInt32BE(1, 4);
  const count = Buffer.alloc(4);
  count.writeInt32BE(groups.length);
  const message = Buffer.concat([head, text('chaos'), count, ...groups.map(text)]);
  const size = Buffer.alloc(4);
  size.writeInt32BE(message.length);
  return Buffer.concat([size, message]);
}

/** Reads the fields of a message in turn; throws RangeError when it ends early. */
function fieldsOf(bytes: Buffer) {
  let at = 0;
  const take = (n: number): Buffer => {
    if (n < 0 || at + n > bytes.length) throw new RangeError('an answer about groups ends early');
    at += n;
    return bytes.subarray(at - n, at);
  };
  const int16 = (): number => take(2).readInt16BE();
  const int32 = (): number => take(4).readInt32BE();
  return { int16, int32, text: () => take(int16()).toString(), bytes: () => take(int32()) };
}

function list<T>(n: number, read: () => T): T[] {
  return Array.from({ length: Math.max(0, n) }, read);
}

function partitionsIn(assignment: Buffer): Map<string, readonly number[]> {
  if (assignment.length === 0) return new Map();
  const fields = fieldsOf(assignment);
  fields.int16();
  return new Map(list(fields.int32(), () => [fields.text(), list(fields.int32(), fields.int32)] as const));
}

/** Members by group, from the answer behind its size: of those groups only that the broker coordinates and that have their partitions. While members join, a coordinator tells no assignment. */
export function readDescribed(answer: Buffer): Map<string, readonly GroupMember[]> {
  const fields = fieldsOf(answer);
  fields.int32();
  const found = new Map<string, readonly GroupMember[]>();
  for (const { error, group, state, members } of list(fields.int32(), () => {
    const [error, group, state] = [fields.int16(), fields.text(), fields.text()];
    fields.text();
    fields.text();
    const members = list(fields.int32(), (): GroupMember => {
      const [memberId, clientId] = [fields.text(), fields.text()];
      fields.text();
      fields.bytes();
      return { memberId, clientId, partitions: partitionsIn(fields.bytes()) };
    });
    return { error, group, state, members };
  })) if (error === 0 && state === 'Stable') found.set(group, members);
  return found;
}

/** Rejects when the broker does not answer in time. */
export function describeGroups(address: string, groups: readonly string[]): Promise<Map<string, readonly GroupMember[]>> {
  const [host, port] = address.split(':');
  return new Promise((resolve, reject) => {
    let answer = Buffer.alloc(0);
    const socket = connect(Number(port), host!, () => { socket.write(describeRequest(groups)); });
    const timer = setTimeout(() => socket.destroy(new Error(`${address} tells nothing of its groups within ${timeoutMs} ms`)), timeoutMs);
    socket.on('data', (chunk: Buffer) => {
      answer = Buffer.concat([answer, chunk]);
      if (answer.length < 4 || answer.length < 4 + answer.readInt32BE()) return;
      socket.destroy();
      try {
        resolve(readDescribed(answer.subarray(4)));
      } catch (error) {
        reject(error);
      }
    });
    socket.on('error', reject);
    socket.on('close', () => {
      clearTimeout(timer);
      reject(new Error(`${address} closed without an answer`));
    });
  });
}

export interface Holdings {
  /** Asks now. What cannot be asked, because brokers are away or members are joining, stays as it was told last. */
  refresh(): Promise<void>;
  /** A process of this name starts: what members of the name hold by now, one that died holds. */
  begins(clientId: string): Promise<void>;
  /** Partitions of the topic that the living member of the name holds. */
  held(group: string, topic: string, clientId: string): readonly number[];
}

/** `describe` is asked of every broker: only its coordinator tells of a group. */
export function createHoldings(addresses: readonly string[], groups: readonly string[], describe: typeof describeGroups = describeGroups): Holdings {
  const known = new Map<string, readonly GroupMember[]>();
  const dead = new Set<string>();
  async function refresh(): Promise<void> {
    for (const told of await Promise.allSettled(addresses.map((address) => describe(address, groups)))) {
      if (told.status === 'fulfilled') for (const [group, members] of told.value) known.set(group, members);
    }
  }
  return {
    refresh,
    async begins(clientId) {
      await refresh();
      for (const members of known.values()) for (const m of members) if (m.clientId === clientId) dead.add(m.memberId);
    },
    held: (group, topic, clientId) => (known.get(group) ?? []).filter((m) => m.clientId === clientId && !dead.has(m.memberId)).flatMap((m) => m.partitions.get(topic) ?? []),
  };
}
