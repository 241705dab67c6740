import { keepPending, localLeaf } from '@weir/audit';
import { createClient, hasCredentials, Unreachable } from './client.ts';
import type { Target } from './command.ts';
import { localUser } from './person.ts';

/** What a `weir vault` command is about to do, as its audit action says: vault.<change>. */
export type VaultChange = 'set' | 'remove' | 'rotate-key' | 'wrap-key' | 'migrate';

export interface ChangeLeaf {
  readonly id: string;
  /** True: it waits in the data folder until its control service runs. */
  readonly waits: boolean;
  /** The change was made. */
  done(): void;
}

/**
 * No leaf, no change: the leaf is acknowledged on weir.audit by the control API of the instance, or, where none answers
 * (the first secrets are set before there is one), on disk beside the secrets. A control API that refuses is not gone around.
 */
export async function leafBefore(target: Target, change: VaultChange, name?: string): Promise<ChangeLeaf> {
  if (hasCredentials(target)) {
    try {
      const { leaf } = await createClient(target).post<{ leaf: string }>('/v1/vault/changes', name === undefined ? { change } : { change, name });
      return { id: leaf, waits: false, done() {} };
    } catch (error) {
      if (!(error instanceof Unreachable)) throw error;
    }
  }
  const write = (kind: 'intent' | 'end', of: string | null) => {
    const leaf = localLeaf(kind, localUser(), `vault.${change}`, name ?? null, of, Date.now());
    keepPending(target.dataDir, leaf);
    return leaf.id;
  };
  const id = write('intent', null);
  return { id, waits: true, done: () => { write('end', id); } };
}
