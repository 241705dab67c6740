import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { readConfig } from '@weir/config';
import { checkTopics, planTopics, type TopicFinding } from '@weir/pipeline';
import { createClient } from '../client.ts';
import { UsageError, type Command, type CommandContext } from '../command.ts';
import { brokerOptions } from '../config.ts';

interface Report {
  readonly created: readonly string[];
  readonly topics: number;
  readonly findings: readonly TopicFinding[];
}

const file = join(import.meta.dirname, '..', '..', 'infra', 'topics.yaml');

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
    const { brokers } = readConfig(brokerOptions, context.target.env);
    const report = brokers !== undefined ? await direct(context, action, dir ?? 'workspace', brokers) : await viaControl(context, action, dir);
    if (json) terminal.json({ ok: report.findings.length === 0, ...report });
    else {
      if (action === 'apply') terminal.line(`${report.created.length} topics created${report.created.length > 0 ? `: ${report.created.join(', ')}` : ''}`);
      if (report.findings.length > 0) terminal.table(['topic', 'finding', 'remedy'], report.findings.map((f) => [f.topic, f.message, f.remedy]));
      else terminal.line(`${terminal.paint.green('ok')}  ${report.topics} topics are as declared, the retention arithmetic holds`);
    }
    return report.findings.length > 0 ? 1 : 0;
  },
};

/** The running release, over the control API. */
async function viaControl(context: CommandContext, action: 'apply' | 'check', dir: string | undefined): Promise<Report> {
  if (dir !== undefined) throw new UsageError('a folder is used with KAFKA_BROKERS only; without it the running release counts');
  const client = createClient(context.target);
  return action === 'apply' ? client.post<Report>('/v1/topics/apply', {}) : client.get<Report>('/v1/topics/check');
}

/** A workspace folder, against the brokers themselves: what a first deployment needs. */
async function direct(context: CommandContext, action: 'apply' | 'check', dir: string, brokers: readonly string[]): Promise<Report> {
  const [{ createLog }, { compileFolder }] = await Promise.all([import('@weir/log'), import('../workspace.ts')]);
  const { kafkaClient, topicPrefix } = readConfig(brokerOptions, context.target.env);
  const release = compileFolder(dir);
  const declared = { path: 'infra/topics.yaml', content: readFileSync(file, 'utf8') };
  const plan = planTopics(declared, release, { prefix: topicPrefix, brokers: brokers.length });
  const log = createLog({ brokers, clientId: 'weir-cli', driver: kafkaClient });
  try {
    const admin = await log.admin();
    const created = action === 'apply' ? await admin.createTopics(plan) : [];
    return { created, topics: plan.length, findings: await checkTopics(admin, declared, release, plan, topicPrefix) };
  } finally {
    await log.close();
  }
}
