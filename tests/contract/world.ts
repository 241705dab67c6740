import { randomBytes } from 'node:crypto';
import type { Adapter, AdapterConfig, ConfigSchema, InboundRequest, Item, JsonObject, SamplePerson, WebhookSource } from '@weir/adapter';
import { readAdapterFile, registry } from '@weir/adapters';
import { compileMapping, type CompiledMapping, type MappingResult } from '@weir/mapping';
import { itemEventId, itemHash } from '@weir/pipeline';

export const now = Date.UTC(2026, 0, 2, 3, 4, 5);
export const person: SamplePerson = { email: 'ann@larkspur.example', userId: 'u-1', phone: '+4930123456', firstName: 'Ann', lastName: 'Berg', country: 'DE' };

/** Config as an adapter gets it: defaults, and a random secret for every secret option. */
export function configOf(schema: ConfigSchema, over: Readonly<Record<string, unknown>> = {}): AdapterConfig {
  const config: Record<string, unknown> = {};
  for (const [name, field] of Object.entries(schema)) {
    if (field.secret === true) config[name] = randomBytes(32).toString('base64url');
    else if (field.default !== undefined) config[name] = field.default;
  }
  return { ...config, ...over };
}

export interface WebhookCase {
  readonly name: string;
  readonly adapter: Adapter;
  readonly source: WebhookSource;
  /** What `verify` gets, and what `sign` gets: another key for asymmetric signatures. */
  readonly config: AdapterConfig;
  readonly signing: AdapterConfig;
}

/** Every webhook source of the registry, with keys made as a local run makes them. */
export function webhookCases(): WebhookCase[] {
  return [...registry.values()].flatMap((adapter) => {
    const { source } = adapter;
    if (source?.kind !== 'webhook') return [];
    const base = configOf(adapter.manifest.source!.config);
    const secrets = Object.entries(source.localSecrets?.() ?? {});
    const config = { ...base, ...Object.fromEntries(secrets.map(([k, s]) => [k, s.value])) };
    const signing = { ...config, ...Object.fromEntries(secrets.map(([k, s]) => [k, s.signingValue ?? s.value])) };
    return [{ name: adapter.manifest.name, adapter, source, config, signing }];
  });
}

export function signed(it: WebhookCase, body: Buffer, at = now, url?: string): InboundRequest {
  const { path, headers } = it.source.sign(body, it.signing, at);
  return { method: 'POST', url: url ?? path ?? `/webhooks/${it.name}`, headers, body };
}

const mappings = new Map<string, CompiledMapping>();

/** The mapping that ships with an adapter, compiled. */
export function mappingOf(adapter: string): CompiledMapping {
  let found = mappings.get(adapter);
  if (found === undefined) {
    const path = registry.get(adapter)!.manifest.source!.mapping!;
    found = compileMapping({ path: `adapters/${adapter}/${path}`, content: readAdapterFile(adapter, path) });
    mappings.set(adapter, found);
  }
  return found;
}

export interface MappedItem {
  readonly item: Item;
  readonly eventId: string;
  readonly objectKey: string | undefined;
  readonly result: MappingResult;
}

/** As ingest and normalizer do it: split, identify, map. */
export function take(it: WebhookCase, request: InboundRequest): MappedItem[] {
  const { items, envelope } = it.source.split(request, it.config);
  return items.map((item) => mapItem(it, item, envelope));
}

function mapItem(it: WebhookCase, item: Item, envelope: JsonObject | undefined): MappedItem {
  const identity = it.source.identify(item, it.config, envelope);
  const id = itemEventId(it.name, identity, itemHash(item.bytes));
  return { item, eventId: id, objectKey: identity.objectKey, result: mappingOf(it.name).apply(item.value, envelope, { eventId: id, source: it.name, acceptedAt: now }) };
}
