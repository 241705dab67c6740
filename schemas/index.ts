import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

export interface AvroField { readonly name: string; readonly type: unknown; readonly doc?: string; readonly default?: unknown }
export interface AvroRecord { readonly type: 'record'; readonly name: string; readonly namespace: string; readonly doc?: string; readonly fields: readonly AvroField[] }

/** A `country` that was said and cannot be read: user-assigned in ISO 3166-1, nobody's. It stays within Weir. */
export const unknownCountry = 'ZZ';

let loaded: ReadonlyMap<string, AvroRecord> | undefined;

/** Every schema of schemas/{canonical,internal}, by full record name, e.g. weir.canonical.Profile. */
export function loadSchemas(): ReadonlyMap<string, AvroRecord> {
  if (loaded !== undefined) return loaded;
  const found = new Map<string, AvroRecord>();
  for (const folder of ['canonical', 'internal']) {
    const dir = join(import.meta.dirname, folder);
    for (const file of readdirSync(dir).sort()) {
      if (!file.endsWith('.avsc')) continue;
      const schema = JSON.parse(readFileSync(join(dir, file), 'utf8')) as AvroRecord;
      found.set(`${schema.namespace}.${schema.name}`, schema);
    }
  }
  return loaded = found;
}
