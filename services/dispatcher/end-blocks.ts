import { ofItsOwn, type Age } from '@weir/pipeline';
import { createDeferredRows, hashOf, type Hash, type Put, type Table } from '@weir/state';
import { hash } from 'node:crypto';

/** An end as it lies in a block. */
export interface KeptEnd {
  readonly hash: Hash;
  /** Of the subject, operation and object, where it was delivered; of one that replaces nothing there is none. */
  readonly last: Hash | undefined;
  readonly acceptedAt: number;
  /** Of a delivered one, see EndValue; -1 = not known. */
  readonly firstOffset: number;
  /** Not let go while this is recent, ms. */
  readonly time: number;
  /** As it is on the topic. */
  readonly value: Buffer;
}

/**
 * The ends of the ledger's cache, in blocks in the order in which they came (`b/<number>`, each listed under the time of its newest end, `t/`),
 * and where each is (`e/<hash>`), and the newest accept time of each subject, operation and object (`l/<hash>`), with where it stood among those of the same time, which are written
 * late and sorted. A transaction has its blocks, so what is not written of the rest is taken from them at the next start.
 * After `add` or `prune` the caller writes `rows()` in one transaction, and says so by `written`.
 */
export interface EndBlocks {
  /** The end of this key, with the time that it was added with. */
  find(key: string): Pick<KeptEnd, 'value' | 'time'> | undefined;
  /** Counts from now on, also against one that is known under the key. `time` (ms): see KeptEnd. `delivered`: whose, and by what. */
  add(key: string, value: Buffer, time: number, acceptedAt: number, delivered: { readonly subject: string; readonly operation: string; readonly firstOffset?: number; readonly object?: string } | undefined): void;
  /** The newest delivered one of this object; undefined = none. */
  lastDelivered(subject: string, operation: string, object: string): Age | undefined;
  /** Takes out whole blocks from before a time (ms), about `limit` ends; gives how many were looked at. `forgotten` is told of those that counted. */
  prune(time: number, limit: number, forgotten: (value: Buffer) => void): number;
  rows(): Put[];
  written(): void;
}

/** One row of about 10 KiB: a row of its own for each end takes three times as long, larger ones take longer to read. */
const endsABlock = 32;
/** Ends whose place is gathered before they are written, 1.5 MB, and as many while they are: the more, the more neighbours a page has. Of blocks, which are read at a start, a quarter. */
const maxGathered = 65_536;
/** Rows written for each end that comes, so that they are out before as many have come again, and not much sooner: a subject that comes again needs none. */
const rowsAnEnd = 1.25;
const headBytes = 52;
/** In the length of the value: eight bytes of the first offset stand before it. Ends of most kinds have none. */
const hasFirst = 0x8000_0000;

const blockKey = (block: number): string => `b/${String(block).padStart(12, '0')}`;
/** Of ends that were forgotten, with their place as the value. */
const forgottenPrefix = 'g/';
const listPrefix = 't/';
const stamp = (time: number): string => String(Math.max(0, time)).padStart(15, '0');
const nextKey = '#next';
const writtenKey = '#written';

const derived = /^dlv_[0-9a-f]{32}$/;
/** A delivery key is the beginning of a hash already. */
const hashOfKey = (key: string): Hash => (derived.test(key) ? hashOf(key, 4) : hashOf(hash('sha256', key, 'hex')));
/** Where the object is not known, as before there were objects. */
const hashOfLast = (subject: string, operation: string, object: string): Hash => hashOf(hash('sha256', `last\0${operation}\0${subject}${object === '' ? '' : `\0${object}`}`, 'hex'));

