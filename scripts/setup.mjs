// First step of `npm start`, `npm test` and .ci/run: needs Node >= 20 and npm only. Brings Node 24 and the locked
// packages, once per lock file, and then runs the given command under that Node. Plain JavaScript, no imports
// beyond Node's own, because nothing is installed yet.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { delimiter, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = resolve(fileURLToPath(import.meta.url), '../..');
const nodeVersion = '24.21.0';
const toolchain = join(root, '.cache', `node-${nodeVersion}`);
const bin = join(toolchain, 'node_modules', '.bin');
const stamp = join(root, '.cache', 'installed');

function fail(message) {
  console.error(message);
  process.exit(1);
}

if (Number(process.versions.node.split('.')[0]) < 20) fail(`Node >= 20 is needed to begin with, this is ${process.version}: install a newer one from https://nodejs.org`);

/** npm's own noise (about configuration that is not ours, and scripts that are denied by name) is shown only when it fails. */
function npm(args, options) {
  const run = spawnSync('npm', args, { encoding: 'utf8', shell: process.platform === 'win32', ...options });
  if (run.error) fail(`npm is missing: it comes with Node (${run.error.message})`);
  if (run.status !== 0) fail(`npm ${args.join(' ')} failed:\n${run.stderr}${run.stdout}`);
}

function bringNode() {
  if (existsSync(join(bin, 'node'))) return;
  console.error(`setting up: Node ${nodeVersion}`);
  rmSync(toolchain, { recursive: true, force: true });
  mkdirSync(toolchain, { recursive: true });
  // The package's own script picks the binary of this machine; it is allowed by name.
  writeFileSync(join(toolchain, 'package.json'), JSON.stringify({ private: true, dependencies: { node: nodeVersion }, allowScripts: { node: true } }));
  npm(['install', '--no-audit', '--no-fund', '--no-package-lock', '--loglevel=error'], { cwd: toolchain });
  if (!existsSync(join(bin, 'node'))) fail(`the npm package node@${nodeVersion} did not bring a binary for ${process.platform}-${process.arch}`);
}

function install(env) {
  const hash = createHash('sha256').update(readFileSync(join(root, 'package-lock.json'))).update(readFileSync(join(root, 'package.json'))).digest('hex');
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === hash && existsSync(join(root, 'node_modules'))) return;
  console.error('setting up: packages');
  npm(['ci', '--no-audit', '--no-fund', '--loglevel=error'], { cwd: root, env });
  writeFileSync(stamp, hash);
}

bringNode();
// Compiled TypeScript is kept: it is most of what a start waits for.
const env = { NODE_COMPILE_CACHE: join(root, '.cache', 'compiled'), ...process.env, PATH: `${bin}${delimiter}${join(root, 'node_modules', '.bin')}${delimiter}${process.env.PATH}`, WEIR_SETUP: 'done' };
install(env);
const [command, ...args] = process.argv.slice(2);
if (command !== undefined) {
  // Signals of the terminal reach the child by itself; ours are only passed on.
  const { spawn } = await import('node:child_process');
  const child = spawn(command, args, { stdio: 'inherit', cwd: root, env });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => { if (signal !== 'SIGINT' || !process.stdin.isTTY) child.kill(signal); });
  child.on('exit', (code, signal) => process.exit(signal === null ? (code ?? 1) : 1));
  child.on('error', (error) => fail(`${command}: ${error.message}`));
}
