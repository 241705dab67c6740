import { regionKey, regionsIn, regionValue, type KnownRegion } from '@weir/consent';
import type { OutRecord } from '@weir/log';
import { topicNames } from '@weir/pipeline';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Heads } from './heads.ts';
import { createRegions, type Regions } from './regions.ts';

interface Profile { readonly ids: readonly string[]; readonly country: string | null; readonly acceptedAt: number; /** Undefined: yes. */ readonly moves?: boolean }

const partitions = [0, 1];
const max = 100;

/** The stage's part of one process, its log and its table; `crash` begins anew with what was acknowledged. */
class World {
  readonly table = new Map<string, KnownRegion>();
  readonly erased = new Map<string, number>();
  /** weir.identity: partitions, each in the order of the appends to it. */
  private readonly log = partitions.map((): { readonly id: string; readonly region: KnownRegion }[] => []);
  private readonly readBack = partitions.map(() => 0);
  private sent: { readonly records: readonly OutRecord[]; readonly offsets: (number | undefined)[] }[] = [];
  regions: Regions = this.open();

  private open(): Regions {
    return createRegions({
      appender: { partitionFor: (_topic: string, key: Buffer) => key.at(-1)! % partitions.length } as never,
      tables: {
        regions: (ids: readonly string[], tell: (id: string, region: KnownRegion) => void) => { for (const id of ids) if (this.table.has(id)) tell(id, this.table.get(id)!); },
        identityPosition: (partition: number) => this.readBack[partition]!,
      } as never,
      context: {
        topics: topicNames('weir'), keys: { erasedUntil: (ids: readonly string[]) => Math.max(...ids.map((id) => this.erased.get(id) ?? 0)) } as never,
        serde: { encode: (_name: string, value: object) => Buffer.from(JSON.stringify(value)) } as never,
      },
    }, max);
  }

  said({ ids, country, acceptedAt, moves = true }: Profile): number {
    const records = this.regions.said({ country }, { ids, acceptedAt, source: 'shop' } as unknown as Heads, moves);
    if (records.length > 0) this.sent.push({ records, offsets: records.map(() => undefined) });
    return records.length;
  }

  /** The log takes the oldest that is on its way to this partition; an append is acknowledged when all of it is there. */
  acknowledge(partition: number): void {
    for (const { records, offsets } of this.sent) {
      const i = records.findIndex((record, at) => record.partition === partition && offsets[at] === undefined);
      if (i < 0) continue;
      const { region, at } = JSON.parse(records[i]!.value!.toString()) as { region: string; at: number };
      const id = records[i]!.key!.toString().slice(regionKey('').length);
      offsets[i] = this.log[partition]!.push({ id, region: { code: region, at } }) - 1;
      break;
    }
    const [done, left] = [this.sent.filter(({ offsets }) => !offsets.includes(undefined)), this.sent.filter(({ offsets }) => offsets.includes(undefined))];
    this.sent = left;
    for (const { records, offsets } of done) this.regions.written(records, offsets as number[]);
  }

  read(partition: number, count: number): void {
    for (const { id, region } of this.log[partition]!.slice(this.readBack[partition]!, this.readBack[partition]! + count)) {
      this.table.set(id, region);
      this.readBack[partition]!++;
    }
    this.regions.advanced();
  }

  settle(): void {
    while (this.sent.length > 0) for (const partition of partitions) this.acknowledge(partition);
    for (const partition of partitions) this.read(partition, Infinity);
  }

  /** Whoever goes on has read all that is on the log. */
  crash(): void {
    this.sent = [];
    for (const partition of partitions) this.read(partition, Infinity);
    this.regions = this.open();
  }
}

/** What is no code is said, and not known. */
const codeOf = (country: string): string => (country === 'Germany' ? '' : country);
/** What a trusted source said last, and what others have added since. */
interface Slots { readonly moved: string | undefined; readonly at: number; readonly added: readonly string[] }
const slotsOf = ({ code, at }: KnownRegion): Slots => ({ moved: code.startsWith('+') ? undefined : code.split('+')[0], at, added: code.split('+').slice(1) });

/** One after another, with nothing on its way. */
class Model {
  readonly known = new Map<string, Slots>();
  of(id: string, erased: ReadonlyMap<string, number>): Slots | undefined {
    const found = this.known.get(id);
    return found !== undefined && found.at > (erased.get(id) ?? -1) ? found : undefined;
  }
  codes(id: string, erased: ReadonlyMap<string, number>): string[] {
    const known = this.of(id, erased);
    return known === undefined ? [] : [...(known.moved === undefined ? [] : [known.moved]), ...known.added];
  }
  said({ ids, country: said, acceptedAt: at, moves = true }: Profile, erased: ReadonlyMap<string, number>): void {
    if (said === null) return;
    const country = codeOf(said);
    ids.forEach((id, i) => {
      const known = this.of(id, erased);
      const late = known?.moved !== undefined && known.at > at;
      if (!moves) {
        if (i === 0 && !late && !this.codes(id, erased).some((code) => code === country || code === '')) this.known.set(id, { moved: known?.moved, at: known?.at ?? at, added: [...(known?.added ?? []), country] });
      } else if (known === undefined ? i === 0 : !late && (known.moved !== country || known.added.length > 0)) this.known.set(id, { moved: country, at, added: [] });
    });
  }
}

