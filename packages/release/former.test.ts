import { WeirError } from '@weir/errors';
import { expect, test } from 'vitest';
import { formerSources } from './former.ts';
import type { Release, ReleaseFile, SourceConfig } from './types.ts';

const release = (name: string, ...sources: string[]): [string, ReleaseFile[]] => [name, sources.map((source) => ({ path: `sources/${source}.yaml`, content: name }))];

test('a source that is gone is as the newest release had it that still compiles, and is looked for once, one that does not compile too, until a newer one has it', () => {
  const stored = new Map([release('one', 'shop', 'crm'), release('two', 'shop', 'crm'), release('broken', 'shop'), release('four', 'web')]);
  const compiled: string[] = [];
  const former = formerSources(stored, (files) => {
    const { content } = files[0]!;
    compiled.push(content);
    if (content === 'broken') throw new WeirError('workspace-invalid');
    return { sources: new Map([['shop', { name: content } as SourceConfig]]) } as unknown as Release;
  });
  expect([former.of('shop')?.name, former.of('shop')?.name, former.of('other'), compiled]).toEqual(['two', 'two', undefined, ['broken', 'two']]);
  const [name, files] = release('five', 'crm');
  stored.set(name, files);
  former.renew(files);
  expect([former.of('shop')?.name, compiled.length]).toEqual(['two', 2]);
  const [next, ...rest] = release('six', 'shop');
  stored.set(next, rest[0]);
  former.renew(rest[0]);
  expect([former.of('shop')?.name, compiled]).toEqual(['six', ['broken', 'two', 'six']]);
  const [last, broken] = release('broken', 'shop');
  stored.delete(last);
  stored.set(last, broken);
  former.renew(broken);
  expect([former.of('shop')?.name, compiled.slice(3)]).toEqual(['six', ['six']]);
});

test('no more than the last five that had the source are compiled for it', () => {
  const compiled: string[] = [];
  const former = formerSources(new Map([...['1', '2', '3', '4', '5', '6', '7'].map((name) => release(name, 'shop')), release('8', 'web')]), (files) => {
    compiled.push(files[0]!.content);
    throw new WeirError('workspace-invalid');
  });
  expect([former.of('shop'), former.of('shop'), compiled]).toEqual([undefined, undefined, ['7', '6', '5', '4', '3']]);
});

test('an error that nobody declared is none of the release', () => {
  const former = formerSources(new Map([release('one', 'shop')]), () => { throw new Error('disk full'); });
  expect(() => former.of('shop')).toThrow('disk full');
});
