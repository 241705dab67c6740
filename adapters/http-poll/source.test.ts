import type { AdapterConfig, Json } from '@weir/adapter';
import fc from 'fast-check';
import { cpuMs } from '@weir/testing';
import { expect, test } from 'vitest';
import { manifest } from './manifest.ts';
import { source } from './source.ts';

const defaults = Object.fromEntries(Object.entries(manifest.source!.config).flatMap(([name, field]) => (field.default === undefined ? [] : [[name, field.default]])));
const configOf = (over: object): AdapterConfig => ({ ...defaults, url: 'https://api.example/v1', path: '/members?per_page=3', auth: 'key', ...over });
const now = Date.UTC(2026, 5, 1);

interface Member { readonly id: string; readonly updated_at: string }
type Api = (url: URL) => { page: Json; headers?: Record<string, string> };

/** Polls as ingest does: until a page says that there is nothing more. Every id that was seen, in order. */
function run(api: Api, config: AdapterConfig, from: Json): { seen: string[]; cursor: Json; calls: URL[] } {
  const seen: string[] = [];
  const calls: URL[] = [];
  let cursor = from;
  for (let n = 0; n < 200; n++) {
    const url = new URL(source.request(cursor, config, now).url);
    calls.push(url);
    const { page, headers = {} } = api(url);
    const found = source.page({ status: 200, headers, body: Buffer.from(JSON.stringify(page)) }, cursor, config, now);
    seen.push(...found.items.map((item) => `${source.identify(item, config).parts.join('@')}`));
    const moved = JSON.stringify(found.cursor) !== JSON.stringify(cursor);
    cursor = found.cursor;
    if (!found.more || !moved) return { seen, cursor, calls };
  }
  throw new Error('it never ends');
}

const pageSize = 3;
const at = (minute: number): string => new Date(Date.UTC(2026, 0, 1, 0, minute)).toISOString();
const key = (m: Member): string => `${m.id}@${m.updated_at}`;

/** Vendors that list members in order of change, one for each way of following pages. */
const apis: Readonly<Record<string, (all: () => readonly Member[]) => Api>> = {
  token: (all) => (url) => {
    const start = Number(url.searchParams.get('cursor') ?? 0);
    const data = listed(all(), url).slice(start, start + pageSize);
    return { page: { data, next_cursor: String(start + data.length) } as unknown as Json };
  },
  link: (all) => (url) => {
    const page = Number(url.searchParams.get('page') ?? 1);
    const list = listed(all(), url);
    const next = new URL(url);
    next.searchParams.set('page', String(page + 1));
    const headers: Record<string, string> = page * pageSize < list.length ? { link: `<${next.href}>; rel="next"` } : {};
    return { page: { data: list.slice((page - 1) * pageSize, page * pageSize) } as unknown as Json, headers };
  },
  url: (all) => (url) => {
    const page = Number(url.searchParams.get('page') ?? 1);
    const list = listed(all(), url);
    const next = new URL(url);
    next.searchParams.set('page', String(page + 1));
    return { page: { data: list.slice((page - 1) * pageSize, page * pageSize), next_cursor: page * pageSize < list.length ? next.href : null } as unknown as Json };
  },
  page: (all) => (url) => {
    const page = Number(url.searchParams.get('cursor') ?? 1);
    return { page: { data: listed(all(), url).slice((page - 1) * pageSize, page * pageSize) } as unknown as Json };
  },
  none: (all) => (url) => ({ page: { data: listed(all(), url) } as unknown as Json }),
};

function listed(all: readonly Member[], url: URL): Member[] {
  const since = url.searchParams.get('since');
  return all.filter((m) => since === null || m.updated_at >= since).sort((a, b) => (a.updated_at < b.updated_at ? -1 : 1));
}

test.each(Object.keys(apis))('%s: whatever is there is seen, and what comes later is seen by a later run', (kind) => {
  fc.assert(fc.property(fc.array(fc.nat({ max: 7 }), { minLength: 1, maxLength: 6 }), fc.boolean(), (growth, withSince) => {
    const config = configOf({ cursor: kind, items: 'data', version: 'updated_at', ...(withSince ? { since: 'updated_at' } : {}) });
    const all: Member[] = [];
    const seen = new Set<string>();
    let cursor: Json = null;
    let minute = 0;
    for (const many of growth) {
      for (let i = 0; i < many; i++) all.push({ id: `m${all.length}`, updated_at: at(minute += 3) });
      const done = run(apis[kind]!(() => all), config, JSON.parse(JSON.stringify(cursor)) as Json);
      cursor = done.cursor;
      for (const id of done.seen) seen.add(id);
      expect([...seen].sort()).toEqual(all.map(key).sort());
    }
  }));
});