const ids = ['userId:a', 'email:b', 'phone:c'];
const profile = fc.record({ ids: fc.subarray(ids), country: fc.constantFrom('DE', 'US', 'FR', 'Germany', null), acceptedAt: fc.integer({ min: 1, max: 40 }), moves: fc.boolean() });
const step = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('said' as const), profile }) }, { weight: 3, arbitrary: fc.record({ kind: fc.constant('acknowledge' as const), partition: fc.constantFrom(...partitions) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('read' as const), partition: fc.constantFrom(...partitions), count: fc.integer({ min: 1, max: 3 }) }) }, { weight: 1, arbitrary: fc.record({ kind: fc.constant('commit' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('crash' as const) }) }, { weight: 1, arbitrary: fc.record({ kind: fc.constant('erase' as const), id: fc.constantFrom(...ids), at: fc.integer({ min: 1, max: 30 }) }) },
);

test('where people are is what their records said one after another, whatever is on its way, also when the process dies at any time', () => {
  fc.assert(fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
    const world = new World();
    const model = new Model();
    /** Decided since the last commit: whoever goes on decides them again. */
    let uncommitted: Profile[] = [];
    const said: Profile[] = [];
    const same = (): void => { for (const id of ids) expect(world.regions.of([id], [], false)).toEqual(model.codes(id, world.erased)); };
    for (const one of steps) {
      if (one.kind === 'said') {
        if (one.profile.ids.some((id) => (world.erased.get(id) ?? -1) >= one.profile.acceptedAt)) continue;
        world.said(one.profile);
        model.said(one.profile, world.erased);
        uncommitted.push(one.profile);
        said.push(one.profile);
      } else if (one.kind === 'acknowledge') world.acknowledge(one.partition);
      else if (one.kind === 'read') world.read(one.partition, one.count);
      else if (one.kind === 'commit') {
        world.settle();
        uncommitted = [];
      } else if (one.kind === 'erase') {
        // What was decided before it stays what it is.
        world.settle();
        uncommitted = [];
        world.erased.set(one.id, Math.max(one.at, world.erased.get(one.id) ?? -1));
      } else {
        world.crash();
        // What is on the log stays, also of a Profile that is decided again before the one that it stood behind.
        model.known.clear();
        for (const [id, region] of world.table) model.known.set(id, slotsOf(region));
        for (const again of uncommitted) {
          world.said(again);
          model.said(again, world.erased);
        }
      }
      same();
      // Nothing that was said is forgotten: what was accepted or said since takes its place.
      for (const [i, { ids: [strongest], country, acceptedAt, moves }] of said.entries()) {
        if (strongest === undefined || country === null || (world.erased.get(strongest) ?? -1) >= acceptedAt) continue;
        const known = model.of(strongest, world.erased);
        // Of one who said the same before a mark that was not read yet, what was said first is gone with it.
        if (world.erased.has(strongest)) continue;
        if (known === undefined) expect.unreachable(`${strongest} is not known`);
        const { moved, at } = known;
        expect(model.codes(strongest, world.erased).some((code) => code === codeOf(country) || code === '') || (moved !== undefined && at >= acceptedAt) || said.slice(i + 1).some((later) => later.moves !== false && later.country !== null && codeOf(later.country) === moved && later.ids.includes(strongest))).toBe(true);
        // Who may not move the person takes no region away that a trusted source said.
        if (moves) expect(moved).toBeDefined();
      }
    }
    world.settle();
    same();
    for (const id of ids) if (model.known.has(id)) expect(slotsOf(world.table.get(id)!)).toEqual(model.known.get(id));
  }), { numRuns: 500 });
});

test('who says again what is known writes nothing, and no identifier but the strongest is written for one who is new', () => {
  const world = new World();
  const ada = { ids, country: 'DE', acceptedAt: 5 };
  expect([world.said(ada), world.said(ada), world.said({ ...ada, country: null })]).toEqual([1, 0, 0]);
  world.settle();
  expect([world.said({ ...ada, acceptedAt: 9 }), world.said({ ...ada, country: 'US', acceptedAt: 4 }), [...world.table.keys()]]).toEqual([0, 0, ['userId:a']]);
});

