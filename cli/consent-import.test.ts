import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, expect, test } from 'vitest';
import { batchesOf, planImport, type ImportRow } from './consent-import.ts';
import { namesOf } from './consent-order.ts';

const folder = mkdtempSync(join(tmpdir(), 'weir-import-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
type Asked = { readonly order: { readonly identifiers: { readonly email?: string } }; readonly key?: string };

/** The plan of this file, by a control API that answers each change so. */
async function planOf(text: string | Buffer, answer: (asked: Asked) => object) {
  const file = join(folder, 'people.csv');
  writeFileSync(file, text);
  const asked: Asked[] = [];
  const client = { post: async <T>(_path: string, body: unknown) => {
    const { changes } = body as { changes: Asked[] };
    asked.push(...changes);
    return { changes: changes.map(answer) } as T;
  } };
  return { asked, plan: await planImport(client, file, () => undefined) };
}

test('rows that are wrong are named with their line and reason, in the order of the file; the others with what they change and where they stand', async () => {
  const answers: Record<string, object> = { 'ann': { before: 'none', after: 'granted', why: null }, 'bob': { problem: 'email: expected an e-mail address' }, 'cyd': { before: 'withdrawn', after: 'withdrawn', why: 'this grant was recorded before' }, 'dan': { before: 'granted', after: 'granted', why: null }, 'eve': { before: 'none', after: 'granted', why: null } };
  const { plan, asked } = await planOf(`email,externalId,purpose,state,proof\nann,,news,granted,\nbob,,news,granted,\ncyd,crm:1:2,news,granted,\nfay,crm,news,granted,\ndan,,news,withdrawn,\ngus,,news,withdrawn,${'x'.repeat(17_000)}\neve,,news,granted,\n`, ({ order }) => answers[order.identifiers.email!]!);
  expect(plan.problems).toEqual(['line 3: email: expected an e-mail address', 'line 5: externalId: expected <type>:<value>', 'line 7: it is over 16 KiB']);
  expect(plan.changes).toEqual([{ change: 'none → granted', rows: 2, lines: [2, 8] }, { change: 'stays withdrawn: this grant was recorded before', rows: 1, lines: [4] }, { change: 'no change', rows: 1, lines: [6] }]);
  expect(plan.rows.map((row) => row.line)).toEqual([2, 4, 6, 8]);
  expect(asked[2]!.order.identifiers).toEqual({ email: 'cyd', externalIds: [{ type: 'crm', value: '1:2' }] });
});

test('a file that is no UTF-8 is refused whole, with its first such line: a no under another address would be one to nobody', async () => {
  const table = 'email,purpose,state\nann@x.example,news,withdrawn\njürgen@x.example,news,withdrawn\n';
  const nothing = () => ({ before: 'none', after: 'withdrawn', why: null });
  await expect(planOf(Buffer.from(table, 'latin1'), nothing)).rejects.toThrow(/people\.csv is no UTF-8, by its line 3: .*iconv -f WINDOWS-1252/);
  await expect(planOf(Buffer.from('email,purpose,state\njürgen@x.example,news,withdrawn', 'latin1'), nothing)).rejects.toThrow('by its line 2');
  await expect(planOf(Buffer.from(`\ufeff${table}`, 'utf16le'), nothing)).rejects.toThrow('people.csv is UTF-16: save it as CSV UTF-8');
  for (const mark of ['', '\ufeff']) expect((await planOf(mark + table, nothing)).asked.map(({ order }) => order.identifiers.email)).toEqual(['ann@x.example', 'jürgen@x.example']);
});

test('a row goes as it stands in the file, and a grant under the key that it has had since imports began: the next import of it opens nothing', async () => {
  const { asked } = await planOf('purpose,email,userId,phone,state\nnews,Ann@X.example,u,+49 30 901820,granted\nnews,Ann@X.example,,,withdrawn\n', () => ({ before: 'none', after: 'none', why: null }));
  const text = '{"identifiers":{"userId":"u","email":"Ann@X.example","phone":"+49 30 901820"},"purpose":"news","state":"granted"}';
  expect(asked.map(({ order, key }) => [JSON.stringify(order), key])).toEqual([[text, `import-${createHash('sha256').update(`2\u0000${text}`).digest('hex').slice(0, 40)}`], [expect.any(String), undefined]]);
});

const names = fc.record({ email: fc.constantFrom('a@x.example', 'A@x.example', 'b@x.example', 'c@x.example', 'd@x.example'), userId: fc.constantFrom('u', 'v', 'w'), externalIds: fc.array(fc.record({ type: fc.constantFrom('crm'), value: fc.constantFrom('1', '2') }), { maxLength: 2 }) }, { requiredKeys: [] });

test('each row is in one request, and those that share an identifier, also by way of others, follow each other in the order of the file, in one request where they fit', () => {
  fc.assert(fc.property(fc.array(names, { maxLength: 20 }), fc.integer({ min: 1, max: 8 }), (list, most) => {
    const rows = list.map((identifiers, line): ImportRow => ({ line, order: { identifiers, purpose: 'news', state: 'granted' } }));
    const batches = batchesOf(rows, most);
    expect(batches.flat().map((row) => row.line).sort((a, b) => a - b)).toEqual(rows.map((row) => row.line));
    for (const batch of batches) expect(batch.length).toBeLessThanOrEqual(most);
    // Who is whom, said again: the least line of all that are reached.
    const person = rows.map((_row, i) => i);
    for (let changed = true; changed;) {
      changed = false;
      for (const [a, one] of rows.entries()) {
        for (const [b, other] of rows.entries()) {
          if (person[a]! <= person[b]! || !namesOf(one.order.identifiers).some((name) => namesOf(other.order.identifiers).includes(name))) continue;
          person[a] = person[b]!;
          changed = true;
        }
      }
    }
    const order = batches.flat().map((row) => row.line);
    for (const who of new Set(person)) {
      const own = order.filter((line) => person[line] === who);
      expect(own).toEqual(own.toSorted((a, b) => a - b));
      if (own.length <= most) expect(batches.filter((batch) => batch.some((row) => own.includes(row.line)))).toHaveLength(1);
      // Nobody else in between.
      expect(order.indexOf(own.at(-1)!) - order.indexOf(own[0]!)).toBe(own.length - 1);
    }
  }), { numRuns: 300 });
});
