import type { RecordBatch } from '@weir/log';
import { closure, maxLinked } from '@weir/policy';
import { createRecent, type Put, type Table } from '@weir/state';
import { regionOwner, type KnownRegion } from './regions.ts';

/** weir.identity in the local table: per identifier the identifiers it was seen with. */
export interface LinkIndex {
  puts(batch: RecordBatch): readonly Put[];
  /** One more than a closure may have, where there are too many. */
  links(id: string): readonly string[];
  /** The identifiers and all that are linked with them; undefined = too many to decide on. */
  linked(ids: readonly string[]): readonly string[] | undefined;
  /** Where a record of this identifier last said that the person is. */
  region(id: string): KnownRegion | undefined;
  /** The same for each of the identifiers that has one. Of those that `linked` gave just now no other row is read. */
  regions(ids: readonly string[], tell: (id: string, region: KnownRegion) => void): void;
}

type Links = readonly string[] | 'too-many';
const none: readonly string[] = Object.freeze([]);
/** Of a generation: what comes in a burst. A read from the table takes about 2 µs, and a cache of all who come again takes memory that the whole process has too little of. */
const cached = 2000;
const tooMany: readonly string[] = Object.freeze(Array.from({ length: maxLinked + 1 }, (_, i) => `*${i}`));

/**
 * A row of the table (`l|<name>`): links of identifiers that were linked with each other, so that one read has those of a
 * person. The row of an identifier that lies in another's row says which. Where something lies says nothing about who is
 * linked with whom: each identifier has its own list, and what is in it may lie anywhere.
 */
interface Bundle {
  readonly links: Map<string, Links>;
  /** Of identifiers of the row; it says nothing about who is linked. */
  readonly regions: Map<string, KnownRegion>;
}

/** Two rows are laid together up to this many identifiers and links: a person with eight identifiers has 22. */
const maxWeight = 32;
const elsewhere = '>';
const rowOf = (name: string): string => `l|${name}`;
/** Of the name of a row: who knows a person asks for the strongest identifier first. Only a matter of a read more. */
const strongest = ['userId:', 'email:', 'phone:'];
function rank(id: string): number {
  const found = strongest.findIndex((type) => id.startsWith(type));
  return found < 0 ? strongest.length : found;
}

const tilde = '~'.charCodeAt(0);
const closedMark = '=';
const regionsMark = '#';

/**
 * `~a~b~c~~b~a~~c~a`: an identifier and its links, of each; an identifier without any has too many. None is empty, and none
 * has a `~` or `#`. Behind them stands where their records said that they are (`#a~DE~<ms, base 36>~c~AT~…`). Where no link leads out of the row, all its identifiers stand before that (`=a~b~c~~a~b~c~~…`): who knows a
 * person by all of them looks no further.
 */
function encode({ links, regions }: Bundle): string {
  return encodeLinks(links) + (regions.size === 0 ? '' : regionsMark + Array.from(regions, ([id, { code, at }]) => `${id}~${code}~${at.toString(36)}`).join('~'));
}

function encodeLinks(bundle: Bundle['links']): string {
  if (bundle.size === 0) return '';
  const entries = `~${Array.from(bundle, ([id, links]) => (links === 'too-many' ? id : `${id}~${links.join('~')}`)).join('~~')}`;
  for (const links of bundle.values()) if (links === 'too-many' || !links.every((id) => bundle.has(id))) return entries;
  return `${closedMark}${[...bundle.keys()].join('~')}~${entries}`;
}

/** Tells each region of a row. */
function decodeRegions(text: string, tell: (id: string, region: KnownRegion) => void): void {
  let at = text.indexOf(regionsMark) + 1;
  while (at > 0 && at < text.length) {
    const id = text.indexOf('~', at);
    const code = id < 0 ? -1 : text.indexOf('~', id + 1);
    if (code < 0) return;
    const next = text.indexOf('~', code + 1);
    const end = next < 0 ? text.length : next;
    tell(text.slice(at, id), { code: text.slice(id + 1, code), at: parseInt(text.slice(code + 1, end), 36) });
    at = end + 1;
  }
}

/** Tells each identifier of a row, in its order. */
function decode(text: string, tell: (id: string, links: Links) => void): void {
  const mark = text.indexOf(regionsMark);
  if (mark === 0) return;
  const parts = text.slice(text.startsWith(closedMark) ? text.indexOf('~~') + 2 : 1, mark < 0 ? text.length : mark).split('~');
  for (let begin = 0; begin < parts.length;) {
    const found = parts.indexOf('', begin);
    const end = found < 0 ? parts.length : found;
    tell(parts[begin]!, end === begin + 1 ? 'too-many' : parts.slice(begin + 1, end));
    begin = end + 1;
  }
}

