import { createClient } from '../client.ts';
import { UsageError, type Command, type CommandContext } from '../command.ts';
import type { TopicsReport } from '../brokers.ts';

export const command: Command = {
  name: 'topics',
  summary: 'Create the topics of the release, or check them and the retention arithmetic.',
  usage: 'apply | check [dir]',
  options: {},
  positionals: [1, 2],
  async run(context) {
    const { terminal, json, positionals } = context;
    const [action, dir] = positionals;
    if (action !== 'apply' && action !== 'check') throw new UsageError('give apply or check');
    const report = await find(context, action === 'apply', dir);
    if (json) terminal.json({ ok: report.findings.length === 0, ...report });
    else {
      if (action === 'apply') terminal.line(`${report.created.length} topics created${report.created.length > 0 ? `: ${report.created.join(', ')}` : ''}`);
      if (report.findings.length > 0) terminal.table(['topic', 'finding', 'remedy'], report.findings.map((f) => [f.topic, f.message, f.remedy]));
      else terminal.line(`${terminal.paint.green('ok')}  ${report.topics} topics are as declared, the retention arithmetic holds`);
    }
    return report.findings.length > 0 ? 1 : 0;
  },
};

/** A workspace folder against KAFKA_BROKERS, else the running release over the control API. */
async function find(context: CommandContext, create: boolean, dir: string | undefined): Promise<TopicsReport> {
  const { env } = context.target;
  if ((env['KAFKA_BROKERS'] ?? '') !== '') {
    const [{ topicsDirect }, { compileFolder }] = await Promise.all([import('../brokers.ts'), import('../workspace.ts')]);
    return topicsDirect(env, compileFolder(dir ?? 'workspace'), create);
  }
  if (dir !== undefined) throw new UsageError('a folder is used with KAFKA_BROKERS only; without it the running release counts');
  const client = createClient(context.target);
  return create ? client.post<TopicsReport>('/v1/topics/apply', {}) : client.get<TopicsReport>('/v1/topics/check');
}
