import { createDeferredRows, hashOf, hexOf, type Hash, type Put, type Table } from '@weir/state';
import { hash } from 'node:crypto';

/** The record that a stage was read from. */
export interface Where {
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
}

/** A stage of an event, as it was told. */
export interface KeptStage extends Where {
  /** 0 to 9: its place on the way. */
  readonly order: number;
  readonly json: string;
}

/** What one transaction tells. */
export interface StageDraft {
  stage(eventId: string, order: number, json: string, where: Where): void;
  /** The number (an integer above 0, exact) that counts from now on under a hash. */
  number(of: Hash, value: number): void;
  /** The number that counts, those of this transaction among them. */
  find(of: Hash): number | undefined;
  /** Rows to be written in one transaction, before `written`. */
  rows(): Put[];
  /** They are in the table: from now on they are seen. */
  written(): void;
}

/**
 * Stages of events and numbers under hashes (the states of deliveries), in blocks in the order in which they came, and where
 * each is, which is written late and sorted (docs/decisions/0026). Rows:
 *   b/<number>   block: a line `<topic> <partition> <last offset>` of the records that it is of, then a line of each stage
 *                (`<event> <order> <offset> <JSON>`) and of each number (`=<hash> <number>`)
 *   i/<first 52 bits of the hash of an event><number of a block that has a stage of it>
 *   d/<hash>     the number under it
 * A transaction has its blocks, so what is not written of the rest is taken from them at the next start.
 */
export interface StageBlocks {
  /** Its `rows` and `written` are called in one turn. */
  begin(): StageDraft;
  /** Every stage of an event, in order; of one record that was told again the last. */
  of(eventId: string): KeptStage[];
  /** Whether anything is left of an event. */
  has(eventId: string): boolean;
  find(of: Hash): number | undefined;
  /** What becomes of a row of blocks or places whose records may be gone; undefined = it stays as it is. */
  swept(key: string, value: Buffer, isGone: (topic: string, partition: number, offset: number) => boolean): Put | undefined;
}

export const blockPrefix = 'b/';
export const placePrefix = 'i/';
export const numberPrefix = 'd/';
/** About 16 KiB: larger ones take longer to read. */
const stagesABlock = 64;
const charsABlock = 16_384;
/** Places that are gathered before they are written, 1.5 MB, and as many while they are: the more, the more neighbours a page has. Of blocks, which are read at a start, a quarter. */
const maxGathered = 65_536;
/** Rows written for each that comes, so that they are out before as many have come again. */
const rowsAnEntry = 1.25;
const nextKey = '#block';
const writtenKey = '#written';

const blockKey = (number: number): string => blockPrefix + String(number).padStart(12, '0');
const plain = /^[A-Za-z0-9_-]+$/;
/** Without a space or a line break, and not like a number's line. */
const nameOf = (eventId: string): string => (plain.test(eventId) ? eventId : JSON.stringify(eventId).replaceAll(' ', '\\u0020'));
const derived = /^evt_[0-9a-f]{32}$/;
/** Of the name; an event id is the beginning of a hash already. */
const highOf = (name: string): number => (derived.test(name) ? Number.parseInt(name.slice(4, 17), 16) : hashOf(hash('sha256', name, 'hex'))[0]);

interface Block {
  readonly topic: string;
  readonly partition: number;
  last: number;
  text: string;
  stages: number;
  readonly highs: number[];
  readonly numbers: (readonly [Hash, number])[];
}

/** The lines of a block behind its first. */
function* linesOf(text: string): Generator<string> {
  for (let at = text.indexOf('\n') + 1; at > 0 && at < text.length;) {
    const end = text.indexOf('\n', at);
    yield text.slice(at, end);
    at = end + 1;
  }
}

function headOf(text: string): Where {
  const [topic, partition, offset] = text.slice(0, text.indexOf('\n')).split(' ') as [string, string, string];
  return { topic, partition: Number(partition), offset: Number(offset) };
}

