import { expect, test } from 'vitest';
import { WeirError } from '@weir/errors';
import { call, itemOf, readBack } from './call.ts';
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
