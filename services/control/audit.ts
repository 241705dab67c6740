import { appendLeaf, createTree, decodeLeaf, leafHash, leafId, signCheckpoint, verifierOf, verifyTree, type AuditLeaf, type PendingLeaf, type Signer } from '@weir/audit';
import { WeirError } from '@weir/errors';
import type { Appender, LogAdmin, Reader, RecordBatch } from '@weir/log';
import { count, list, named, object, text, type Schema, type TypeOf } from '@weir/service';
import type { Logger } from 'pino';
import type { Witness } from './audit-witness.ts';

const base64 = (description: string): Schema<string> => text(`${description} Base64.`);
const path = list(base64('A hash.'), 'Hashes from the bottom of the tree to its root (RFC 9162).');
const checkpointText = text('Signed note: origin, size, root, signature.');
const servedLeaf = named('AuditLeaf', object('A leaf of the audit log.', { index: count('Its place in the log.'), bytes: base64('The bytes that are hashed.') }));
export type ServedLeaf = TypeOf<typeof servedLeaf>;
export const leavesReply = named('AuditLeaves', object('Leaves of the audit log.', { size: count('Leaves there are.'), leaves: list(servedLeaf, 'In the order of the log.') }));
export const checkpointReply = named('AuditCheckpoint', object('The signed checkpoint over all leaves.', { checkpoint: checkpointText, verifier: text('Key by which the signature is checked, as signed notes write it.') }));
export const proofReply = named('AuditProof', object('Proof that a leaf is in the log.', { index: count('Place of the leaf.'), size: count('Leaves that the checkpoint covers.'), bytes: base64('The bytes of the leaf.'), path, checkpoint: checkpointText }));
export const consistencyReply = named('AuditConsistency', object('Proof that the first leaves are the beginning of all.', { from: count('Leaves of the older tree.'), to: count('Leaves of the newer one.'), path, fromRoot: base64('Root of the older tree.'), toRoot: base64('Root of the newer one.') }));

/** Action of the leaf that tells of secrets that were changed without one; its target is the leaf that they name. */
const unexplained = 'vault.unexplained';

export type NewLeaf = Pick<AuditLeaf, 'kind' | 'actor' | 'action'> & Partial<Pick<AuditLeaf, 'target' | 'of' | 'details'>>;

/** The audit log as control keeps it: the tree over weir.audit, in the order of the log. */
export interface AuditLog {
  /** Append a leaf; resolves with its id after it is acknowledged and the checkpoint over it is signed and kept. Rejects with audit-broken when the log is not what was signed. */
  record(leaf: NewLeaf): Promise<string>;
  checkpoint(): Promise<TypeOf<typeof checkpointReply>>;
  leaves(from: number, limit: number): Promise<TypeOf<typeof leavesReply>>;
  proof(id: string): Promise<TypeOf<typeof proofReply>>;
  consistency(from: number): Promise<TypeOf<typeof consistencyReply>>;
  /** Why nothing may be changed; undefined when all is well. */
  readonly broken: string | undefined;
  close(): Promise<void>;
}

/** `wasMade` tells whether the change that names an intent is on weir.control: undefined when it can not be known. */
export interface AuditPorts {
  readonly appender: Appender;
  readonly reader: Reader;
  readonly admin: Pick<LogAdmin, 'endOffsets'>;
  readonly topic: string;
  readonly signer: Signer;
  readonly witness: Witness;
  readonly now: () => number;
  readonly logger: Pick<Logger, 'error' | 'warn'>;
  readonly wasMade: (intent: AuditLeaf) => boolean | undefined;
  /** Changes of the local secrets that were made while nobody could be asked for a leaf. */
  readonly local: LocalChanges;
  /** Only the checkpoint over what is there: no leaf is written, what is open is left to who keeps the log. */
  readonly signOnly?: boolean;
}