test('with since, a run asks only for what changed, and an update of an old object is seen', () => {
  const config = configOf({ cursor: 'page', items: 'data', version: 'updated_at', since: 'updated_at', start: '2026-01-01T00:00:00Z', overlap: 60 });
  const all: Member[] = Array.from({ length: 10 }, (_, i) => ({ id: `m${i}`, updated_at: at(i * 5) }));
  const first = run(apis['page']!(() => all), config, null);
  expect(first.calls[0]!.searchParams.get('since')).toBe('2026-01-01T00:00:00.000Z');
  expect(first.cursor).toEqual({ since: Date.parse(at(45)) });
  all[2] = { id: 'm2', updated_at: at(60) };
  const second = run(apis['page']!(() => all), config, first.cursor);
  expect(second.seen).toEqual([`m9@${at(45)}`, `m2@${at(60)}`]);
  expect(second.calls[0]!.searchParams.get('since')).toBe(at(44));
});

test('a run that was cut goes on in its middle, from the same time', () => {
  const config = configOf({ items: 'data', since: 'updated_at', version: 'updated_at' });
  const all: Member[] = Array.from({ length: 7 }, (_, i) => ({ id: `m${i}`, updated_at: at(i) }));
  const api = apis['token']!(() => all);
  const { page } = api(new URL(source.request(null, config, now).url));
  const cut = source.page({ status: 200, headers: {}, body: Buffer.from(JSON.stringify(page)) }, null, config, now);
  expect(run(api, config, cut.cursor).seen).toEqual(all.slice(3).map(key));
});

test.each([['iso', '2026-01-01T00:00:00Z', '2025-12-31T23:59:00.000Z'], ['s', 1_767_225_600, '1767225540'], ['ms', 1_767_225_600_000, '1767225540000']])('since in %s reads and writes the vendor\'s form', (format, value, asked) => {
  const config = configOf({ cursor: 'none', items: '', since: 'at', sinceFormat: format });
  const { cursor } = source.page({ status: 200, headers: {}, body: Buffer.from(JSON.stringify([{ id: 1, at: value }, { id: 2, at: 'never' }, { id: 3 }])) }, null, config, now);
  expect(new URL(source.request(cursor, config, now).url).searchParams.get('since')).toBe(asked);
});

test('an object from the future does not make the next run skip what comes before it', () => {
  const hour = 3_600_000;
  const ahead = Date.UTC(2199, 0, 1);
  const page = (items: object[], cursor: Json, at: number, more: object = {}) => source.page({ status: 200, headers: {}, body: Buffer.from(JSON.stringify({ data: items, ...more })) }, cursor, config, at).cursor;
  const asked = (cursor: Json, at: number) => new URL(source.request(cursor, config, at).url).searchParams.get('since');
  const config = configOf({ items: 'data', since: 'at', overlap: 60 });
  const future = { id: 1, at: new Date(ahead).toISOString() };
  const once = page([future], null, now);
  expect([once, asked(once, now + hour)]).toEqual([{ since: now }, new Date(now - 60_000).toISOString()]);
  const cut = page([future], null, now, { next_cursor: 'one' });
  expect(cut).toEqual({ token: 'one', high: now });
  expect(page([{ id: 2, at: new Date(now - hour).toISOString() }], cut, now + hour)).toEqual({ since: now });
  // What a version before has saved.
  for (const saved of [{ since: ahead }, { since: ahead, high: ahead, token: 'one' }] as Json[]) expect(page([], saved, now)).toEqual({ since: now });
  expect(page([], { since: ahead }, now, { next_cursor: 'one' })).toEqual({ token: 'one', since: now });
});

test.each([['2026-01-01T00:00:00'], ['2026-01-01T00:00:00.000'], ['2026-01-01T00:00'], ['2026-01-01 00:00:00'], ['2026-01-01'], ['2026-01-01T00:00:00Z'], ['2025-12-31T22:00:00-02:00']])('%s is one time, wherever ingest runs: as a local time changes of hours would be skipped', (text) => {
  const zone = process.env['TZ'];
  process.env['TZ'] = 'America/New_York';
  try {
    const config = configOf({ items: 'data', cursor: 'none', since: 'at' });
    expect(source.page({ status: 200, headers: {}, body: Buffer.from(JSON.stringify({ data: [{ id: 1, at: text }] })) }, null, config, now).cursor).toEqual({ since: Date.UTC(2026, 0, 1) });
  } finally {
    if (zone === undefined) delete process.env['TZ'];
    else process.env['TZ'] = zone;
  }
});

