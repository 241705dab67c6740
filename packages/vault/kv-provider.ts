import { WeirError } from '@weir/errors';
import { createSession, type SessionOptions } from './session.ts';
import type { StoredSecret } from './types.ts';

/** HashiCorp Vault or OpenBao: one KV v2 document holds the secrets of the workspace, a field per name. */
export interface KvOptions extends SessionOptions {
  /** `<mount>/<path>`, e.g. secret/weir. */
  readonly path: string;
  /** How long the value before a rotation stays accepted, ms. */
  readonly overlapMs: number;
}

export interface SecretProvider {
  /** Every secret. Throws WeirError secret-unavailable; its message holds no secret. */
  read(): Promise<ReadonlyMap<string, StoredSecret>>;
}

/** Reads the document. One read at a time is the caller's care. */
export function createKvProvider(options: KvOptions): SecretProvider {
  const { now } = options;
  const slash = options.path.indexOf('/');
  if (slash < 1) throw new WeirError('config-invalid', `vault path ${JSON.stringify(options.path)}: expected <mount>/<path>`);
  const dataPath = `/v1/${options.path.slice(0, slash)}/data/${options.path.slice(slash + 1)}`;
  const session = createSession(options);

  async function get(version?: number): Promise<any> {
    const found = await session.call(version === undefined ? dataPath : `${dataPath}?version=${version}`, 'GET');
    // An older version that was deleted or destroyed answers 404: there is nothing to overlap with.
    if (version !== undefined && found.status === 404) return undefined;
    if (found.status !== 200) throw session.refused(options.path, found.status);
    return found.body?.data;
  }

  return {
    async read() {
      const current = await get();
      const version = Number(current?.metadata?.version ?? 0);
      const previousUntil = Date.parse(String(current?.metadata?.created_time ?? '')) + options.overlapMs;
      const before = version > 1 && now() < previousUntil ? await get(version - 1) : undefined;
      const out = new Map<string, StoredSecret>();
      for (const [name, value] of Object.entries((current?.data ?? {}) as Record<string, unknown>)) {
        if (typeof value !== 'string') continue;
        const previous: unknown = before?.data?.[name];
        out.set(name, typeof previous === 'string' && previous !== value ? { value, previous, previousUntil } : { value });
      }
      return out;
    },
  };
}
