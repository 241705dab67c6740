import type { RecordBatch } from '@weir/log';
import { closure, maxLinked } from '@weir/policy';
import { createRecent, type Put, type Table } from '@weir/state';

/** weir.identity in the local table: per identifier the identifiers it was seen with. */
export interface LinkIndex {
  puts(batch: RecordBatch): readonly Put[];
  /** One more than a closure may have, where there are too many. */
  links(id: string): readonly string[];
}

type Links = readonly string[] | 'too-many';
const none: readonly string[] = Object.freeze([]);
/** Of a generation: what comes in a burst. A read from the table takes about 2 µs, and a cache of all who come again takes memory that the whole process has too little of. */
const cached = 2000;
const wide = '*';
const tooMany: readonly string[] = Object.freeze(Array.from({ length: maxLinked + 1 }, (_, i) => `*${i}`));

/**
 * Only keys are looked at (`a~b`; a tombstone unlinks). An identifier with more links than a decision may follow is
 * marked for good: it closes every decision that reaches it, and unlinking does not make it narrow again.
 */
export function createLinkIndex(table: Table): LinkIndex {
  const cache = createRecent<Links>(cached);

  function linksOf(id: string, pending?: ReadonlyMap<string, Links>): Links {
    const known = pending?.get(id) ?? cache.get(id);
    if (known !== undefined) return known;
    const bytes = table.get(`l|${id}`);
    // Not kept: the table tells it nearly without a read.
    if (bytes === undefined) return none;
    const text = bytes.toString();
    const links: Links = text === wide ? 'too-many' : text.split('~');
    cache.set(id, links);
    return links;
  }

  function link(a: string, b: string, linked: boolean, pending: Map<string, Links>): void {
    const links = linksOf(a, pending);
    if (links === 'too-many' || links.includes(b) === linked) return;
    if (!linked) pending.set(a, links.filter((id) => id !== b));
    else pending.set(a, links.length >= maxLinked ? 'too-many' : [...links, b]);
  }

  return {
    puts(batch) {
      const pending = new Map<string, Links>();
      for (const record of batch.records) {
        const [a, b, more] = (record.key?.toString() ?? '').split('~');
        if (a === undefined || a === '' || b === undefined || b === '' || more !== undefined || a === b) continue;
        link(a, b, record.value !== null, pending);
        link(b, a, record.value !== null, pending);
      }
      const puts: Put[] = [];
      for (const [id, links] of pending) {
        cache.delete(id);
        puts.push({ key: `l|${id}`, value: links === 'too-many' ? Buffer.from(wide) : links.length === 0 ? null : Buffer.from(links.join('~')) });
      }
      return puts;
    },
    links(id) {
      const links = linksOf(id);
      return links === 'too-many' ? tooMany : links;
    },
  };
}

/** Of a record; of more it is dearer to look for each in all than to make a set. */
const fewIds = 8;

/** Links that lead to nobody else: those of most records are the ones that it made itself. */
function within(links: readonly string[], ids: readonly string[]): boolean {
  for (let i = 0; i < links.length; i++) if (!ids.includes(links[i]!)) return false;
  return true;
}

/** The identifiers and all that are linked with them; undefined = too many to decide on. @param links neighbours of an identifier */
export function linkedWith(ids: readonly string[], links: (id: string) => readonly string[]): readonly string[] | undefined {
  return ids.length <= fewIds && ids.every((id) => within(links(id), ids)) ? ids : closure(ids, links);
}