test.each([
  ['a comma in the URL', '<https://api.example/v1/members?fields=id,email&page=2>; rel="next"', '/v1/members?fields=id,email&page=2'],
  ['several, with commas', '<https://api.example/v1/members?f=a,b&page=1>; rel="prev", <https://api.example/v1/members?f=a,b&page=3>; rel="next"', '/v1/members?f=a,b&page=3'],
  ['two relations', '</a?page=9>; rel="last next"', '/a?page=9'],
  ['single quotes', "</a?page=2>; rel='next'", '/a?page=2'],
  ['no quotes, capitals, spaces', '</a?page=2> ; title="x" ; Rel = Next', '/a?page=2'],
  ['a comma and a link in a title', '</a>; title="b, </c>; rel=next"; rel=prev, </a?page=2>; rel=next', '/a?page=2'],
  ['far behind', `${'</a>; rel=item, '.repeat(100)}</a?page=2>; rel=next`, '/a?page=2'],
  ['another relation', '</a>; rel="next-archive", </b>; rel="nextpage", </c>; title=next', undefined],
  ['only the first rel counts', '</a>; rel=prev; rel=next', undefined],
])('Link with %s: a next page that is not found is never asked for', (_name, link, next) => {
  const found = source.page({ status: 200, headers: { link }, body: Buffer.from('[{"id":1}]') }, null, configOf({ cursor: 'link', items: '' }), now);
  expect(found).toMatchObject(next === undefined ? { cursor: null, more: false } : { cursor: { link: next }, more: true });
});

test('a next link that is too long to be kept is refused, not taken for the end', () => {
  const link = `<https://api.example/v1/members?after=${'x'.repeat(3000)}>; rel="next"`;
  expect(() => source.page({ status: 200, headers: { link }, body: Buffer.from('[]') }, null, configOf({ cursor: 'link', items: '' }), now)).toThrow(/longer than/);
});

test('any Link header is read in linear time', () => {
  const size = 32 * 1024;
  const texts = ['<', '<>', '<>;', '<>;"', '<>; rel=', '<>;"\\', '<>;;', '; '].flatMap((part) => [part.repeat(size / part.length), `</a>${part.repeat(size / part.length)}`]);
  texts.push(`</a>;${' '.repeat(size)}`, `</a>;${'x'.repeat(size)}`, `</a>;x${' '.repeat(size)}`, `</a>; rel="${' '.repeat(size)}x`);
  const ms = cpuMs(() => {
    for (const link of texts) {
      try {
        source.page({ status: 200, headers: { link }, body: Buffer.from('[]') }, null, configOf({ cursor: 'link', items: '' }), now);
      } catch (error) {
        expect(error).toMatchObject({ code: 'body-malformed' });
      }
    }
  });
  expect(ms).toBeLessThan(1000);
});

test('every setting that a position in the list hangs on is in the key of the cursor, and none that it does not', () => {
  const base = { items: 'data', since: 'updated_at', start: '2026-01-01T00:00:00Z' };
  const key = (over: object) => source.cursorKey!(configOf({ ...base, ...over }));
  const same = key({});
  const others = [{ url: 'https://api.example/v2' }, { path: '/people' }, { items: 'result' }, { cursor: 'page' }, { cursorField: 'next' }, { cursorParam: 'after' }, { since: 'changed' }, { since: undefined }, { sinceParam: 'from' }, { sinceFormat: 's' }, { start: '2025-01-01T00:00:00Z' }, { start: undefined }];
  expect(new Set([same, ...others.map(key)]).size).toBe(others.length + 1);
  for (const over of [{ auth: 'rotated' }, { every: 5 }, { requestsPerMinute: 5 }, { overlap: 5 }, { headers: 'a: b' }, { id: 'key' }, { version: 'v' }]) expect(key(over)).toBe(same);
});

test('a link or a stored cursor leads to no other origin: the credential would go there', () => {
  const config = configOf({ cursor: 'link', items: '' });
  const page = (link: string) => source.page({ status: 200, headers: { link }, body: Buffer.from('[]') }, null, config, now);
  for (const link of ['<https://evil.example/members>; rel="next"', '<//evil.example/x>; rel=next', '<http://api.example/x>; rel="next"', '<https://[/x>; rel="next"']) expect(() => page(link)).toThrow(/origin/);
  expect(page('</v1/members?page=2>; rel="next"').cursor).toEqual({ link: '/v1/members?page=2' });
  for (const link of ['https://evil.example/x', '//evil.example/x', '@evil.example/', '\\\\evil.example/', '/\\evil.example', '//evil.example:443/x']) {
    const url = new URL(source.request({ link }, config, now).url);
    if (url.origin !== 'https://api.example') expect.unreachable(url.href);
  }
});

