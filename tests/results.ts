import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import { join, resolve } from 'node:path';

const root = resolve(import.meta.dirname, '..');

/** What a long run found, for docs/results/<name>.json, with where, when and of what it is. Figures only; no path and no name of a machine. */
export function saveResult(name: string, command: string, figures: object): void {
  const git = (...args: string[]): string => execFileSync('git', args, { cwd: root, encoding: 'utf8' }).trim();
  const commit = `${git('rev-parse', '--short', 'HEAD')}${git('status', '--porcelain', '--', 'packages', 'services', 'adapters') === '' ? '' : '+changes'}`;
  const machine = `${cpus().length} cores, ${Math.round(totalmem() / 1024 ** 3)} GiB, shared with broker, registry and vendor; ${process.platform}, Node ${process.versions.node}`;
  writeFileSync(join(root, 'docs/results', `${name}.json`), `${JSON.stringify({ command, commit, date: new Date().toISOString().slice(0, 10), machine, ...figures }, null, 2)}\n`);
}
