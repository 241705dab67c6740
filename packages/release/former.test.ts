import { WeirError } from '@weir/errors';
import { expect, test } from 'vitest';
import { formerSources } from './former.ts';
import type { Release, ReleaseFile, SourceConfig } from './types.ts';

const release = (name: string, ...sources: string[]): [string, ReleaseFile[]] => [name, sources.map((source) => ({ path: `sources/${source}.yaml`, content: name }))];

test('a source that is gone is as the newest release had it that still compiles, and is looked for once', () => {
  const stored = new Map([release('one', 'shop', 'crm'), release('two', 'shop', 'crm'), release('broken', 'shop'), release('four', 'web')]);
  const compiled: string[] = [];
  const former = formerSources(stored, (files) => {
    const { content } = files[0]!;
    compiled.push(content);
    if (content === 'broken') throw new WeirError('workspace-invalid');
    return { sources: new Map([['shop', { name: content } as SourceConfig]]) } as unknown as Release;
  });
  expect([former('shop')?.name, former('shop')?.name, former('other'), compiled]).toEqual(['two', 'two', undefined, ['broken', 'two']]);
});

test('an error that nobody declared is none of the release', () => {
  const former = formerSources(new Map([release('one', 'shop')]), () => { throw new Error('disk full'); });
  expect(() => former('shop')).toThrow('disk full');
});