test('the URL in a page leads to no other origin either, and a relative one stays within', () => {
  const config = configOf({ cursor: 'url', cursorField: 'links.next', items: 'data' });
  const page = (next: Json) => source.page({ status: 200, headers: {}, body: Buffer.from(JSON.stringify({ data: [], links: { next } })) }, null, config, now);
  for (const next of ['https://evil.example/members', '//evil.example/x', 'http://api.example/x', 'https://api.example:444/x', 'https://[/x', 'https://api.example/'.padEnd(2001, 'x'), 'file:///etc/passwd']) expect(() => page(next), next).toThrow(/origin/);
  for (const next of [null, '', {}]) expect(page(next)).toMatchObject({ cursor: null, more: false });
  expect(page('?page=2').cursor).toEqual({ link: '/v1/members?page=2' });
  expect(page('https://user:pw@api.example/v1/members?after=a%20b').cursor).toEqual({ link: '/v1/members?after=a%20b' });
});

const headersPattern = new RegExp(manifest.source!.config['headers']!.pattern!);

test('further headers go with every request, and never in place of the credential', () => {
  const text = 'revision: 2026-07-15\naccept: a/b: c\nauthorization: mine\n';
  expect(headersPattern.test(text)).toBe(true);
  expect(source.request({ link: '/v1/members?page=2' }, configOf({ headers: text }), now).headers).toEqual({ 'accept': 'a/b: c', 'revision': '2026-07-15', 'authorization': 'Bearer key', 'user-agent': 'weir/0.1' });
});

test.each([
  ['framing', 'a: b\ncontent-length: 1'], ['another host', 'host: evil.example'], ['an encoding', 'accept-encoding: br'], ['a carriage return', 'a: b\r\nc: d'], ['an empty line', 'a: b\n\nc: d'], ['no value', 'a: '], ['a control character', 'a: b\u0000'],
  ['upper case, which would pass by the reserved names', 'Host: x'], ['no space', 'a:b'], ['a name with a space', 'a b: c'], ['too many', 'a: b\n'.repeat(21)], ['a very long value', `a: ${'x'.repeat(1001)}`],
])('%s in further headers is a problem of the workspace', (_name, text) => {
  expect(headersPattern.test(text)).toBe(false);
});

test('a long text that is nearly headers is refused in linear time', () => {
  expect(cpuMs(() => {
    expect(headersPattern.test(`${'a: b: c '.repeat(100_000)}\u0000`)).toBe(false);
    expect(headersPattern.test(`${`a: ${'b: '.repeat(300)}c\n`.repeat(20)}\u0000`)).toBe(false);
  })).toBeLessThan(1000);
});

test('the bytes of an item count: the same id and version with another body is another event', () => {
  const config = configOf({ version: 'updated_at' });
  const identify = (value: object) => source.identify({ bytes: Buffer.from(JSON.stringify(value)), value: value as Json }, config);
  expect(identify({ id: 7, updated_at: 'a', x: 1 })).toEqual({ parts: ['7', 'a'], unique: false, objectKey: '7' });
  expect(identify({})).toEqual({ parts: ['', ''], unique: false, objectKey: undefined });
});

test('any page gives items or body-malformed, any cursor a request', () => {
  const config = configOf({ items: 'data', since: 'updated_at' });
  fc.assert(fc.property(fc.json(), fc.oneof(fc.jsonValue(), fc.dictionary(fc.constantFrom('token', 'link', 'page', 'since', 'high'), fc.jsonValue())), (text, cursor) => {
    try {
      source.page({ status: 200, headers: {}, body: Buffer.from(text) }, cursor as Json, config, now);
    } catch (error) {
      expect(error).toMatchObject({ code: expect.stringMatching(/^(body-|too-many)/) });
    }
    expect(new URL(source.request(cursor as Json, config, now).url).origin).toBe('https://api.example');
  }));
});

test.each([400, 404, 410, 422, 301])('%d is told as refused for good: tried again without a word nobody would look', (status) => {
  expect(source.classify({ status, headers: {}, body: Buffer.alloc(0) })).toMatchObject({ kind: 'permanent', effect: 'none', code: 'delivery-rejected' });
});

test('an answer that is too large is told as that, and a 2xx that is no page is asked for again', () => {
  expect(source.classify({ failure: 'too-large', sent: true, detail: '' })).toMatchObject({ kind: 'permanent', effect: 'none', code: 'response-too-large' });
  expect(source.classify({ status: 204, headers: {}, body: Buffer.alloc(0) })).toMatchObject({ kind: 'retry', effect: 'none', retryAfterMs: 60_000 });
});

test('no failure of a GET has had an effect, and throttling lasts as long as asked', () => {
  for (const status of [301, 400, 401, 403, 404, 408, 429, 500, 503]) expect(source.classify({ status, headers: { 'retry-after': '9' }, body: Buffer.alloc(0) }).effect).toBe('none');
  expect(source.classify({ status: 429, headers: { 'retry-after': '9' }, body: Buffer.alloc(0) })).toMatchObject({ kind: 'throttled', retryAfterMs: 9000 });
  expect(source.classify({ failure: 'timeout', sent: true, detail: '' })).toMatchObject({ kind: 'retry', effect: 'none' });
});
