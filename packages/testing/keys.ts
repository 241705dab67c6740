import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Log, Serde } from '@weir/log';
import { createKeyRing, type KeyRing } from '@weir/seal';
import { createLogger } from '@weir/telemetry';
import { readWorkspaceKey } from '@weir/vault';

/** The keys of an instance or a fleet, for a test that reads what it has sealed. `stop` removes its folder, too. */
export async function readKeys(options: { readonly log: Log; readonly serde: Serde; readonly prefix: string; readonly dataDir: string }): Promise<KeyRing> {
  const stateDir = mkdtempSync(join(tmpdir(), 'weir-keys-'));
  const ring = await createKeyRing({ log: options.log, serde: options.serde, topic: `${options.prefix}.keys`, workspaceKey: readWorkspaceKey(options.dataDir, undefined), stateDir, logger: createLogger({ service: 'test', level: 'silent' }), now: Date.now }, (error) => { throw error; });
  await ring.start();
  return { ...ring, stop: () => ring.stop().then(() => rmSync(stateDir, { recursive: true, force: true })) };
}