/** @param most ends gathered; a test has it smaller */
export function createEndBlocks(table: Table, most = maxGathered): EndBlocks {
  const places = createDeferredRows(table, 'e/', 'newest');
  const lasts = createDeferredRows(table, 'l/', 'largest');
  const number = (key: string): number => Number(table.get(key)?.toString('latin1') ?? 1);
  let next = number(nextKey);
  /** First block whose ends are in what is gathered. */
  let from = number(writtenKey);
  let writing = false;
  /** Places gathered since the last freeze of ends that came in place of another one that is gathered with them. */
  const replacing = new Set<number>();
  /** The last of it is in the transaction that is being written. */
  let over = false;
  /** Ends and forgotten ones since the last transaction. */
  let added = 0;
  /** Blocks of this transaction. */
  const blocks = new Map<number, { readonly ends: KeptEnd[]; time: number }>();
  let open: { readonly ends: KeptEnd[]; time: number } | undefined;
  let puts: Put[] = [];
  let read: { readonly block: number; readonly ends: readonly KeptEnd[] } | undefined;

  const placeOf = (block: number, i: number): number => block * endsABlock + i;

  function block(at: number): readonly KeptEnd[] {
    const fresh = blocks.get(at);
    if (fresh !== undefined) return fresh.ends;
    if (read?.block !== at) {
      const bytes = table.get(blockKey(at));
      read = { block: at, ends: bytes === undefined ? [] : decodeEnds(bytes) };
    }
    return read.ends;
  }

  function gather(end: KeptEnd, place: number): void {
    if (places.put(end.hash, place)) replacing.add(place);
    if (end.last !== undefined) lasts.put(end.last, end.acceptedAt, besideOf(end));
  }

  /** True: it has to stand in the journal until the removal is written, for a row may have it, or a block the one that it replaced. */
  function forget({ hash, last, acceptedAt, firstOffset }: KeptEnd, place: number): boolean {
    const written = places.remove(hash);
    const lastWritten = last !== undefined && lasts.find(last) === acceptedAt && lasts.beside(last) === besideOf({ firstOffset }) && lasts.remove(last);
    return replacing.delete(place) || lastWritten || written;
  }

  function freezeIfMuch(): void {
    if (writing || (places.size() < most && lasts.size() < most && next - from < most / 4)) return;
    places.freeze();
    lasts.freeze();
    replacing.clear();
    writing = true;
    from = next;
  }

  /** What was in memory when the process ended. */
  for (let at = from; at < next; at++) block(at).forEach((end, i) => { gather(end, placeOf(at, i)); });
  // One that it had replaced may still stand in a block that is kept for its neighbours; one that came later counts.
  for (const { value } of table.range(forgottenPrefix)) for (const end of decodeEnds(value)) {
    const place = end.value.readDoubleLE(0);
    if ((places.find(end.hash) ?? Number.POSITIVE_INFINITY) <= place) forget(end, place);
  }
  read = undefined;
  freezeIfMuch();

  return {
    find(key) {
      const hash = hashOfKey(key);
      const place = places.find(hash);
      if (place === undefined) return undefined;
      const end = block(Math.floor(place / endsABlock))[place % endsABlock];
      return end !== undefined && end.hash[0] === hash[0] && end.hash[1] === hash[1] ? end : undefined;
    },
    add(key, value, time, acceptedAt, delivered) {
      if (open === undefined || open.ends.length === endsABlock) blocks.set(next++, open = { ends: [], time: 0 });
      const end: KeptEnd = { hash: hashOfKey(key), last: delivered === undefined || delivered.object === ofItsOwn || acceptedAt <= 0 ? undefined : hashOfLast(delivered.subject, delivered.operation, delivered.object ?? ''), acceptedAt, firstOffset: delivered?.firstOffset ?? -1, time, value };
      gather(end, placeOf(next - 1, open.ends.length));
      open.ends.push(end);
      open.time = Math.max(open.time, time);
      added++;
    },
    lastDelivered(subject, operation, object) {
      const of = hashOfLast(subject, operation, object);
      const acceptedAt = lasts.find(of);
      return acceptedAt === undefined ? undefined : { acceptedAt, firstOffset: lasts.beside(of) - 1 };
    },
    prune(time, limit, forgotten) {
      let looked = 0;
      const journal: KeptEnd[] = [];
      for (const { key } of table.range(listPrefix)) {
        if (looked >= limit || key.slice(listPrefix.length) >= stamp(time)) break;
        const at = Number(key.slice(key.lastIndexOf('/') + 1));
        const ends = block(at);
        ends.forEach((end, i) => {
          // One that was replaced stands in a later block.
          if (places.find(end.hash) !== placeOf(at, i)) return;
          forgotten(end.value);
          if (!forget(end, placeOf(at, i))) return;
          const place = Buffer.allocUnsafe(8);
          place.writeDoubleLE(placeOf(at, i));
          journal.push({ ...end, value: place });
        });
        puts.push({ key, value: null }, { key: blockKey(at), value: null });
        looked += ends.length;
      }
      if (journal.length > 0) puts.push({ key: forgottenPrefix + String(next++), value: encodeEnds(journal) });
      added += looked;
      read = undefined;
      return looked;
    },
    rows() {
      const all = [...puts];
      if (added === 0 && all.length === 0) return all;
      for (const [at, { ends, time }] of blocks) all.push({ key: blockKey(at), value: encodeEnds(ends) }, { key: `${listPrefix}${stamp(time)}/${at}`, value: Buffer.from(String(ends.length)) });
      all.push({ key: nextKey, value: Buffer.from(String(next)) });
      if (writing) {
        const limit = Math.ceil(added * rowsAnEnd);
        over = places.step(limit, all);
        over = lasts.step(limit, all) && over;
        if (over) {
          all.push({ key: writtenKey, value: Buffer.from(String(from)) });
          for (const { key } of table.range(forgottenPrefix)) if (Number(key.slice(forgottenPrefix.length)) < from) all.push({ key, value: null });
        }
      }
      return all;
    },
    written() {
      blocks.clear();
      open = undefined;
      puts = [];
      added = 0;
      if (writing) {
        places.stepped();
        lasts.stepped();
        if (over) writing = over = false;
      }
      freezeIfMuch();
    },
  };
}

