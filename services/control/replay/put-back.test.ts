import { H, standings, type Standing } from '@weir/pipeline';
import { expect, test } from 'vitest';
import { recordOf } from './put-back.ts';
import type { Item, UnknownRule } from './select.ts';

type Some = Parameters<typeof recordOf>[1];
const looked = (destination: string, standing: Standing): Item['deliveries'][number] => ({ facts: { outputId: 'out_1', destination, operation: 'put' }, found: { standing } }) as never;
const item = (deliveries: Item['deliveries'], more: Partial<Some> = {}): Some => ({ origin: { topic: 't.raw.shop', partition: 0, offset: 1, key: Buffer.from('k'), value: Buffer.from('v'), headers: [[H.settled, Buffer.from('of an order before')]] }, from: 't.raw.shop/0/1', kind: 'derived', deliveries, ...more });
const order = { id: 'rpl_1', from: 'raw', destination: null, unknown: 'hold' } as const satisfies { id: string } & UnknownRule;
const settled = (of: Some, by: { id: string } & UnknownRule = order): (string | undefined)[] => recordOf(by, of).headers!.filter(([name]) => name === H.settled).map(([, value]) => value.toString());

test('a record that is decided anew says which of its deliveries the order does not send: what the vendor has, is on its way or may not be sent again', () => {
  const all = standings.map((standing) => looked(standing, standing));
  expect(settled(item(all))).toEqual(['confirmed', 'unknownHeld', 'applied', 'pending', 'failedOver', 'conflict'].map((name) => `out_1/${name}/put`).join(',').split('|'));
  expect(settled(item(all), { ...order, unknown: 'resend' })[0]!.split(',')).not.toContain('out_1/unknownHeld/put');
  // Of dead letters that name no destination nobody looked at what may be sent again.
  expect(settled(item(all), { ...order, from: 'dlq', unknown: 'resend' })[0]!.split(',')).toContain('out_1/unknownHeld/put');
});

test('what a correction sends once more is not said to be settled, nor has a delivery or a record of which all is sent such a header', () => {
  const deliveries = [looked('crm', 'confirmed'), looked('mail', 'confirmed')];
  expect(settled(item(deliveries, { corrects: 'out_1/crm/put=fix_1' }))).toEqual(['out_1/mail/put']);
  expect(settled(item([looked('crm', 'notApplied'), looked('mail', 'denied')]))).toEqual([]);
  expect(settled(item([looked('crm', 'applied')], { kind: 'delivery' }))).toEqual([]);
});

test('what an erasure leaves out of a record of its own is left out again, beside what an order does; what an order before left out is not', () => {
  const erasure = { ...looked('crm', 'confirmed'), facts: { ...looked('crm', 'confirmed').facts, source: 'weir-erasure' } } as Item['deliveries'][number];
  const { origin } = item([]);
  const headers = [[H.settled, Buffer.from('out_1/mail/erase')]] as const;
  expect(settled(item([erasure], { origin: { ...origin, headers } }))).toEqual(['out_1/mail/erase,out_1/crm/put']);
  expect(settled(item([erasure], { origin: { ...origin, headers: [...headers, [H.intent, Buffer.from('rpl_0')]] } }))).toEqual(['out_1/crm/put']);
});

test('the header stays small, however many records an item has', () => {
  const many = Array.from({ length: 20_000 }, (_, i) => looked(`destination-${i}`, 'confirmed'));
  const [text] = settled(item(many));
  expect(text!.length).toBeLessThanOrEqual(65_536);
  expect(text!.split(',').every((name) => /^out_1\/destination-\d+\/put$/.test(name))).toBe(true);
});
