import { expect, test } from 'vitest';
import type { ConsentAnswer } from './consent-api.ts';
import { tellLinked } from './subject-tell.ts';

const receipt = (destination: string, state: string, reason: string | null = null) => ({ destination, state, reason });

/** A control API with these receipts of the change, one list after the other, and this export. */
function api(receipts: readonly (readonly ReturnType<typeof receipt>[])[], lines: readonly object[]) {
  let looked = 0;
  const sent: [string, object][] = [];
  const client = {
    find: async <T>() => ({ receipts: receipts[Math.min(looked++, receipts.length - 1)] }) as T,
    // Cut anywhere.
    async *stream() { for (const part of lines.map((line) => `${JSON.stringify(line)}\n`).join('').match(/.{1,40}/gs) ?? []) yield part; },
  };
  const send = async (purpose: string, identifiers: object): Promise<ConsentAnswer> => { sent.push([purpose, identifiers]); return { status: 200, id: 'evt_b', state: 'applied' }; };
  return { sent, tell: () => tellLinked(client, 'userId:u', { userId: 'u' }, [{ purpose: '*', id: 'evt_0' }, { purpose: 'news', id: 'evt_a' }], send, 2000) };
}
const missed = [receipt('crm', 'delivered'), receipt('mail', 'denied', 'identifier-unknown'), receipt('ads', 'no-route')];

test('a vendor that knows a stopped person by the address is told by the newest one of the records; the given identifier stays', async () => {
  const { sent, tell } = api([[], [receipt('crm', 'pending')], missed], [{ record: { userId: 'v', email: 'old@larkspur.example', phone: null } }, { record: null }, { record: { email: 'new@larkspur.example' } }]);
  expect(await tell()).toEqual({ destinations: ['mail'], by: ['email'], changes: [{ purpose: 'news', id: 'evt_b', state: 'applied', message: undefined }] });
  expect(sent).toEqual([['news', { userId: 'u', email: 'new@larkspur.example' }]]);
});

test('an identifier that no record has is taken from what links keep, the newest; one of a record goes before it', async () => {
  const link = (userId: string | null, email: string | null, phone: string | null) => ({ at: '2026-11-01T00:00:00.000Z', link: { userId, email, phone } });
  const { sent, tell } = api([missed], [{ record: { email: 'new@larkspur.example' } }, link(null, 'linked@larkspur.example', null), link('u', null, '+4930901820'), link('u', null, '+4930901821')]);
  expect((await tell())?.by).toEqual(['email', 'phone']);
  expect(sent).toEqual([['news', { userId: 'u', email: 'new@larkspur.example', phone: '+4930901820' }]]);
});

test('where every vendor was told nothing is read and nothing sent again', async () => {
  const { sent, tell } = api([[receipt('mail', 'delivered'), receipt('crm', 'denied', 'consent-origin')]], [{ record: { email: 'new@larkspur.example' } }]);
  expect([await tell(), sent]).toEqual([undefined, []]);
});

test.each([
  ['no record has one, and no link', [{ record: { userId: 'u' } }, { link: { userId: 'u', email: null, phone: null } }]],
  ['the records may be of several people', [{ incomplete: 'more than 64 identifiers' }, { record: { email: 'else@larkspur.example' } }]],
])('%s: nothing is sent under an identifier, and the vendor is named', async (_what, lines) => {
  const { sent, tell } = api([missed], lines);
  expect([await tell(), sent]).toEqual([{ destinations: ['mail'], by: [], changes: [] }, []]);
});
