import { randomUUID } from 'node:crypto';
import type { Appender } from '@weir/log';

/**
 * One entry of the audit log. `intent` = somebody is about to change something; `end` = how the intent `of` ended;
 * `fact` = something that took place. Its bytes are hashed as they stand in the topic. No secret and no payload.
 */
export interface AuditLeaf {
  readonly id: string;
  readonly kind: 'intent' | 'end' | 'fact';
  /** ms since the epoch. */
  readonly at: number;
  /** Who, e.g. `token:tok_…`, `oidc:<subject>`, `admin`. */
  readonly actor: string;
  /** What, e.g. release.apply. */
  readonly action: string;
  /** On what: an id, a name, a path. */
  readonly target: string | null;
  /** The intent that this leaf belongs to. */
  readonly of: string | null;
  readonly details: Readonly<Record<string, unknown>>;
}

export const maxLeafBytes = 65_536;
const idPattern = /^leaf_[0-9a-f-]{36}$/;

export const leafId = (): string => `leaf_${randomUUID()}`;

/** Throws RangeError when the leaf is over 64 KiB. */
export function encodeLeaf(leaf: AuditLeaf): Buffer {
  const bytes = Buffer.from(JSON.stringify(leaf));
  if (bytes.length > maxLeafBytes) throw new RangeError(`a leaf of ${bytes.length} bytes: at most ${maxLeafBytes}`);
  return bytes;
}

/** Undefined when the bytes are no leaf: such a record still counts in the tree, so that it can not be slipped in. */
export function decodeLeaf(bytes: Uint8Array): AuditLeaf | undefined {
  if (bytes.length > maxLeafBytes) return undefined;
  try {
    const value = JSON.parse(Buffer.from(bytes).toString('utf8')) as AuditLeaf | null;
    return value !== null && typeof value === 'object' && typeof value.id === 'string' && idPattern.test(value.id) && typeof value.action === 'string' && ['intent', 'end', 'fact'].includes(value.kind) ? value : undefined;
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

/**
 * For who writes to the brokers himself: the leaf, the work that it is about, how it ended. The work gets the id of the
 * leaf, which is acknowledged by then; what it throws is thrown on, after its end leaf.
 */
export async function audited<T>(to: { readonly appender: Appender; readonly topic: string; readonly now: () => number }, what: Pick<AuditLeaf, 'actor' | 'action' | 'target'>, work: (leaf: string) => Promise<T>): Promise<T> {
  const intent: AuditLeaf = { id: leafId(), kind: 'intent', at: to.now(), ...what, of: null, details: {} };
  await appendLeaf(to.appender, to.topic, intent);
  const end = (result: string) => appendLeaf(to.appender, to.topic, { ...intent, id: leafId(), at: to.now(), kind: 'end', of: intent.id, details: { result } });
  let done: T;
  try {
    done = await work(intent.id);
  } catch (error) {
    await end('failed');
    throw error;
  }
  await end('completed');
  return done;
}

/** Append leaves; resolves with the offset of the last when all are acknowledged. The key is the leaf's id: a resend of the same leaf is known by it. */
export async function appendLeaf(appender: Appender, topic: string, ...leaves: readonly AuditLeaf[]): Promise<number> {
  const offsets = await appender.append(topic, leaves.map((leaf) => ({ partition: 0, key: Buffer.from(leaf.id), value: encodeLeaf(leaf) })));
  return offsets.at(-1)!;
}