/** Whether these are the identifiers of a row that no link leads out of. Looks at the text: of most records it is all that is asked. */
function isAllOf(text: string, ids: readonly string[]): boolean {
  if (!text.startsWith(closedMark)) return false;
  let count = 0;
  let at = 1;
  do {
    const end = text.indexOf('~', at);
    let i = 0;
    while (i < ids.length && (ids[i]!.length !== end - at || !text.startsWith(ids[i]!, at))) i++;
    if (i === ids.length) return false;
    count++;
    at = end + 1;
  } while (text.charCodeAt(at) !== tilde);
  // Those of a row are different, so that as many of them are all.
  return count === ids.length;
}

/** Identifiers and links of a row. */
function weightOf({ links: bundle }: Bundle): number {
  let weight = bundle.size;
  for (const links of bundle.values()) if (links !== 'too-many') weight += links.length;
  return weight;
}

/**
 * Of links only keys are looked at (`a~b`; a tombstone unlinks). An identifier with more links than a decision may follow is
 * marked for good: it closes every decision that reaches it, and unlinking does not make it narrow again.
 *
 * @param read what a record says about where a person is; undefined = regions are not kept
 */
export function createLinkIndex(table: Table, read?: (value: Buffer) => KnownRegion): LinkIndex {
  /** By identifier the row in which it lies, or would. */
  let rows = createRecent<string>(cached);
  /** Who was asked about last, and the row that no link leads out of and has nobody else: where they are is asked next. */
  let last: { readonly ids: readonly string[]; readonly row: string } | undefined;
  const textOf = (name: string): string | undefined => table.text(rowOf(name));

  /** '' = there is none. */
  function rowWith(id: string): string {
    const known = rows.get(id);
    if (known !== undefined) return known;
    let text = textOf(id) ?? '';
    if (text.startsWith(elsewhere)) text = textOf(text.slice(elsewhere.length)) ?? '';
    // Not kept where there is none: the table tells it nearly without a read.
    if (text !== '') rows.set(id, text);
    return text;
  }

  function links(id: string): readonly string[] {
    const text = rowWith(id);
    let found: Links = none;
    if (text !== '') decode(text, (of, its) => { if (of === id) found = its; });
    return (found as Links) === 'too-many' ? tooMany : found;
  }

  return {
    puts(batch) {
      const changes = createChanges(textOf);
      for (const record of batch.records) {
        const key = record.key?.toString() ?? '';
        if (key.includes(regionsMark)) continue;
        const owner = regionOwner(key);
        if (owner !== undefined) {
          if (read !== undefined && !key.includes('\0')) changes.region(owner, record.value === null ? undefined : read(record.value));
          continue;
        }
        const [a, b, more] = key.split('~');
        // No identifier has a zero character, and no text of the table.
        if (a === undefined || a === '' || b === undefined || b === '' || more !== undefined || a === b || key.includes('\0')) continue;
        changes.link(a, b, record.value !== null);
      }
      const puts = changes.puts();
      // All of them: a row is remembered under whoever was asked about.
      if (puts.length > 0) {
        rows = createRecent(cached);
        last = undefined;
      }
      return puts;
    },
    links,
    linked(ids) {
      const row = ids.length === 0 ? '' : rowWith(ids[0]!);
      if (!isAllOf(row, ids)) return linkedWith(ids, links);
      last = { ids, row };
      return ids;
    },
    region(id) {
      let found: KnownRegion | undefined;
      decodeRegions(rowWith(id), (of, region) => { if (of === id) found = region; });
      return found;
    },
    regions(ids, tell) {
      if (ids.length === 0) return;
      const known = last?.ids === ids ? last.row : undefined;
      const first = known ?? rowWith(ids[0]!);
      const whole = known !== undefined || isAllOf(first, ids);
      decodeRegions(first, (id, region) => { if (whole ? ids.includes(id) : id === ids[0]) tell(id, region); });
      if (!whole) for (let i = 1; i < ids.length; i++) decodeRegions(rowWith(ids[i]!), (id, region) => { if (id === ids[i]) tell(id, region); });
    },
  };
}

interface Changes {
  /** Links two identifiers, or takes their link away. */
  link(a: string, b: string, linked: boolean): void;
  /** Says where the person is by this identifier, or that nothing is known. */
  region(id: string, region: KnownRegion | undefined): void;
  /** What makes it so in the table: one put of a key. */
  puts(): readonly Put[];
}

