import type { BatchItem, OperationManifest } from '@weir/adapter';
import type { DestinationConfig } from '@weir/release';
import { itemOf, type Member, type Unbuildable } from './call.ts';
import type { Lane } from './lane.ts';
import type { PartitionRunner } from './partition.ts';
import type { DestinationPorts } from './ports.ts';

/** A lane whose head waits for a call. */
export interface Ready {
  readonly lane: Lane;
  readonly runner: PartitionRunner;
  /** Since when it waits, monotonic ms. */
  readonly since: number;
}

/** Deliveries of different subjects that go in one call, and what stands for each in its body. */
export interface Batch<T> {
  readonly members: (T & Member)[];
  readonly items: BatchItem[];
  /** Of the items, with what stands between them. */
  bytes: number;
  /** Members at most: as many as the operation takes, or as the strictest of them (`batchLimit`). */
  limit: number;
}

/** Takes the delivery in, unless it or its item is too much for what is left (`full`), or cannot be built at all. */
export function joinBatch<T>(ports: DestinationPorts, batch: Batch<T>, member: T & Member, destination: DestinationConfig, operation: OperationManifest): 'joined' | 'full' | Unbuildable {
  const { maxBytes } = operation.batch!;
  const { batchLimit } = member.task;
  const limit = batchLimit > 0 ? Math.min(batchLimit, batch.limit) : batch.limit;
  if (batch.members.length >= limit) return 'full';
  const item = itemOf(ports, member.task, destination);
  if (!('text' in item)) return item;
  const bytes = Buffer.byteLength(item.text) + 1;
  if (bytes > maxBytes) return { kind: 'unbuildable', code: 'delivery-unbuildable', detail: `the item has ${bytes} bytes, a batch at most ${maxBytes}` };
  if (batch.bytes + bytes > maxBytes) return 'full';
  batch.members.push(member);
  batch.items.push(item);
  batch.bytes += bytes;
  batch.limit = limit;
  return 'joined';
}