/** What waits in the data folder (packages/audit/pending.ts), and the leaf that the sealed secrets name as their last change. */
export interface LocalChanges {
  pending(): readonly PendingLeaf[];
  drop(id: string): void;
  sealed(): string | undefined;
}

/**
 * Reads the log whole, compares it with every kept checkpoint, and closes intents that a crash left open. The
 * index of a leaf is its place in the log, so a second writer (the first deployment) can not fork it; a record
 * resent by the appender is known by the leaf's id and counts once.
 */
export async function openAuditLog(ports: AuditPorts): Promise<AuditLog> {
  const { appender, reader, admin, topic, signer, witness, logger, local } = ports;
  const tree = createTree();
  const offsets: number[] = [];
  const indexOf = new Map<string, number>();
  const open = new Map<string, AuditLeaf>();
  /** Leaves that the secrets named and the log did not have, and files that are no leaf: told once. */
  const told = new Set<string>();
  let next = 0;
  let serial: Promise<unknown> = Promise.resolve();
  let broken: string | undefined;
  let signed = -1;

  function take(offset: number, value: Buffer | null): void {
    next = offset + 1;
    const bytes = value ?? Buffer.alloc(0);
    const leaf = decodeLeaf(bytes);
    const known = leaf === undefined ? undefined : indexOf.get(leaf.id);
    if (known !== undefined && tree.leaf(known).equals(leafHash(bytes))) return;
    const index = tree.append(bytes);
    offsets.push(offset);
    if (leaf === undefined || known !== undefined) return logger.error({ topic, offset }, leaf === undefined ? 'not an audit leaf' : 'an audit leaf id came again with other content');
    indexOf.set(leaf.id, index);
    if (leaf.action === unexplained && leaf.target !== null) told.add(leaf.target);
    if (leaf.kind === 'intent') open.set(leaf.id, leaf);
    else if (leaf.kind === 'end' && leaf.of !== null) open.delete(leaf.of);
  }

  async function sync(): Promise<void> {
    const end = (await admin.endOffsets(topic)).get(0) ?? 0;
    if (end > next) await reader.read(topic, 0, next, end, (batch: RecordBatch) => { for (const record of batch.records) if (record.offset >= next) take(record.offset, record.value); });
  }

  const note = (): string => signCheckpoint({ origin: signer.name, size: tree.size, root: tree.root() }, signer);

  async function publish(): Promise<string> {
    const text = note();
    if (tree.size !== signed) await witness.publish(text);
    signed = tree.size;
    return text;
  }

  /** One at a time. */
  function inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = serial.then(work);
    serial = result.catch(() => undefined);
    return result;
  }

  /**
   * Puts the leaves that wait in the data folder on the log, as they stand. Secrets that name a leaf which is neither
   * there nor on the log were changed without one: that is told, by a leaf of its own.
   */
  async function adopt(): Promise<void> {
    if (broken !== undefined) return;
    // Before the leaves: whoever changes the secrets has written its leaf by then.
    const sealed = local.sealed();
    const waiting = local.pending();
    for (const { id, leaf } of waiting) if (leaf === undefined && !told.has(id)) {
      told.add(id);
      logger.error({ id: id.slice(0, 100) }, 'a file in audit-pending is no leaf of a local change: it is left where it is');
    }
    const good = waiting.filter(({ leaf }) => leaf !== undefined);
    for (const { id, bytes } of good) if (!indexOf.has(id)) await appender.append(topic, [{ partition: 0, key: Buffer.from(id), value: bytes }]);
    if (good.length > 0) await sync();
    for (const { id } of good) if (indexOf.has(id)) local.drop(id);
    if (sealed === undefined || indexOf.has(sealed) || told.has(sealed)) return;
    logger.error({ leaf: sealed }, 'the sealed secrets were changed under a leaf that the audit log does not have');
    await put({ kind: 'fact', actor: 'control', action: unexplained, target: sealed });
  }

  async function write(given: NewLeaf): Promise<string> {
    if (broken !== undefined) throw new WeirError('audit-broken', broken);
    await adopt();
    return put(given);
  }

  async function put(given: NewLeaf): Promise<string> {
    const leaf: AuditLeaf = { target: null, of: null, details: {}, ...given, id: leafId(), at: ports.now() };
    await appendLeaf(appender, topic, leaf);
    await sync();
    if (!indexOf.has(leaf.id)) throw new WeirError('invariant-broken', `the leaf ${leaf.id} was acknowledged and is not in ${topic}`);
    await publish();
    return leaf.id;
  }

  /** Bytes as they are in the topic now, not as they were read once: what was edited since shows. */
  async function read(from: number, to: number): Promise<ServedLeaf[]> {
    if (from >= to) return [];
    const wanted = new Map(offsets.slice(from, to).map((offset, i) => [offset, from + i]));
    const found: ServedLeaf[] = [];
    await reader.read(topic, 0, offsets[from]!, offsets[to - 1]! + 1, (batch) => {
      for (const record of batch.records) if (wanted.has(record.offset)) found.push({ index: wanted.get(record.offset)!, bytes: (record.value ?? Buffer.alloc(0)).toString('base64') });
    });
    return found;
  }

  await sync();
  const kept = witness.kept();
  if (kept.length > 0) {
    const findings = verifyTree({ tree, served: note(), kept, verifier: verifierOf(signer) }).filter((f) => f.kind !== 'old-checkpoint');
    if (findings.length > 0) broken = `${topic} is not what was signed: ${findings[0]!.message}`;
    if (broken !== undefined) logger.error({ findings }, 'the audit log is broken; nothing may be changed');
    // The newest holds, and so do all before it: they are beginnings of it.
    else witness.compact();
  } else if (tree.size > 0) logger.warn({ topic, leaves: tree.size }, 'no checkpoint was kept: the audit log is taken as it is');
  if (broken === undefined) {
    if (ports.signOnly !== true) await inTurn(adopt);
    for (const intent of ports.signOnly === true ? [] : open.values()) {
      const made = ports.wasMade(intent);
      await inTurn(() => write({ kind: 'end', actor: 'control', action: intent.action, target: intent.target, of: intent.id, details: { result: made === true ? 'completed' : made === false ? 'not-made' : 'interrupted' } }));
    }
    await publish();
  }

  return {
    get broken() { return broken; },
    record: (leaf) => inTurn(() => write(leaf)),
    checkpoint: () => inTurn(async () => {
      await sync();
      await adopt();
      return { checkpoint: broken === undefined ? await publish() : kept.at(-1)!, verifier: verifierOf(signer) };
    }),
    leaves: (from, limit) => inTurn(async () => {
      await sync();
      await adopt();
      return { size: tree.size, leaves: await read(Math.min(from, tree.size), Math.min(from + limit, tree.size)) };
    }),
    proof: (id) => inTurn(async () => {
      await sync();
      const index = indexOf.get(id);
      if (index === undefined) throw new WeirError('not-found', `no audit leaf ${id}`);
      const [leaf] = await read(index, index + 1);
      if (leaf === undefined) throw new WeirError('audit-broken', `leaf ${id} is no longer in ${topic}`);
      return { index, size: tree.size, bytes: leaf.bytes, path: tree.inclusion(index).map((h) => h.toString('base64')), checkpoint: broken === undefined ? await publish() : kept.at(-1)! };
    }),
    consistency: (from) => inTurn(async () => {
      await sync();
      if (from > tree.size) throw new WeirError('bad-request', `the log has ${tree.size} leaves`);
      return { from, to: tree.size, path: tree.consistency(from).map((h) => h.toString('base64')), fromRoot: tree.root(from).toString('base64'), toRoot: tree.root().toString('base64') };
    }),
    async close() {
      await serial;
      witness.close();
    },
  };
}
