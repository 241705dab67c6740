import { expect, test } from 'vitest';
import type { HttpFailure } from '@weir/adapter';
import { WeirError } from '@weir/errors';
import { destination as http } from '../../adapters/http/destination.ts';
import { call, callBatch, itemOf, readBack, tellQuota, type CallResult } from './call.ts';
import type { PartitionRunner } from './partition.ts';
import type { DestinationPorts } from './ports.ts';
import type { Task } from './types.ts';

test('a request that may not be sent ends its delivery, and is no call and no answer of the vendor', async () => {
  const task = { delivery: { payload: Buffer.alloc(0), operation: 'put' }, key: 'k', path: '', object: 'p', attempts: 0, maybeSince: 0 } as unknown as Task;
  const ports = {
    callTimeoutMs: 1000, clock: { now: () => 1, monotonic: () => 1 }, serde: { decode: () => ({ value: {} }) },
    http: { call: () => Promise.resolve({ failure: 'unsendable', sent: false, detail: 'header "x" has characters that are not allowed' }) },
  } as unknown as DestinationPorts;
  const destination = { config: {}, adapter: { destination: { request: () => ({}), classify: () => { throw new Error('there is no answer'); } } } } as never;
  expect(await call(ports, {} as PartitionRunner, destination, task, { kind: 'use' } as never)).toEqual({ kind: 'unbuildable', code: 'delivery-unbuildable', detail: 'header "x" has characters that are not allowed' });
  expect(task).toMatchObject({ attempts: 0, maybeSince: 0 });
});

test('what no mapping named is handed to no adapter, and no country that is not known', async () => {
  const bodies: string[] = [];
  const countries = ['ZZ', 'DE', undefined];
  const task = { delivery: { payload: Buffer.alloc(0), operation: 'put' }, key: 'k', path: '', object: 'p', attempts: 0, maybeSince: 0 } as unknown as Task;
  const ports = {
    callTimeoutMs: 1000, clock: { now: () => 1, monotonic: () => 1 }, serde: { decode: () => ({ value: { email: 'a@x.example', extras: '{"secret":1}', country: countries.shift() } }) },
    http: { call: () => Promise.resolve({ failure: 'unsendable', sent: false, detail: '' }) },
  } as unknown as DestinationPorts;
  const destination = { config: {}, adapter: { destination: { request: ({ record }: { record: object }) => {
    bodies.push(JSON.stringify(record));
    return {};
  } } } } as never;
  for (let i = 0; i < 3; i++) await call(ports, {} as PartitionRunner, destination, task, { kind: 'use' } as never);
  expect(bodies).toEqual(['{"email":"a@x.example","country":null}', '{"email":"a@x.example","country":"DE"}', '{"email":"a@x.example"}']);
});

test('a delivery whose payload is no record is called for by nobody and ends for its bytes, alone, in a batch and when the vendor is asked; what else fails there is no fault of the bytes', async () => {
  const make = (error: Error) => {
    const task = { delivery: { payload: Buffer.from('broken'), operation: 'put' }, key: 'k', path: '', object: 'p', attempts: 0, maybeSince: 0 } as unknown as Task;
    const ports = { callTimeoutMs: 1000, clock: { now: () => 1, monotonic: () => 1 }, serde: { decode: () => { throw error; } }, http: { call: () => { throw new Error('called'); } } } as unknown as DestinationPorts;
    const destination = { config: {}, adapter: { destination: { request: () => ({}), verify: {}, batch: { item: () => '' } } } } as never;
    return [
      () => call(ports, {} as PartitionRunner, destination, task, { kind: 'use' } as never),
      async () => itemOf(ports, task, destination),
      () => readBack(ports, {} as PartitionRunner, destination, task, { verify: {} } as never),
    ];
  };
  for (const code of ['avro-undecodable', 'schema-unknown'] as const) for (const ask of make(new WeirError(code, 'truncated'))) expect(await ask()).toEqual({ kind: 'unbuildable', code, detail: 'the payload of the delivery: truncated' });
  for (const ask of make(new Error('out of memory'))) await expect(ask()).rejects.toThrow('out of memory');
});

