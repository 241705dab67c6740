import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { replaceFile } from '@weir/durable';
import { WeirError } from '@weir/errors';
import { locked, parseJson, readBounded } from './sealed-file.ts';

const namesName = 'vault-names.json';

const unavailable = (what: string, error: unknown): WeirError => (error instanceof WeirError ? error : new WeirError('secret-unavailable', `${what} (${(error as NodeJS.ErrnoException).code ?? 'unknown'})`, { cause: error }));

/** Names of the secrets that the remote provider had when a process of this data folder read it last; none before the first read. Throws secret-unavailable when nobody can say. */
export function remoteNames(dataDir: string): ReadonlySet<string> {
  const file = join(dataDir, namesName);
  try {
    return new Set(parseJson(readBounded(file), file) as readonly string[]);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return new Set();
    throw unavailable(`${file} cannot be read`, error);
  }
}

/** Keeps them for the processes that start while the provider cannot be asked; nothing is written while they stay the same. Throws secret-unavailable when they cannot be kept. */
export function keepRemoteNames(dataDir: string, names: ReadonlySet<string>): void {
  const file = join(dataDir, namesName);
  const text = `${JSON.stringify([...names].sort())}\n`;
  if (written(file) === text) return;
  try {
    // The services of one folder read the provider at the same time.
    locked(dataDir, () => { replaceFile(file, text, 0o600); });
  } catch (error) {
    throw unavailable(`the names of the vault's secrets cannot be kept in ${file}`, error);
  }
}

function written(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
}
