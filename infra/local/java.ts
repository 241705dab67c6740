import { execFile } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
export const minimumJava = 21;

/** Major version from the output of `java -version`: "17.0.15" → 17, "1.8.0" → 8. Undefined when it is not one. */
export function majorVersion(text: string): number | undefined {
  const match = /version "(\d+)(?:\.(\d+))?/.exec(text);
  if (match === null) return undefined;
  const major = Number(match[1]);
  return major === 1 ? Number(match[2]) : major;
}

function candidates(): string[] {
  const found: string[] = [];
  const javaHome = process.env['JAVA_HOME'];
  if (javaHome) found.push(join(javaHome, 'bin', 'java'));
  for (const dir of (process.env['PATH'] ?? '').split(':')) if (dir !== '') found.push(join(dir, 'java'));
  for (const root of ['/usr/lib/jvm', '/opt/java', '/opt', join(homedir(), '.sdkman/candidates/java'), '/Library/Java/JavaVirtualMachines', '/opt/homebrew/opt']) {
    if (!existsSync(root)) continue;
    for (const name of readdirSync(root).sort().reverse()) found.push(join(root, name, 'bin', 'java'), join(root, name, 'Contents/Home/bin/java'));
  }
  return [...new Set(found)].filter((path) => existsSync(path));
}

/** Path of a Java >= 21: JAVA_HOME, then PATH, then the usual folders. Undefined when there is none. */
export async function findJava(): Promise<string | undefined> {
  for (const path of candidates()) {
    const version = await run(path, ['-version']).then((r) => majorVersion(r.stderr + r.stdout), () => undefined);
    if (version !== undefined && version >= minimumJava) return path;
  }
  return undefined;
}