test('what a batch is refused for as a whole is told from what one item is refused for, also of items that the answer does not list', async () => {
  const config = { baseUrl: 'https://api.example', authHeader: 'authorization', operations: { put: { accepts: ['Event'], path: '/rows', body: {}, idempotency: { scheme: 'body-field', name: '/key' }, verdicts: [{ status: 402, verdict: 'permanent', effect: 'none', vendorSide: true }, { status: 208, verdict: 'permanent', effect: 'done' }], batch: { results: { path: 'results', key: 'id', status: 'code' } } } } };
  /** What each of so many deliveries is told: its verdict, and with how many it shares the refusal. */
  async function told(count: number, answer: { readonly status: number; readonly results?: readonly { readonly id: string; readonly code: number }[] } | HttpFailure): Promise<string[]> {
    const response = 'failure' in answer ? answer : { status: answer.status, headers: {}, body: Buffer.from(JSON.stringify({ results: answer.results })) };
    const ports = {
      name: 'crm', callTimeoutMs: 1000, clock: { now: () => 1, monotonic: () => 1 }, serde: { decode: () => ({ value: {} }) }, metrics: { calls: { observe: () => undefined } }, http: { call: () => Promise.resolve(response) },
    } as unknown as DestinationPorts;
    const destination = { config, adapter: { destination: http } } as never;
    const members = Array.from({ length: count }, (_, i) => ({ runner: {} as PartitionRunner, task: { delivery: { payload: Buffer.alloc(0), operation: 'put' }, key: `k${i}`, path: '', object: 'p', attempts: 0, maybeSince: 0 } as unknown as Task }));
    const items = members.map(({ task }) => itemOf(ports, task, destination));
    const results = await callBatch(ports, members, items as never, destination, { kind: 'use' } as never);
    return results.map((r: CallResult) => (r.kind === 'verdict' ? `${r.verdict.kind} ${r.sharedBy ?? 'own'}` : r.kind));
  }
  expect(await told(3, { status: 400 })).toEqual(['permanent 3', 'permanent 3', 'permanent 3']);
  expect(await told(1, { status: 400 })).toEqual(['permanent own']);
  expect(await told(2, { failure: 'too-large', sent: true, detail: '' })).toEqual(['permanent 2', 'permanent 2']);
  expect(await told(3, { status: 400, results: [{ id: 'k1', code: 400 }] })).toEqual(['permanent 3', 'permanent own', 'permanent 3']);
  expect(await told(2, { status: 400, results: [{ id: 'k0', code: 400 }] })).toEqual(['permanent own', 'permanent 2']);
  expect(await told(2, { status: 200, results: [{ id: 'k0', code: 400 }, { id: 'k1', code: 200 }] })).toEqual(['permanent own', 'ok own']);
  // Of the destination, the credential, the vendor's own reasons, and what is done: in no other way than before.
  expect(await told(2, { status: 401 })).toEqual(['auth-broken own', 'auth-broken own']);
  expect(await told(2, { status: 503 })).toEqual(['retry own', 'retry own']);
  expect(await told(2, { status: 402 })).toEqual(['permanent own', 'permanent own']);
  expect(await told(2, { status: 208 })).toEqual(['permanent own', 'permanent own']);
});

test('the quota hears of a call that was kept back, or that cannot be built, that it was not sent', () => {
  const sent: unknown[] = [];
  const ports = { clock: { monotonic: () => 1 }, quota: { finished: (_bucket: string, end: { sent: boolean }) => { sent.push(end.sent); } } } as unknown as DestinationPorts;
  tellQuota(ports, 'put', { kind: 'refused', reason: 'lease', detail: '' }, undefined);
  tellQuota(ports, 'put', { kind: 'unbuildable', code: 'delivery-unbuildable', detail: '' }, undefined);
  tellQuota(ports, 'put', { kind: 'verdict', verdict: { kind: 'ok', effect: 'done' } }, { kind: 'ok' });
  expect(sent).toEqual([false, false, true]);
});

/** A dispatcher whose socket write is asked for at monotonic 100 with a deadline of 50 ms; what is given differs from one that may go. */
function atTheWrite({ leaseUntil = 200, holds = true, closed = false, covers = true, kind = 'restrict' }: { leaseUntil?: number; holds?: boolean; closed?: boolean; covers?: boolean; kind?: 'use' | 'restrict' }): { readonly written: string[]; readonly result: () => Promise<CallResult> } {
  const written: string[] = [];
  const task = { delivery: { payload: Buffer.alloc(0), operation: 'put' }, key: 'k', path: '', object: 'p', attempts: 0, maybeSince: 0 } as unknown as Task;
  const runner = { partition: 3, epoch: 7, closed: () => closed } as unknown as PartitionRunner;
  const ports = {
    name: 'crm', callTimeoutMs: 50, topics: { dispatch: (name: string) => `dispatch.${name}` }, clock: { now: () => 1, monotonic: () => 100 }, serde: { decode: () => ({ value: {} }) },
    consumer: () => ({ leaseUntil: () => leaseUntil, holds: (topic: string, partition: number, epoch: number) => holds && topic === 'dispatch.crm' && partition === 3 && epoch === 7 }),
    lease: { covers: () => covers, began: () => () => undefined }, destination: () => ({ enabled: true }), metrics: { calls: { observe: () => undefined } },
    http: { call: (_request: unknown, { onBeforeWrite }: { onBeforeWrite: () => boolean }) => {
      if (!onBeforeWrite()) return Promise.resolve({ failure: 'aborted', sent: false, detail: '' });
      written.push('k');
      return Promise.resolve({ status: 200, headers: {}, body: Buffer.alloc(0) });
    } },
  } as unknown as DestinationPorts;
  const destination = { config: {}, adapter: { destination: { request: () => ({}), classify: () => ({ kind: 'ok', effect: 'done' }) } } } as never;
  return { written, result: () => call(ports, runner, destination, task, { kind } as never) };
}

test.each([
  ['the assignment may end before the deadline of the call', { leaseUntil: 150 }],
  ['the partition has another owner, or this one took it over anew', { holds: false }],
  ['the runner of the partition was closed', { closed: true }],
  ['the lease of consent may end before the deadline of a use', { kind: 'use', covers: false }],
] as const)('nothing is written to a vendor when, in the tick of the write, %s (I3, I6)', async (_what, given) => {
  const { written, result } = atTheWrite(given);
  expect(await result()).toMatchObject({ kind: 'refused', reason: 'lease' });
  expect(written).toEqual([]);
});

test('a call that its leases cover is written, a restrict whatever the lease of consent says', async () => {
  for (const given of [{ leaseUntil: 151 }, { covers: false }]) {
    const { written, result } = atTheWrite(given);
    expect(await result()).toMatchObject({ kind: 'verdict', verdict: { kind: 'ok' } });
    expect(written).toEqual(['k']);
  }
});
