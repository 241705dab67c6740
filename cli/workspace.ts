import { readAdapterFile, registry } from '@weir/adapters';
import { compileRelease, readWorkspace, withDefaults, type Release, type ReleaseFile } from '@weir/release';

/** Checks only: nothing is hashed with it. */
const checkKey = Buffer.alloc(32);

/** The workspace folder as a whole release, the adapters' default mappings included. Throws WorkspaceError. */
export function compileFolder(dir: string): Release {
  return compileFiles(withDefaults(readWorkspace(dir), registry, readAdapterFile));
}

export function compileFiles(files: readonly ReleaseFile[]): Release {
  return compileRelease(files, { adapters: registry, workspaceKey: checkKey });
}