/** @param most places gathered; a test has it smaller */
export function createStageBlocks(table: Pick<Table, 'get' | 'has' | 'range'>, most = maxGathered): StageBlocks {
  const places = createDeferredRows(table as Table, placePrefix, 'newest');
  const numbers = createDeferredRows(table as Table, numberPrefix, 'newest');
  const stored = (key: string): number => Number(table.get(key)?.toString('latin1') ?? 1);
  let next = stored(nextKey);
  /** First block whose places are in what is gathered. */
  let from = stored(writtenKey);
  let writing = false;

  function freezeIfMuch(): void {
    if (writing || (places.size() < most && numbers.size() < most && next - from < most / 4)) return;
    places.freeze();
    numbers.freeze();
    writing = true;
    from = next;
  }

  /** What was in memory when the process ended. */
  for (let number = from; number < next; number++) {
    for (const line of linesOf(table.get(blockKey(number))?.toString('utf8') ?? '')) {
      const name = line.slice(0, line.indexOf(' '));
      if (name.startsWith('=')) numbers.put(hashOf(name.slice(1)), Number(line.slice(name.length + 1)));
      else places.put([highOf(name), number], 1);
    }
  }
  freezeIfMuch();

  function of(eventId: string): KeptStage[] {
    const name = nameOf(eventId);
    const found = new Map<string, KeptStage>();
    for (const number of places.under(highOf(name))) {
      const text = table.get(blockKey(number))?.toString('utf8');
      if (text === undefined) continue;
      const { topic, partition } = headOf(text);
      for (const line of linesOf(text)) {
        if (!line.startsWith(`${name} `)) continue;
        const [, order, offset] = line.split(' ', 3) as [string, string, string];
        found.set(`${order}/${topic}/${partition}/${offset.padStart(16, '0')}`, { topic, partition, offset: Number(offset), order: Number(order), json: line.slice(name.length + order.length + offset.length + 3) });
      }
    }
    return [...found].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, stage]) => stage);
  }

  return {
    begin() {
      const blocks: Block[] = [];
      const told = new Map<string, number>();
      let open: Block | undefined;
      let over = false;
      const begin = (topic: string, partition: number): Block => {
        const block: Block = { topic, partition, last: 0, text: '', stages: 0, highs: [], numbers: [] };
        blocks.push(block);
        return block;
      };
      return {
        stage(eventId, order, json, { topic, partition, offset }) {
          if (open === undefined || open.topic !== topic || open.partition !== partition || open.stages >= stagesABlock || open.text.length >= charsABlock) open = begin(topic, partition);
          const name = nameOf(eventId);
          open.last = Math.max(open.last, offset);
          open.text += `${name} ${order} ${offset} ${json}\n`;
          open.stages++;
          open.highs.push(highOf(name));
        },
        number(hash, value) {
          const hex = hexOf(hash[0], hash[1]);
          told.set(hex, value);
          open ??= begin('', 0);
          open.text += `=${hex} ${value}\n`;
          open.numbers.push([hash, value]);
        },
        find: (hash) => told.size === 0 ? numbers.find(hash) : told.get(hexOf(hash[0], hash[1])) ?? numbers.find(hash),
        rows() {
          if (blocks.length === 0) return [];
          const all = blocks.map(({ topic, partition, last, text }, i): Put => ({ key: blockKey(next + i), value: Buffer.from(`${topic} ${partition} ${last}\n${text}`) }));
          all.push({ key: nextKey, value: Buffer.from(String(next + blocks.length)) });
          if (writing) {
            const limit = Math.ceil(blocks.reduce((sum, { stages, numbers: { length } }) => sum + stages + length, 0) * rowsAnEntry);
            over = places.step(limit, all);
            over = numbers.step(limit, all) && over;
            if (over) all.push({ key: writtenKey, value: Buffer.from(String(from)) });
          }
          return all;
        },
        written() {
          if (blocks.length === 0) return;
          for (const { highs, numbers: of } of blocks) {
            for (const high of highs) places.put([high, next], 1);
            for (const [hash, value] of of) numbers.put(hash, value);
            next++;
          }
          if (writing) {
            places.stepped();
            numbers.stepped();
            if (over) writing = false;
          }
          freezeIfMuch();
        },
      };
    },
    of,
    has(eventId) {
      const written = stored(writtenKey);
      const number = places.under(highOf(nameOf(eventId))).find((n) => table.has(blockKey(n)));
      // Of a block that is read at the next start a sweep leaves the numbers.
      return number !== undefined && (number < written || of(eventId).length > 0);
    },
    find: numbers.find,
    swept(key, value, isGone) {
      if (key.startsWith(placePrefix)) return table.has(blockKey(Number.parseInt(key.slice(-13), 16))) ? undefined : { key, value: null };
      const text = value.toString('utf8');
      const { topic, partition, offset } = headOf(text);
      const isWritten = Number(key.slice(blockPrefix.length)) < stored(writtenKey);
      if (topic === '' ? !isWritten : !isGone(topic, partition, offset)) return undefined;
      const left = isWritten ? [] : [...linesOf(text)].filter((line) => line.startsWith('='));
      const rest = left.length === 0 ? null : Buffer.from([text.slice(0, text.indexOf('\n')), ...left, ''].join('\n'));
      return rest?.equals(value) === true ? undefined : { key, value: rest };
    },
  };
}
