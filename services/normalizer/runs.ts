import type { Put, Table } from '@weir/state';
import { Entries, entryBytes } from './entries.ts';
import type { First } from './seen.ts';
import { addTo, blockEntries, blockOf, filterHash, filterWords, pad, partEntries, partOf, readBlock, readSummary, summaryOf, type Part } from './part.ts';

/**
 * Entries of event ids on disk: sorted runs of blocks, per topic and generation. Runs are made by writers, and several of one
 * level are merged into one of the next, a slice at a time; a run is looked at when it is whole. Everything that changes goes
 * into the `puts` of the caller, who writes them in one transaction: when that fails, this object must not be used again.
 *
 * Rows: `<topic>/<generation>/<run>/<part>/<block>` entries, `#s/<topic>/<generation>/<run>/<part>` what tells of a part, and
 * `#gone/<topic>/<generation>/<run>` while a run is not whole, or not needed any more: a start deletes those.
 */
export interface Runs {
  /** Of the newest run that has it. */
  find(topic: string, generation: number, high: number, low: number): First | undefined;
  has(topic: string, generation: number): boolean;
  /** Generations of which there are some, as a start finds them. */
  kept(): Iterable<readonly [topic: string, generations: readonly number[]]>;
  /** A new run of the lowest level, of at most so many entries. */
  writer(topic: string, generation: number, entries: number): RunWriter;
  /** Merges of the topic, up to `entries` of each, and removal of up to `rows` that are not needed. */
  step(topic: string, entries: number, rows: number, puts: Put[]): void;
  /** Forgets generations before this one. */
  forget(topic: string, before: number, puts: Put[]): void;
}

export interface RunWriter {
  /** Entries come in order. */
  add(entries: Entries, entry: number, puts: Put[]): void;
  /** The slice ends: the run is not whole. */
  rest(puts: Put[]): void;
  /** It is: the next look sees it. */
  finish(puts: Put[]): void;
}

interface Run {
  /** `<topic>/<generation>/<run>/`. */
  readonly name: string;
  readonly level: number;
  readonly parts: Part[];
}

interface Merge {
  readonly level: number;
  readonly inputs: readonly Run[];
  /** undefined = nothing is read yet: the last of the inputs may be in the transaction that is being made. */
  cursors: readonly Cursor[] | undefined;
  readonly output: Writer;
}

interface Group {
  readonly name: string;
  /** Oldest first. */
  runs: Run[];
  /** At most one of each level, the lowest first. */
  merges: Merge[];
}

/** Runs of a level that become one of the next. */
const fanOut = 8;

const goneKey = (name: string): string => `#gone/${name}`;
const summaryKey = (name: string): string => `#s/${name}`;
const blockKey = (name: string, part: number, block: number): string => `${name}${pad(part, 4)}/${pad(block, 2)}`;
const filterOf = ({ parts }: Run): number => parts.reduce((sum, { filter }) => sum + (filter?.byteLength ?? 0), 0);

class Writer {
  readonly run: Run;
  #left: number;
  #marked = false;
  #block: Entries | undefined;
  #used = 0;
  #blocks = 0;
  #entries = 0;
  #firsts = new Float64Array(0);
  #filter = new Uint32Array(0);

