import { advise } from '@weir/release';
import type { Command } from '../command.ts';
import { compileFolder, printAdvice } from '../workspace.ts';

export const command: Command = {
  name: 'validate',
  summary: 'Check a workspace folder: every problem with file, line and remedy.',
  usage: '[dir]',
  options: {},
  positionals: [0, 1],
  async run({ terminal, json, positionals }) {
    const dir = positionals[0] ?? 'workspace';
    const release = compileFolder(dir);
    const advice = advise(release);
    const found = { ok: true, release: release.hash, name: release.name, sources: [...release.sources.keys()], destinations: [...release.destinations.keys()], files: release.files.length, advice };
    if (json) terminal.json(found);
    else terminal.line(`${terminal.paint.green('valid')}  ${release.name}: ${found.sources.length} sources, ${found.destinations.length} destinations, ${found.files} files; release ${release.hash}`);
    if (!json) printAdvice(terminal, advice);
    return 0;
  },
};
