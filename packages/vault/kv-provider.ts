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

/** Versions of before that are looked at: each is a call. */
const maxVersions = 5;

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
      let newer = await get();
      const out = new Map<string, StoredSecret>();
      for (const [name, value] of Object.entries((newer?.data ?? {}) as Record<string, unknown>)) if (typeof value === 'string') out.set(name, { value });
      // Back as far as a version was replaced within the overlap: another field may have been written since this one was rotated.
      for (let looked = 0; looked < maxVersions; looked++) {
        const version = Number(newer?.metadata?.version ?? 0);
        const previousUntil = Date.parse(String(newer?.metadata?.created_time ?? '')) + options.overlapMs;
        if (version <= 1 || !(now() < previousUntil)) break;
        newer = await get(version - 1);
        for (const [name, stored] of out) {
          const previous: unknown = newer?.data?.[name];
          if (stored.previous === undefined && typeof previous === 'string' && previous !== stored.value) out.set(name, { ...stored, previous, previousUntil });
        }
      }
      return out;
    },
  };
}