/** What a batch does to the rows. @param textOf the row of this name as it stands in the table */
function createChanges(textOf: (name: string) => string | undefined): Changes {
  const bundles = new Map<string, Bundle>();
  /** By identifier: the name of the row that it lies in, or would. */
  const homes = new Map<string, string>();
  /** Names of rows to be written, and identifiers that lie in another row than before. */
  const [dirty, moved] = [new Set<string>(), new Set<string>()];

  function bundleAt(name: string, text = textOf(name)): Bundle {
    let bundle = bundles.get(name);
    if (bundle === undefined) {
      bundles.set(name, bundle = { links: new Map(), regions: new Map() });
      if (text !== undefined && !text.startsWith(elsewhere)) {
        decode(text, (id, links) => {
          bundle!.links.set(id, links);
          if (!homes.has(id)) homes.set(id, name);
        });
        decodeRegions(text, (id, region) => bundle!.regions.set(id, region));
      }
    }
    return bundle;
  }

  function homeOf(id: string): string {
    const known = homes.get(id);
    if (known !== undefined) return known;
    const text = textOf(id);
    const home = text?.startsWith(elsewhere) === true ? text.slice(elsewhere.length) : id;
    homes.set(id, home);
    bundleAt(home, home === id ? text : undefined);
    return home;
  }

  /** Gives whether the identifier has few enough links to lie with others. */
  function change(a: string, b: string, linked: boolean): boolean {
    const home = homeOf(a);
    const bundle = bundleAt(home);
    const links = bundle.links.get(a) ?? none;
    if (links === 'too-many') return false;
    if (links.includes(b) === linked) return true;
    const next: Links = !linked ? links.filter((id) => id !== b) : links.length >= maxLinked ? 'too-many' : [...links, b];
    dirty.add(home);
    if (next.length > 0) bundle.links.set(a, next);
    else {
      bundle.links.delete(a);
      homes.set(a, a);
      if (home !== a) {
        moved.add(a);
        carry(a, bundle, a);
      }
    }
    return next !== 'too-many';
  }

  /** Takes what is known of where somebody is along into the row that it lies in now. */
  function carry(id: string, from: Bundle, into: string): void {
    const region = from.regions.get(id);
    if (region === undefined) return;
    from.regions.delete(id);
    bundleAt(into).regions.set(id, region);
    dirty.add(into);
  }

  /** Lays the rows of two together. */
  function together(a: string, b: string): void {
    const [one, other] = [homeOf(a), homeOf(b)];
    if (one === other) return;
    const [weight, more] = [weightOf(bundleAt(one)), weightOf(bundleAt(other))];
    if (weight + more > maxWeight) return;
    const [into, from] = rank(one) < rank(other) || (rank(one) === rank(other) && weight >= more) ? [one, other] : [other, one];
    const [to, gone] = [bundleAt(into), bundleAt(from)];
    for (const [id, links] of gone.links) {
      to.links.set(id, links);
      homes.set(id, into);
      if (id !== into) moved.add(id);
      carry(id, gone, into);
    }
    gone.links.clear();
    dirty.add(into).add(from);
  }

  return {
    link(a, b, linked) {
      const narrow = [change(a, b, linked), change(b, a, linked)];
      if (linked && narrow[0] === true && narrow[1] === true) together(a, b);
    },
    region(id, region) {
      const home = homeOf(id);
      const { regions } = bundleAt(home);
      if (region !== undefined) regions.set(id, region);
      else if (!regions.delete(id)) return;
      dirty.add(home);
    },
    puts() {
      const rows = new Map<string, Buffer | null>();
      for (const id of moved) {
        const home = homes.get(id)!;
        if (home === id) rows.set(id, null);
        else rows.set(id, Buffer.from(elsewhere + home));
      }
      for (const name of dirty) {
        const bundle = bundles.get(name)!;
        if (bundle.links.size > 0 || bundle.regions.size > 0) rows.set(name, Buffer.from(encode(bundle)));
        else if ((homes.get(name) ?? name) === name) rows.set(name, null);
        else rows.set(name, Buffer.from(elsewhere + homes.get(name)!));
      }
      return Array.from(rows, ([name, value]): Put => ({ key: rowOf(name), value }));
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

/** Identifiers that belong together by the links of trusted sources. */
export interface Trusted {
  /** Undefined = too many for one person. */
  readonly ids: readonly string[] | undefined;
  /** What only other sources have linked with one of these, at most 64. */
  readonly leftOut: readonly string[];
}

/** As `linkedWith`, by links alone of which somebody trusted said that they are. */
export function trustedWith(ids: readonly string[], links: (id: string) => readonly string[], said: (a: string, b: string) => boolean): Trusted {
  const others = new Set<string>();
  const found = closure(ids, (id) => {
    const all = links(id);
    // Of one with too many nobody knows whom it is linked with.
    if (all.length > maxLinked) return all;
    return all.filter((other) => {
      const follows = said(id, other);
      if (!follows) others.add(other);
      return follows;
    });
  });
  return { ids: found, leftOut: found === undefined ? none : [...others].filter((id) => !found.includes(id)).slice(0, maxLinked) };
}
