/** Until where weir.identity must have been read to know the links of somebody. Knows nothing of what was read before `begin`. */
export interface LinkAges {
  /** What counts as read long ago: these are its next offsets per partition. Nothing is known before. */
  begin(positions: readonly number[]): void;
  /** Of one batch (keys `a~b`), behind which the partition stands at `nextOffset`. One that says what is `known` says nothing new: who has read as far as before it has the link. */
  note(partition: number, nextOffset: number, records: Iterable<{ readonly key: Buffer | null; readonly value: Buffer | null }>, known: (a: string, b: string) => boolean): void;
  /**
   * Next offsets per partition behind every record that newly linked, or unlinked, one of these identifiers and was noted; at most some
   * records too far, never too near. Undefined: nothing is known.
   */
  needed(ids: readonly string[]): readonly number[] | undefined;
}

/** Slots by hash: where two identifiers share one, the older of them counts as linked as lately as the newer. 1 MB. */
const slots = 2 ** 17;
/** Records of one generation, which share their positions. */
const perGeneration = 32;
/** Generations that are told apart; what is older counts as the oldest of them. */
const generations = 1024;
/** Of an identifier only so many of its last characters are hashed: they are those of an HMAC. */
const hashed = 12;

/** FNV-1a. */
function slotOf(id: string, begin: number, end: number): number {
  let hash = 0x811c9dc5;
  for (let i = Math.max(begin, end - hashed); i < end; i++) hash = Math.imul(hash ^ id.charCodeAt(i), 0x01000193);
  return (hash ^ (hash >>> 15)) & (slots - 1);
}

/**
 * In which generation an identifier was named last, by hash, and where each partition stood at the end of that. So an instance
 * that has read as far as there knows every link of it, however far behind the end it is.
 */
export function createLinkAges(): LinkAges {
  const last = new Float64Array(slots);
  /** Positions at the end of a generation, at its number modulo `generations`. */
  const ends: number[][] = [];
  let generation = 0;
  /** Before it nothing is told apart: what was read then may be from a cache, and was not noted. */
  let first = Infinity;
  let noted = 0;
  const current = (): number[] => ends[generation % generations] ??= [];
  function next(): number[] {
    const positions = current().slice();
    noted = 0;
    generation++;
    return ends[generation % generations] = positions;
  }

  return {
    begin(positions) {
      const known = next();
      for (let p = 0; p < positions.length; p++) known[p] = Math.max(known[p] ?? 0, positions[p] ?? 0);
      first = generation;
      next();
    },
    note(partition, nextOffset, records, known) {
      if (generation < first) return;
      for (const { key, value } of records) {
        const text = key?.toString() ?? '';
        const cut = text.indexOf('~');
        if (cut < 0 || (value !== null && known(text.slice(0, cut), text.slice(cut + 1)))) continue;
        if (noted === perGeneration) next();
        noted++;
        // Before its records are taken for read by anybody who asks: the end of the batch is the end of the generation.
        last[slotOf(text, 0, cut)] = generation;
        last[slotOf(text, cut + 1, text.length)] = generation;
        current()[partition] = nextOffset;
      }
    },
    needed(ids) {
      if (generation < first) return undefined;
      let newest = Math.max(first, generation - generations + 1);
      for (const id of ids) newest = Math.max(newest, last[slotOf(id, 0, id.length)]!);
      return ends[newest % generations]!.slice();
    },
  };
}
