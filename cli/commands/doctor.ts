import { join } from 'node:path';
import type { Command, CommandContext } from '../command.ts';
import { checkCluster } from '../doctor-cluster.ts';
import { checkServices } from '../doctor-services.ts';
import { checkApproval, checkCache, checkFolder, checkKey, checkNode, checkSecrets, checkWitness, checkWorkspace, type Check } from '../doctor.ts';
import { printable, type Terminal } from '../terminal.ts';

export const command: Command = {
  name: 'doctor',
  summary: 'Check what a start needs, or why something does not go: a line each, with what to do. Nothing is changed.',
  usage: '[dir]',
  options: {},
  positionals: [0, 1],
  keyAsGiven: true,
  async run(context) {
    const { terminal, json } = context;
    const checks = await look(context, (check) => { if (!json) print(check, terminal); });
    const failed = checks.filter(({ state }) => state === 'fail').length;
    if (json) terminal.json({ ok: failed === 0, checks });
    else terminal.line(failed === 0 ? terminal.paint.green('nothing stands in the way') : terminal.paint.red(`${failed} to mend`));
    return failed === 0 ? 0 : 1;
  },
};

/** In the order in which one thing needs another; each is told as it is found. */
async function look({ target, positionals }: CommandContext, tell: (check: Check) => void): Promise<readonly Check[]> {
  const checks: Check[] = [];
  const take = (...found: readonly Check[]): void => {
    for (const check of found) tell(check);
    checks.push(...found);
  };
  const { dataDir } = target;
  const services = checkServices(target);
  take(checkNode(process.versions.node), checkFolder('data folder', dataDir), checkCache(join(import.meta.dirname, '../../.cache')));
  const { found, release } = checkWorkspace(positionals[0] ?? (target.env['WEIR_WORKSPACE'] || 'workspace'));
  take(found);
  const key = await checkKey(dataDir, target.env);
  take(key.found);
  // Without its key the sealed file cannot be opened, and looking for it would make another one.
  const opened = key.found.state !== 'fail';
  if (opened) take(...await checkSecrets(dataDir, key.env, release));
  take(checkApproval(target.env), checkWitness(dataDir, target.env));
  const { checks: ofServices, control } = await services;
  take(...await checkCluster({ ...target, env: key.env }, release, control && opened), ...ofServices);
  return checks;
}

function print({ check, state, message, remedy }: Check, terminal: Terminal): void {
  const { green, yellow, red } = terminal.paint;
  const colour = { ok: green, warn: yellow, fail: red }[state];
  terminal.line(`${colour(state.padEnd(4))}  ${check.padEnd(11)}  ${printable(message)}`);
  if (remedy !== undefined) terminal.line(`${' '.repeat(19)}→ ${printable(remedy)}`);
}
