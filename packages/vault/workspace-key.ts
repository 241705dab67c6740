import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { WeirError } from '@weir/errors';

/** The workspace key, 32 bytes: WEIR_KEY when given, else `<dataDir>/workspace.key`, made once with mode 0600. It must not change: keyed ids depend on it. */
export function readWorkspaceKey(dataDir: string, given: string | undefined): Buffer {
  const decode = (text: string, where: string): Buffer => {
    const key = Buffer.from(text.trim(), 'base64url');
    if (key.length !== 32) throw new WeirError('config-invalid', `${where}: expected 32 bytes in base64url`);
    return key;
  };
  if (given !== undefined) return decode(given, 'WEIR_KEY');
  const file = join(dataDir, 'workspace.key');
  mkdirSync(dataDir, { recursive: true });
  try {
    writeFileSync(file, randomBytes(32).toString('base64url'), { mode: 0o600, flag: 'wx' });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
  return decode(readFileSync(file, 'utf8'), file);
}
