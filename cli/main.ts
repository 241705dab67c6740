import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { findWeirError, WorkspaceError } from '@weir/errors';
import { Refused } from './client.ts';
import { assertTaken, Finding, parseOptionsOf, UsageError, type Command } from './command.ts';
import { commands } from './commands/index.ts';
import { readTarget } from './config.ts';
import { helpOf, overview } from './help.ts';
import { createTerminal, printable, type Terminal } from './terminal.ts';

/** Exit codes: 0 done, 1 a finding, 2 wrong use or a workspace that does not compile. */
async function main(args: readonly string[], terminal: Terminal): Promise<number> {
  const name = args[0];
  if (name === undefined || name === 'help' || name === '--help' || name === '-h') {
    const about = await commands.get(args[1] ?? '')?.();
    terminal.line(about === undefined ? overview(await Promise.all([...commands.values()].map(async (load) => (await load()).command))) : helpOf(about.command));
    return name === undefined ? 2 : 0;
  }
  const load = commands.get(name);
  if (load === undefined) {
    terminal.error(`weir: there is no command ${printable(name)}; weir help lists them`);
    return 2;
  }
  const { command } = await load();
  const json = args.includes('--json');
  try {
    return await run(command, args.slice(1), terminal);
  } catch (error) {
    return fail(command, error, json, terminal);
  }
}

async function run(command: Command, args: readonly string[], terminal: Terminal): Promise<number> {
  const { values, positionals } = parse(command, args);
  if (values['help'] === true) {
    terminal.line(helpOf(command));
    return 0;
  }
  const [least, most] = command.positionals;
  if (positionals.length < least || positionals.length > most) throw new UsageError(positionals.length < least ? 'an argument is missing' : 'too many arguments');
  assertTaken(command, values, positionals[0]);
  const stop = new AbortController();
  process.once('SIGINT', () => {
    stop.abort();
    // A second Ctrl-C ends at once.
    process.once('SIGINT', () => process.exit(130));
  });
  return command.run({ terminal, json: values['json'] === true, values, positionals, signal: stop.signal, target: await target(command.keyAsGiven === true) });
}

/** A bad environment variable is wrong use. */
async function target(keyAsGiven: boolean): ReturnType<typeof readTarget> {
  try {
    return await readTarget(process.env, join(import.meta.dirname, '..'), keyAsGiven);
  } catch (error) {
    const known = findWeirError(error);
    throw known?.code === 'config-invalid' ? new UsageError(known.message) : error;
  }
}

function parse(command: Command, args: readonly string[]): ReturnType<typeof parseArgs> {
  try {
    return parseArgs({ args: [...args], options: parseOptionsOf(command), allowPositionals: true, strict: true });
  } catch (error) {
    if (String((error as { code?: string }).code).startsWith('ERR_PARSE_ARGS')) throw new UsageError((error as Error).message.split('. ')[0]);
    throw error;
  }
}

function fail(command: Command, error: unknown, json: boolean, terminal: Terminal): number {
  if (error instanceof UsageError) {
    terminal.error(`weir ${command.name}: ${error.message}\nusage: weir ${command.name} ${command.usage}`);
    return 2;
  }
  // The running instance may know other adapters than this folder: its verdict on the workspace counts the same.
  const problems = error instanceof WorkspaceError ? error.problems : error instanceof Refused ? error.body.problems : undefined;
  if (problems !== undefined) {
    if (json) terminal.json({ ok: false, problems });
    else for (const p of problems) terminal.error(`${printable(p.file)}:${p.line}: ${printable(p.message)}\n  remedy: ${printable(p.remedy)}`);
    return 2;
  }
  const known = findWeirError(error);
  if (!(error instanceof Finding) && known === undefined) throw error;
  const message = printable((error as Error).message);
  if (json) terminal.json({ ok: false, error: known?.code ?? 'finding', message });
  terminal.error(`weir: ${message}`);
  return 1;
}

const terminal = createTerminal({ out: process.stdout, err: process.stderr, env: process.env, monotonic: () => performance.now() });
// The reader of a pipe (head, less) may leave early: that ends the command, and is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  process.exit(0);
});
process.exitCode = await main(process.argv.slice(2), terminal);