test.each([[true, ['DE']], [false, ['']]])('a country that is no code is remembered as not known until one that is a code comes; of a source that moves nobody until one comes that may (%s)', (moves, after) => {
  const world = new World();
  world.said({ ids, country: 'Germany', acceptedAt: 5, moves });
  expect(world.regions.of(ids, [], false)).toEqual(['']);
  world.settle();
  world.crash();
  world.said({ ids, country: 'DE', acceptedAt: 9, moves });
  world.settle();
  expect(world.regions.of(ids, [], false)).toEqual(after);
});

test('known of linked identifiers: all that are linked count, but those that a record carries not against what it says itself', () => {
  const world = new World();
  world.said({ ids: ['email:b'], country: 'DE', acceptedAt: 1 });
  world.said({ ids: ['phone:c'], country: 'US', acceptedAt: 2 });
  const linked = ['userId:a', 'email:b', 'phone:c'];
  expect(world.regions.of(linked, ['userId:a'], false).toSorted()).toEqual(['DE', 'US']);
  expect(world.regions.of(linked, ['userId:a', 'email:b'], true)).toEqual(['US']);
  expect([world.regions.of(linked, linked, true), world.regions.of(undefined, ['userId:a'], false)]).toEqual([[], []]);
});

test('what is not read back is bounded: nothing is decided until the table has it', () => {
  const world = new World();
  for (let i = 0; i < max; i++) world.said({ ids: [`userId:${i}`], country: 'DE', acceptedAt: 1 });
  expect(world.regions.full()).toBe(true);
  world.settle();
  expect([world.regions.full(), world.regions.of(['userId:7'], [], false)]).toEqual([false, ['DE']]);
});

test('a source that may not move people adds where they are: a region that was said stays, until a trusted source says it anew', () => {
  const world = new World();
  const known = (): readonly string[] => world.regions.of(['userId:a'], [], false);
  const web = (country: string, acceptedAt: number): number => world.said({ ids: ['userId:a', 'email:b'], country, acceptedAt, moves: false });
  world.said({ ids: ['userId:a'], country: 'DE', acceptedAt: 5 });
  expect([web('US', 6), web('US', 7), known()]).toEqual([1, 0, ['DE', 'US']]);
  world.settle();
  expect([known(), web('DE', 8)]).toEqual([['DE', 'US'], 0]);
  // What is replayed of before the trusted one changes nothing.
  world.said({ ids: ['userId:a'], country: 'FR', acceptedAt: 9 });
  expect([web('US', 6), known()]).toEqual([0, ['FR']]);
});

test('one who is known by such sources alone keeps all that they said, and past eight counts as not known; a trusted one puts it right, also one that was accepted before', () => {
  const world = new World();
  const known = (): readonly string[] => world.regions.of(['userId:a'], [], false);
  const codes = ['US', 'CA', 'BR', 'JP', 'IN', 'AU', 'NZ', 'MX'];
  codes.forEach((country, i) => world.said({ ids: ['userId:a'], country, acceptedAt: 10 + i, moves: false }));
  expect(known()).toEqual(codes);
  expect([world.said({ ids: ['userId:a'], country: 'DE', acceptedAt: 30, moves: false }), world.said({ ids: ['userId:a'], country: 'FR', acceptedAt: 31, moves: false }), known()]).toEqual([1, 0, [...codes, '']]);
  world.settle();
  expect(known()).toEqual([...codes, '']);
  world.said({ ids: ['userId:a'], country: 'DE', acceptedAt: 4 });
  expect(known()).toEqual(['DE']);
});

test('what nobody can read stays closed for a source that may not move people', () => {
  const world = new World();
  world.table.set('userId:a', { code: '', at: 0 });
  expect([world.said({ ids: ['userId:a'], country: 'US', acceptedAt: 4, moves: false }), world.regions.of(['userId:a'], [], false)]).toEqual([0, ['']]);
  expect([world.said({ ids: ['userId:a'], country: 'US', acceptedAt: 4 }), world.regions.of(['userId:a'], [], false)]).toEqual([1, ['US']]);
});

test('the text of several regions is read as it was written, and nothing else is', () => {
  const serde = { decode: (value: Buffer) => ({ name: 'weir.internal.PersonRegion', value: { region: value.toString(), at: 7 } }) } as never;
  for (const text of ['', '+', 'DE', 'US-CA', 'DE+US', '+US', '+US-CA+DE', `DE${'+US'.repeat(8)}+`]) expect(regionValue(serde, Buffer.from(text))).toEqual({ code: text, at: 7 });
  for (const text of ['++', 'de', 'DE+us', 'DE++US', 'DE#', 'DE~US', `DE${'+US'.repeat(9)}`]) expect([text, regionValue(serde, Buffer.from(text))]).toEqual([text, { code: '', at: 0 }]);
  expect([regionsIn('DE'), regionsIn('DE+US'), regionsIn('+US'), regionsIn('DE+US+'), regionsIn('')]).toEqual([['DE'], ['DE', 'US'], ['US'], ['DE', 'US', ''], ['']]);
});
