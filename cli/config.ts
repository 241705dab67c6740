import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { commonOptions, defineConfig, readConfig, vaultOptions } from '@weir/config';
import { unwrapEnv } from '@weir/vault';
import type { Target } from './command.ts';

export const options = defineConfig({
  port: { env: 'WEIR_PORT', type: 'integer', min: 1, max: 65_000, default: 8080, doc: 'Base port of the running instance; the control API is one above.' },
  host: { env: 'WEIR_HOST', type: 'string', default: '127.0.0.1', doc: 'Address of the running instance.' },
  dataDir: { env: 'WEIR_DATA', type: 'string', optional: true, doc: 'Data folder of the running instance: admin token and local secrets; default .weir here, else in the repository.' },
  token: { env: 'WEIR_TOKEN', type: 'secret', optional: true, doc: 'API token or OIDC access token to use; default: the admin token, as WEIR_SECRET_ADMIN_TOKEN or from the data folder.' },
  workspaceKey: { ...commonOptions.workspaceKey, doc: 'Workspace key of the running instance, in the clear or wrapped (vault:v…); default: <WEIR_DATA>/workspace.key. It opens the sealed secrets.' },
});

const unwrapDeadlineMs = 5000;

/** Finds the instance; a wrapped workspace key is opened, for this process, unless it is asked for as it is. Rejects with config-invalid or secret-unavailable. */
export async function readTarget(given: Readonly<Record<string, string | undefined>>, root: string, keyAsGiven = false): Promise<Target> {
  const env = keyAsGiven ? given : await unwrapEnv(given, () => readConfig(vaultOptions, given), unwrapDeadlineMs);
  const { port, host, dataDir } = readConfig(options, env);
  return { host, port, env, dataDir: dataDir ?? (existsSync('.weir') ? '.weir' : join(root, '.weir')) };
}
