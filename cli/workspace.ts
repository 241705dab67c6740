import { readAdapterFile, registry } from '@weir/adapters';
import type { WorkspaceProblem } from '@weir/errors';
import { assertPolicyTests, compileRelease, readWorkspace, withDefaults, type Release, type ReleaseFile } from '@weir/release';
import { printable, type Terminal } from './terminal.ts';

/** Checks only: nothing is hashed with it. */
const checkKey = Buffer.alloc(32);

/** The files of a workspace folder, the adapters' default mappings included. Throws WorkspaceError. */
export function readFolder(dir: string): ReleaseFile[] {
  return withDefaults(readWorkspace(dir), registry, readAdapterFile);
}

/** The workspace folder as a whole release that passes its policy tests. Throws WorkspaceError. */
export function compileFolder(dir: string): Release {
  const release = compileFiles(readFolder(dir));
  assertPolicyTests(release);
  return release;
}

/** To stderr, as problems are; the workspace is valid all the same. */
export function printAdvice(terminal: Terminal, advice: readonly WorkspaceProblem[]): void {
  for (const { file, line, message, remedy } of advice) terminal.error(`${terminal.paint.yellow('warning')}  ${printable(file)}:${line}: ${printable(message)}\n  remedy: ${printable(remedy)}`);
}

export function compileFiles(files: readonly ReleaseFile[]): Release {
  return compileRelease(files, { adapters: registry, workspaceKey: checkKey });
}
