import { compileMapping } from '@weir/mapping';
import { H, keyedId, topicNames } from '@weir/pipeline';
import { beforeEach, expect, test } from 'vitest';
import { createLetterGuard } from './letter-privacy.ts';
import { createLetters } from './letters.ts';

const topics = topicNames('weir');
const workspaceKey = Buffer.alloc(32, 3);
const id = (type: string, value: string): string => `${type}:${keyedId(workspaceKey, type, value)}`;
const mapping = compileMapping({
  path: 'mappings/shop.yaml',
  content: `mapping: shop
outputs:
  order:
    record: Order
    when: { path: type, equals: order }
    objectKey: order.id
    fields:
      orderId: order.id
      status: { const: completed }
      email: { from: customer.mail, pipe: [email] }
      phone: { from: customer.tel, pipe: [phone] }
      total: { from: order.total, pipe: [number] }
      currency: order.currency
      externalIds: { list: [{ type: { const: shop }, value: customer.no }] }
`,
});

let marks: Map<string, number>;
let item: unknown;
let acceptedAt: number;
beforeEach(() => {
  marks = new Map([[id('email', 'ada@larkspur.example'), 1000]]);
  acceptedAt = 900;
});

/** What `weir dlq show` gets for a raw letter with these bytes. */
async function show(body: string | object): Promise<any> {
  item = typeof body === 'string' ? body : JSON.stringify(body);
  const letter = { id: 'dlq_a', eventId: 'evt_a', topic: topics.raw('shop'), partition: 0, key: Buffer.from('k'), value: Buffer.from(item as string), headers: [{ name: H.envelope, value: Buffer.from('{"by":"ada@larkspur.example"}') }, { name: H.source, value: Buffer.from('shop') }], reasons: [], acceptedAt };
  const guard = createLetterGuard({ release: () => ({ sources: new Map([['shop', { mapping }]]) }) as never, workspaceKey, erasedUntil: (ids) => Math.max(0, ...ids.map((one) => marks.get(one) ?? 0)), newestMark: () => Math.max(0, ...marks.values()) });
  const store = { deadLetter: () => ({ id: 'dlq_a', partition: 0, offset: 0, stage: 'normalizer', eventId: 'evt_a', outputId: null, destination: null, operation: null }), endedAs: () => 'dead-lettered' };
  return createLetters({ store: store as never, reader: { readOne: async () => ({ value: Buffer.from('x') }) } as never, serde: { prepare: async () => {}, decode: () => ({ value: letter }) } as never, topics, open: (bytes) => bytes, guard }).show('dlq_a');
}
const order = (mail: string, total: unknown = 'much') => ({ type: 'order', order: { id: 'o-1', total, currency: 'EUR' }, customer: { mail, tel: '+49 30 9001820' } });

test('the raw item of an erased person is not shown: neither its bytes nor its text nor what surrounded it', async () => {
  const shown = await show(order('Ada@Larkspur.example'));
  expect(shown).toMatchObject({ hidden: 'subject-erased', value: null });
  expect(JSON.stringify(shown).toLowerCase()).not.toContain('ada@');
  expect(shown.text).toBeUndefined();
});

test('the item of somebody else is shown, also where the mapping fails in a field that names nobody', async () => {
  for (const total of ['much', 5]) expect(await show(order('bob@larkspur.example', total)), String(total)).toMatchObject({ hidden: null, text: item });
});

test('an identifier stands anywhere: in a field that no mapping reads, and as a telephone number in another form', async () => {
  expect(await show({ type: 'other', deep: [{ note: ' ada@larkspur.example ' }] })).toMatchObject({ hidden: 'subject-erased' });
  marks.set(id('phone', '+49309001820'), 1000);
  expect(await show({ type: 'other', tel: '+49 (30) 900-1820' })).toMatchObject({ hidden: 'subject-erased' });
});

test('an identifier that only the mapping can make is found by it, also in an item that fails', async () => {
  marks.set(id('external', 'shop:c-7'), 1000);
  const { customer, ...rest } = order('bob@larkspur.example');
  expect(await show({ ...rest, customer: { ...customer, no: 'c-7' } })).toMatchObject({ hidden: 'subject-erased' });
  expect(await show({ ...rest, customer: { ...customer, no: 'c-8' } })).toMatchObject({ hidden: null });
});

test('where nothing tells whose it is, what was accepted before the newest erasure stays closed, and later ones are shown', async () => {
  const unknown = [{ type: 'other', who: 'somebody' }, { ...order('bob@larkspur.example'), customer: { mail: 'bob@larkspur.example', tel: 'ask me' } }, { type: 'order', order: { id: 'o-1', total: 5, currency: 'EUR' } }, 'no json'];
  for (const body of unknown) expect(await show(body), JSON.stringify(body)).toMatchObject({ hidden: 'maybe-erased', value: null });
  acceptedAt = 1001;
  for (const body of [...unknown, order('ada@larkspur.example')]) expect(await show(body)).toMatchObject({ hidden: null, text: item });
});

test('where nobody was ever erased everything is shown', async () => {
  marks.clear();
  expect(await show('no json')).toMatchObject({ hidden: null, text: 'no json' });
});
