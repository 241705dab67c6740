import { addedTo, createKnownRegions, movedTo, personRegion, regionKey, type KnownRegion } from '@weir/consent';
import type { OutRecord } from '@weir/log';
import { saidRegion } from '@weir/policy';
import type { Heads } from './heads.ts';
import type { PolicyPorts } from './ports.ts';

/** Written and not read back. */
interface Pending {
  readonly region: KnownRegion;
  readonly record: OutRecord;
  /** On its partition of weir.identity; -1 = not acknowledged. */
  offset: number;
}

/** What the stage knows and keeps of where people are. */
export interface Regions {
  /** The records for weir.identity by which the person of this Profile becomes known there; mostly none. @param moves whether its source may move people */
  said(record: Readonly<Record<string, unknown>>, heads: Heads, moves: boolean): readonly OutRecord[];
  /** As `Subject.regions` needs it. */
  of(linked: readonly string[] | undefined, ids: readonly string[], own: boolean): readonly string[];
  /** These records of `said` are on weir.identity. */
  written(records: readonly OutRecord[], offsets: readonly number[]): void;
  /** The tables have moved on. */
  advanced(): void;
  /** Too much is not read back: decide nothing before `advanced`. */
  full(): boolean;
}

const maxPending = 20_000;
const none: readonly OutRecord[] = [];

/**
 * Where a Profile says that its person is goes onto weir.identity when it is another region than the known one, under the
 * strongest identifier, by which all linked ones find it, and under others of the record that are known to be elsewhere. It
 * holds from the next record on, before it is read back. What was accepted before the known one changes nothing. What a source
 * says that may not move people is added under the strongest identifier: of linked ones all that is known holds.
 */
export function createRegions({ appender, tables, context: { serde, topics, keys } }: Pick<PolicyPorts, 'appender' | 'tables'> & { readonly context: Pick<PolicyPorts['context'], 'serde' | 'topics' | 'keys'> }, max = maxPending): Regions {
  const pending = new Map<string, Pending>();
  const known = createKnownRegions({ tables, keys, pending });

  function take(id: string, { code, at }: KnownRegion, source: string): OutRecord {
    const key = Buffer.from(regionKey(id));
    const record = { partition: appender.partitionFor(topics.identity, key), key, value: serde.encode(personRegion, { id, region: code, source, at }) };
    pending.set(id, { region: { code, at }, record, offset: -1 });
    return record;
  }

  function advanced(): void {
    for (const [id, { record, offset }] of pending) if (offset >= 0 && tables.identityPosition(record.partition) > offset) pending.delete(id);
  }

  return {
    of: known.of,
    advanced,
    full: () => pending.size >= max,
    said(record, { ids, acceptedAt, source }, moves) {
      const code = saidRegion(record);
      if (code === undefined || ids.length === 0) return none;
      let first: KnownRegion | undefined;
      if (!moves) {
        known.each(ids.slice(0, 1), (_id, region) => { first = region; });
        const next = addedTo(first, code, acceptedAt);
        return next === undefined ? none : [take(ids[0]!, next, source)];
      }
      let stale: string[] | undefined;
      known.each(ids, (id, region) => {
        if (id === ids[0]) first = region;
        if (movedTo(region, code, acceptedAt) !== undefined) (stale ??= []).push(id);
      });
      if (first !== undefined && stale === undefined) return none;
      const found = first === undefined ? [ids[0]!, ...(stale ?? [])] : stale!;
      return found.map((id) => take(id, { code, at: acceptedAt }, source));
    },
    written(records, offsets) {
      records.forEach((record, i) => {
        const id = record.key!.toString().slice(regionKey('').length);
        const entry = pending.get(id);
        if (entry?.record === record) entry.offset = offsets[i]!;
      });
      advanced();
    },
  };
}
