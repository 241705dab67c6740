import type { RecordBatch } from '@weir/log';
import type { LinkValue } from '@weir/seal';
import type { Put, Table } from '@weir/state';

/** What a link keeps of the record that said so. */
export interface KeptValue {
  /** When that record was accepted, ms since the epoch. */
  readonly at: number;
  /** A weir.internal.LinkedIdentifiers; its key may be destroyed, or not read yet. */
  readonly sealed: Buffer;
}

/**
 * The sealed identifiers of links, one row for a link, in a table of their own: the one that decisions read has none of them.
 * What a batch says is in it before the links of the batch are in theirs, so its positions are never behind. Where they are,
 * it was lost, or the process died while it was filled, or another version went on with the links alone: both are read again.
 */
export interface LinkValues {
  /** Both tables are to be filled: what is put from now on is gathered. */
  loading(): void;
  /** They are filled. */
  loaded(): void;
  put(batch: RecordBatch): void;
  /** What is kept with the links of these, the newest first. @param links neighbours of an identifier */
  of(ids: readonly string[], links: (id: string) => readonly string[]): readonly KeptValue[];
  /** Whether somebody who is trusted said that the two are linked; nobody is where the sources of links are not kept. */
  saidBy(a: string, b: string, trusts: TrustsLink): boolean;
}

/**
 * Whether a link that this source said joins two identifiers for good, and not for consent only.
 * @param trusted whether the source was trusted when it said so, by the key: those of before that was told apart count as trusted
 */
export type TrustsLink = (source: string, trusted: boolean) => boolean;

const rowOf = (link: string): string => `v|${link}`;
/** By key on the topic: what a source said that is not trusted stands under the pair the other way round (docs/decisions/0038). */
const sourceRow = (key: string): string => `s|${key}`;
const atBytes = 8;
/** Reads for one person: of 64 identifiers that are all linked with each other there would be 2016. */
const maxRows = 256;
const named = /^(?:userId|email|phone):/;

/** @param links the table of links, which is cleared where this one is behind it @param read what a record of weir.identity says @param sourceOf which source said it; undefined = sources are not kept */
export function createLinkValues(table: Table, links: Table, read: (value: Buffer | null) => LinkValue | undefined, sourceOf?: (value: Buffer | null) => string | undefined): LinkValues {
  const positions = table.positions();
  if ([...links.positions()].some(([partition, next]) => (positions.get(partition) ?? -1) < next)) {
    table.clear();
    links.clear();
  }

  return {
    loading: () => table.loading(),
    loaded: () => table.loaded(),
    put(batch) {
      const puts = new Map<string, Put>();
      for (const record of batch.records) {
        const link = record.key?.toString() ?? '';
        const [a = '', b = '', more] = link.split('~');
        if (more !== undefined || a === '' || b === '' || link.includes('\0')) continue;
        if (sourceOf !== undefined) {
          const [row, source] = [sourceRow(link), sourceOf(record.value)];
          puts.set(row, { key: row, value: source === undefined ? null : Buffer.from(source) });
        }
        if (!named.test(a) && !named.test(b)) continue;
        const found = read(record.value);
        const key = rowOf(a < b ? link : `${b}~${a}`);
        puts.set(key, { key, value: found === undefined || found.sealed === null ? null : encode(found.at, found.sealed) });
      }
      table.putBatch([...puts.values()], new Map([[batch.partition, batch.nextOffset]]));
    },
    of(ids, linksOf) {
      const rows = new Set<string>();
      for (const id of ids) for (const other of linksOf(id)) if (rows.size < maxRows) rows.add(rowOf(id < other ? `${id}~${other}` : `${other}~${id}`));
      const found: KeptValue[] = [];
      for (const row of rows) {
        const value = table.get(row);
        if (value !== undefined) found.push({ at: value.readDoubleBE(0), sealed: value.subarray(atBytes) });
      }
      return found.sort((x, y) => y.at - x.at);
    },
    saidBy(a, b, trusts) {
      const [first, last] = a < b ? [a, b] : [b, a];
      return [`${first}~${last}`, `${last}~${first}`].some((key, i) => {
        const source = table.text(sourceRow(key));
        return source !== undefined && trusts(source, i === 0);
      });
    },
  };
}

function encode(at: number, sealed: Buffer): Buffer {
  const bytes = Buffer.allocUnsafe(atBytes + sealed.length);
  bytes.writeDoubleBE(at, 0);
  sealed.copy(bytes, atBytes);
  return bytes;
}
