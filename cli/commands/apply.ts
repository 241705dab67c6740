import { advise } from '@weir/release';
import { createClient } from '../client.ts';
import { textOption, type Command } from '../command.ts';
import { compileFolder, printAdvice } from '../workspace.ts';

interface Applied {
  readonly hash: string;
  readonly changed: boolean;
  readonly topicsCreated: readonly string[];
  /** Set when another person must approve it first. */
  readonly proposal?: string;
}

export const command: Command = {
  name: 'apply',
  summary: 'Make a workspace folder the running release.',
  usage: '[dir] [-m <message>]',
  options: { message: { type: 'string', short: 'm', value: '<text>', doc: 'why; kept with the release' } },
  positionals: [0, 1],
  async run(context) {
    const { terminal, json, positionals } = context;
    const release = compileFolder(positionals[0] ?? 'workspace');
    const message = textOption(context, 'message') ?? null;
    const { env } = context.target;
    const applied: Applied = (env['KAFKA_BROKERS'] ?? '') !== ''
      ? await (await import('../brokers.ts')).applyDirect(env, release, message)
      : await createClient(context.target).post<Applied>('/v1/releases', { files: release.files, message });
    if (json) terminal.json({ ok: true, ...applied });
    else {
      if (applied.proposal !== undefined) terminal.line(`${terminal.paint.yellow('proposed')}  release ${applied.hash} waits for weir approve ${applied.proposal}`);
      else terminal.line(applied.changed ? `${terminal.paint.green('applied')}  release ${applied.hash}` : `${terminal.paint.dim('unchanged')}  release ${applied.hash} runs already`);
      printAdvice(terminal, advise(release));
      if (applied.topicsCreated.length > 0) terminal.line(`topics created: ${applied.topicsCreated.join(', ')}`);
    }
    return 0;
  },
};