  constructor(run: Run, entries: number) {
    this.run = run;
    this.#left = entries;
  }
  add(entries: Entries, entry: number, puts: Put[]): void {
    if (this.#block === undefined || this.#used === blockEntries) this.#next(puts);
    this.#block!.copy(this.#used++, entries, entry);
    this.#entries++;
    addTo(this.#filter, entries.high(entry), entries.low(entry));
    if (this.#used === 1) {
      this.#firsts[2 * this.#blocks] = entries.high(entry);
      this.#firsts[2 * this.#blocks + 1] = entries.low(entry);
    }
  }
  rest(puts: Put[]): void {
    if (this.#marked) return;
    this.#marked = true;
    puts.push({ key: goneKey(this.run.name), value: Buffer.alloc(0) });
  }
  finish(puts: Put[]): void {
    this.#endPart(puts);
    if (this.#marked) puts.push({ key: goneKey(this.run.name), value: null });
  }
  #next(puts: Put[]): void {
    this.#flush(puts);
    if (this.#entries >= partEntries) this.#endPart(puts);
    if (this.#entries === 0) {
      const most = Math.min(partEntries, Math.max(1, this.#left));
      this.#firsts = new Float64Array(2 * Math.ceil(most / blockEntries) + 2);
      this.#filter = new Uint32Array(filterWords(most, this.run.level));
    }
    this.#block = Entries.room(blockEntries);
  }
  #flush(puts: Put[]): void {
    if (this.#block === undefined || this.#used === 0) return;
    puts.push({ key: blockKey(this.run.name, this.run.parts.length, this.#blocks++), value: this.#block.bytes.subarray(0, this.#used * entryBytes) });
    this.#block = undefined;
    this.#used = 0;
  }
  #endPart(puts: Put[]): void {
    this.#flush(puts);
    if (this.#entries === 0) return;
    const part = { blocks: this.#blocks, entries: this.#entries, firsts: this.#firsts.slice(0, 2 * this.#blocks), filter: this.#filter };
    puts.push({ key: summaryKey(this.run.name) + pad(this.run.parts.length, 4), value: summaryOf(part, this.run.level) });
    this.run.parts.push(part);
    this.#left -= this.#entries;
    this.#entries = this.#blocks = 0;
  }
}

/** The entries of a run, one after the other. */
class Cursor {
  readonly #table: Table;
  readonly #run: Run;
  #part = 0;
  #block = -1;
  #count = 0;
  entries: Entries = Entries.room(0);
  entry = 0;
  /** Infinity = there are no more. */
  high = 0;
  low = 0;

  constructor(table: Table, run: Run) {
    this.#table = table;
    this.#run = run;
    this.next();
  }
  next(): void {
    if (++this.entry >= this.#count && !this.#load()) {
      this.high = Infinity;
      return;
    }
    this.high = this.entries.high(this.entry);
    this.low = this.entries.low(this.entry);
  }
  #load(): boolean {
    const { parts, name } = this.#run;
    if (++this.#block >= parts[this.#part]!.blocks) {
      this.#block = 0;
      if (++this.#part >= parts.length) return false;
    }
    const key = blockKey(name, this.#part, this.#block);
    this.entries = readBlock(this.#table.get(key), key);
    this.#count = this.entries.capacity;
    this.entry = 0;
    return true;
  }
}

/** @param maxFilterBytes of filters in memory; beyond it the largest runs are asked without one */
export function createRuns(table: Table, maxFilterBytes: number): Runs {
  const topics = new Map<string, Map<number, Group>>();
  /** Names of runs whose rows are to be removed. */
  const gone: string[] = [];
  let nextRun = 0;

  function groupOf(topic: string, generation: number): Group {
    let generations = topics.get(topic);
    if (generations === undefined) topics.set(topic, generations = new Map());
    let group = generations.get(generation);
    if (group === undefined) generations.set(generation, group = { name: `${topic}/${generation}/`, runs: [], merges: [] });
    return group;
  }

  /** Those that are being made among them. */
  function* allRuns(): Generator<Run> {
    for (const generations of topics.values()) {
      for (const { runs, merges } of generations.values()) {
        yield* runs;
        for (const { output } of merges) yield output.run;
      }
    }
  }

  /** The largest go on without a filter when there is too much of them: those that are asked as often are many more. */
  function boundFilters(): void {
    const filters = [...allRuns()].map((run) => ({ run, bytes: filterOf(run) })).sort((a, b) => b.bytes - a.bytes);
    let total = filters.reduce((sum, { bytes }) => sum + bytes, 0);
    for (const { run, bytes } of filters) {
      if (total <= maxFilterBytes) return;
      for (const part of run.parts) part.filter = undefined;
      total -= bytes;
    }
  }

  const newRun = ({ name }: Group, level: number): Run => ({ name: `${name}${pad(nextRun++, 9)}/`, level, parts: [] });

  function drop(run: Run, puts: Put[]): void {
    puts.push({ key: goneKey(run.name), value: Buffer.alloc(0) });
    gone.push(run.name);
  }

  /** A merge of each level that has enough runs which are in none. */
  function plan(group: Group): void {
    const byLevel = new Map<number, Run[]>();
    for (const run of group.runs) byLevel.set(run.level, [...byLevel.get(run.level) ?? [], run]);
    for (const [level, runs] of byLevel) {
      if (runs.length < fanOut || group.merges.some((merge) => merge.level === level)) continue;
      const inputs = runs.slice(0, fanOut);
      const entries = inputs.reduce((sum, { parts }) => sum + parts.reduce((n, part) => n + part.entries, 0), 0);
      group.merges.push({ level, inputs, cursors: undefined, output: new Writer(newRun(group, level + 1), entries) });
    }
    group.merges.sort((a, b) => a.level - b.level);
  }

  /** True: it is done. */
  function mergeSome(merge: Merge, entries: number, puts: Put[]): boolean {
    const { output } = merge;
    const cursors = merge.cursors ??= merge.inputs.map((run) => new Cursor(table, run));
    for (let n = 0; n < entries; n++) {
      let best = cursors[0]!;
      for (let i = 1; i < cursors.length; i++) {
        const cursor = cursors[i]!;
        if (cursor.high > best.high || (cursor.high === best.high && cursor.low > best.low)) continue;
        // The same place: the newer run says.
        if (cursor.high === best.high && cursor.low === best.low && best.high !== Infinity) best.next();
        best = cursor;
      }
      if (best.high === Infinity) return true;
      output.add(best.entries, best.entry, puts);
      best.next();
    }
    return false;
  }

  function advance(group: Group, entries: number, puts: Put[]): void {
    for (const merge of [...group.merges]) {
      const before = merge.output.run.parts.length;
      if (!mergeSome(merge, entries, puts)) {
        merge.output.rest(puts);
        if (merge.output.run.parts.length > before) boundFilters();
        continue;
      }
      merge.output.finish(puts);
      const at = group.runs.indexOf(merge.inputs[0]!);
      group.runs = group.runs.filter((run) => !merge.inputs.includes(run));
      // Between those that are older and those that are newer than its inputs.
      group.runs.splice(at, 0, merge.output.run);
      group.merges = group.merges.filter((other) => other !== merge);
      for (const run of merge.inputs) drop(run, puts);
      boundFilters();
      plan(group);
    }
  }

  function remove(limit: number, puts: Put[]): void {
    let left = limit;
    while (gone.length > 0) {
      const name = gone[0]!;
      for (const prefix of [name, summaryKey(name)]) {
        for (const { key } of table.range(prefix)) {
          if (left-- <= 0) return;
          puts.push({ key, value: null });
        }
      }
      puts.push({ key: goneKey(name), value: null });
      gone.shift();
    }
  }

  function load(): void {
    const marked = new Set<string>();
    const numbered = (name: string): number => Number.parseInt(name.split('/')[2]!, 36);
    for (const { key } of table.range('#gone/')) {
      const name = key.slice('#gone/'.length);
      marked.add(name);
      gone.push(name);
      nextRun = Math.max(nextRun, numbered(name) + 1);
    }
    const found = new Map<string, Run>();
    for (const { key, value } of table.range('#s/')) {
      const name = key.slice('#s/'.length, key.lastIndexOf('/') + 1);
      if (marked.has(name)) continue;
      const { part, level } = readSummary(value);
      let run = found.get(name);
      if (run === undefined) {
        found.set(name, run = { name, level, parts: [] });
        const [topic, generation] = name.split('/') as [string, string];
        groupOf(topic, Number(generation)).runs.push(run);
        nextRun = Math.max(nextRun, numbered(name) + 1);
      }
      run.parts.push(part);
    }
    boundFilters();
    for (const generations of topics.values()) {
      for (const group of generations.values()) {
        // A run of a higher level is older than all of a lower one, and of one level the order of their numbers is that of their age.
        group.runs.sort((a, b) => b.level - a.level || (a.name < b.name ? -1 : 1));
        plan(group);
      }
    }
  }

  load();
  return {
    find(topic, generation, high, low) {
      const runs = topics.get(topic)?.get(generation)?.runs;
      if (runs === undefined) return undefined;
      const hash = filterHash(high, low);
      for (let i = runs.length - 1; i >= 0; i--) {
        const { parts, name } = runs[i]!;
        // Most runs are one part.
        const number = parts.length === 1 ? 0 : partOf(parts, high, low);
        if (number < 0) continue;
        const block = blockOf(parts[number]!, high, low, hash);
        if (block < 0) continue;
        const key = blockKey(name, number, block);
        const entries = readBlock(table.get(key), key);
        const entry = entries.find(entries.capacity, high, low);
        if (entry >= 0) return entries.read(entry);
      }
      return undefined;
    },
    has: (topic, generation) => topics.get(topic)?.has(generation) === true,
    kept: () => [...topics].map(([topic, generations]) => [topic, [...generations.keys()]] as const),
    writer(topic, generation, entries) {
      const writer = new Writer(newRun(groupOf(topic, generation), 0), entries);
      return {
        add: (from, entry, puts) => { writer.add(from, entry, puts); },
        rest: (puts) => { writer.rest(puts); },
        finish(puts) {
          writer.finish(puts);
          // Its generation may have been forgotten meanwhile.
          const group = groupOf(topic, generation);
          group.runs.push(writer.run);
          boundFilters();
          plan(group);
        },
      };
    },
    step(topic, entries, rows, puts) {
      for (const group of topics.get(topic)?.values() ?? []) advance(group, entries, puts);
      remove(rows, puts);
    },
    forget(topic, before, puts) {
      const generations = topics.get(topic);
      for (const [generation, group] of generations ?? []) {
        if (generation >= before) continue;
        generations!.delete(generation);
        for (const run of group.runs) drop(run, puts);
        for (const { output } of group.merges) drop(output.run, puts);
      }
    },
  };
}
