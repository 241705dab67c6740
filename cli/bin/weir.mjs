#!/usr/bin/env node
// Plain JavaScript, so that an old Node can start it: hands over to Node 24, which runs the TypeScript directly.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import nodeModule from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const main = join(root, 'cli', 'main.ts');
const [major, minor] = process.versions.node.split('.').map(Number);

// A third of a command's time is the compilation of the TypeScript: it is kept. Where the folder cannot be written, it is not.
const compiled = join(root, '.cache', 'compiled');

if (major > 24 || (major === 24 && minor >= 6)) {
  nodeModule.enableCompileCache(compiled);
  await import(pathToFileURL(main).href);
} else {
  const found = [join(root, 'node_modules', '.bin', 'node'), join(root, '.cache', 'node24', 'node_modules', '.bin', 'node'), join(root, '.cache', 'node24', 'bin', 'node')].find((path) => existsSync(path));
  if (found === undefined) {
    console.error(`weir: needs Node 24.6 or later (this is ${process.version}): run npm start once, it fetches one`);
    process.exit(1);
  }
  const child = spawn(found, [main, ...process.argv.slice(2)], { stdio: 'inherit', env: { NODE_COMPILE_CACHE: compiled, ...process.env } });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
  child.on('error', (error) => {
    console.error(`weir: ${error.message}`);
    process.exit(1);
  });
  child.on('exit', (code, signal) => process.exit(code ?? (signal === 'SIGINT' ? 130 : 1)));
}