/** As it lies beside an accept time, where 0 is nothing. */
const besideOf = ({ firstOffset }: Pick<KeptEnd, 'firstOffset'>): number => firstOffset + 1;

/** Per end: both halves of its hash and of the other (0 = none), accept time, time, length of the value (4 bytes), the first offset where the length says so, the value. */
function encodeEnds(ends: readonly KeptEnd[]): Buffer {
  const out = Buffer.allocUnsafe(ends.reduce((sum, { firstOffset, value }) => sum + headBytes + (firstOffset < 0 ? 0 : 8) + value.length, 0));
  let at = 0;
  for (const { hash, last, acceptedAt, firstOffset, time, value } of ends) {
    at = out.writeDoubleLE(hash[0], at);
    at = out.writeDoubleLE(hash[1], at);
    at = out.writeDoubleLE(last?.[0] ?? 0, at);
    at = out.writeDoubleLE(last?.[1] ?? 0, at);
    at = out.writeDoubleLE(acceptedAt, at);
    at = out.writeDoubleLE(time, at);
    at = out.writeUInt32LE((firstOffset < 0 ? 0 : hasFirst) + value.length, at);
    if (firstOffset >= 0) at = out.writeDoubleLE(firstOffset, at);
    out.set(value, at);
    at += value.length;
  }
  return out;
}

function decodeEnds(bytes: Buffer): KeptEnd[] {
  const ends: KeptEnd[] = [];
  for (let at = 0; at < bytes.length;) {
    const double = (i: number): number => bytes.readDoubleLE(at + 8 * i);
    const length = bytes.readUInt32LE(at + headBytes - 4);
    const isKnown = length >= hasFirst;
    const begin = at + headBytes + (isKnown ? 8 : 0);
    const end = begin + length - (isKnown ? hasFirst : 0);
    const last: Hash = [double(2), double(3)];
    ends.push({ hash: [double(0), double(1)], last: last[0] === 0 && last[1] === 0 ? undefined : last, acceptedAt: double(4), firstOffset: isKnown ? bytes.readDoubleLE(begin - 8) : -1, time: double(5), value: bytes.subarray(begin, end) });
    at = end;
  }
  return ends;
}
