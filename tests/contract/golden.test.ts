/**
 * Recorded cases of every adapter: adapters/<tool>/golden/<case>.in.json, through the adapter and its own mapping, gives
 * <case>.out.json. What changed on purpose is recorded anew by `vitest run tests/contract/golden.test.ts -u`.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { AdapterConfig, Delivery, Json, PollSource } from '@weir/adapter';
import { registry } from '@weir/adapters';
import { describe, expect, test } from 'vitest';
import { now, take, webhookCases } from './world.ts';

const root = resolve(import.meta.dirname, '../../adapters');

interface SourceInput { readonly url: string; readonly headers: Record<string, string>; readonly body: Json }
interface PollInput { readonly config: AdapterConfig; readonly cursor: Json; readonly status: number; readonly headers: Record<string, string>; /** Text is taken as the bytes of the page. */ readonly page: Json }
interface DestinationInput { readonly config: AdapterConfig; readonly key: string; readonly delivery: Delivery }

function webhook(tool: string, input: SourceInput): unknown {
  const it = webhookCases().find((c) => c.name === tool)!;
  return take(it, { method: 'POST', url: input.url, headers: input.headers, body: Buffer.from(JSON.stringify(input.body)) })
    // What a failed item would have given is written nowhere.
    .map(({ eventId, objectKey, result }) => ({ eventId, objectKey, ...result, ...(result.kind === 'failed' ? { outputs: undefined } : {}) }));
}

function poll(source: PollSource, input: PollInput): unknown {
  const { items, cursor, more } = source.page({ status: input.status, headers: input.headers, body: Buffer.from(typeof input.page === 'string' ? input.page : JSON.stringify(input.page)) }, input.cursor, input.config, now);
  return { request: source.request(input.cursor, input.config, now), items: items.map((item) => ({ bytes: item.bytes.toString(), ...source.identify(item, input.config) })), cursor, more, next: source.request(cursor, input.config, now).url };
}

function deliver(tool: string, input: DestinationInput): unknown {
  const request = registry.get(tool)!.destination!.request(input.delivery, input.key, input.config, now);
  return { ...request, body: request.body === undefined ? undefined : JSON.parse(String(request.body)) as Json };
}

describe.each([...registry.keys()])('%s', (tool) => {
  const dir = join(root, tool, 'golden');
  const names = readdirSync(dir).filter((f) => f.endsWith('.in.json')).map((f) => f.slice(0, -8)).sort();

  test('has cases, and no recorded answer without its case', () => {
    expect(names.length).toBeGreaterThan(0);
    expect(readdirSync(dir).sort()).toEqual(names.flatMap((n) => [`${n}.in.json`, `${n}.out.json`]));
  });

  test.each(names)('%s', async (name) => {
    const input = JSON.parse(readFileSync(join(dir, `${name}.in.json`), 'utf8')) as Record<string, Json>;
    const { source } = registry.get(tool)!;
    const output = 'delivery' in input ? deliver(tool, input as never) : source?.kind === 'poll' ? poll(source, input as never) : webhook(tool, input as never);
    await expect(`${JSON.stringify(output, null, 2)}\n`).toMatchFileSnapshot(join(dir, `${name}.out.json`));
  });
});
