import type { WebhookSource } from '@weir/adapter';
import { resolveConfig, type ReleaseFile, type SourceConfig } from '@weir/release';
import { openVault } from '@weir/vault';
import { createClient, reach } from '../client.ts';
import { Finding, numberOption, textOption, UsageError, type Command, type CommandContext } from '../command.ts';
import { inventPerson, readInput, readPerson } from '../person.ts';
import { printable } from '../terminal.ts';
import { compileFiles } from '../workspace.ts';

interface Sent {
  readonly eventId: string | null;
  readonly traceId: string | null;
  readonly httpStatus: number;
  /** Why it was refused. */
  readonly message?: string;
}

const atOnce = 16;
const sendTimeoutMs = 30_000;

export const command: Command = {
  name: 'send',
  summary: 'Send a sample to a webhook source, signed as its vendor signs.',
  usage: '<source> [--person <file>] [--count <n>] [--body <file>]',
  options: {
    person: { type: 'string', value: '<file>', doc: 'JSON or YAML with email, userId, …: whom the sample is about (default: somebody new)' },
    count: { type: 'string', value: '<n>', doc: 'send n requests (default 1)' },
    body: { type: 'string', value: '<file>', doc: 'send exactly these bytes instead of a sample' },
  },
  positionals: [1, 1],
  async run(context) {
    const { terminal, json, positionals } = context;
    const count = numberOption(context, 'count', 1, 1, 1_000_000);
    const { source, adapter } = await findSource(context, positionals[0]!);
    const makeBody = bodyMaker(context, adapter);
    const config = resolveConfig(source.config, { vault: openVault({ dataDir: context.target.dataDir, env: context.target.env }), signing: true });
    const bar = terminal.progress(count, 'sending');
    const events: Sent[] = [];
    let started = 0;
    let done = 0;
    const worker = async (): Promise<void> => {
      while (started < count && !context.signal.aborted) {
        const now = Date.now();
        const body = makeBody(now + started++);
        const signed = adapter.sign(body, config, now);
        events.push(...await post(context, signed.path ?? `/webhooks/${source.name}`, signed.headers, body));
        bar.step(++done);
      }
    };
    try {
      await Promise.all(Array.from({ length: Math.min(atOnce, count) }, worker));
    } finally {
      bar.end();
    }
    if (json) terminal.json({ events });
    else terminal.table(['event', 'trace', 'status', ''], events.map((e) => [e.eventId ?? '-', e.traceId ?? '-', String(e.httpStatus), e.message ?? '']));
    if (done < count) terminal.error(`stopped: ${done} of ${count} requests were sent`);
    return done === count && events.every((e) => e.httpStatus >= 200 && e.httpStatus < 300) ? 0 : 1;
  },
};

/** The source as the running release has it. */
async function findSource(context: CommandContext, name: string): Promise<{ source: SourceConfig; adapter: WebhookSource }> {
  const { files } = await createClient(context.target).get<{ files: readonly ReleaseFile[] }>('/v1/releases/current');
  const { sources } = compileFiles(files);
  const source = sources.get(name);
  const webhooks = [...sources.values()].filter((s) => s.adapter.source?.kind === 'webhook').map((s) => s.name).sort();
  if (source === undefined) throw new Finding(`the running release has no source ${printable(name)}; it has ${webhooks.join(', ')}`);
  const adapter = source.adapter.source;
  if (adapter?.kind !== 'webhook') throw new Finding(`${name} is polled, nothing can be sent to it; to these it can: ${webhooks.join(', ')}`);
  return { source, adapter };
}

function bodyMaker(context: CommandContext, adapter: WebhookSource): (now: number) => Buffer {
  const bodyFile = textOption(context, 'body');
  const personFile = textOption(context, 'person');
  if (bodyFile !== undefined && personFile !== undefined) throw new UsageError('--body and --person exclude each other');
  if (bodyFile !== undefined) {
    const bytes = readInput(bodyFile);
    return () => bytes;
  }
  const person = personFile === undefined ? undefined : readPerson(personFile);
  return (now) => Buffer.from(JSON.stringify(adapter.sample(person ?? inventPerson(), now)));
}

async function post(context: CommandContext, path: string, headers: Readonly<Record<string, string>>, body: Buffer): Promise<Sent[]> {
  const url = new URL(path, `http://${context.target.host}:${context.target.port}`);
  const response = await reach(url, { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body: new Uint8Array(body), signal: AbortSignal.timeout(sendTimeoutMs) });
  const httpStatus = response.status;
  const text = await response.text();
  let answer: { eventId?: string; eventIds?: readonly string[]; traceId?: string; message?: string } = {};
  try {
    answer = JSON.parse(text) as typeof answer;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    answer = { message: text.slice(0, 200) };
  }
  const ids = answer.eventIds ?? (answer.eventId === undefined ? [] : [answer.eventId]);
  const traceId = answer.traceId ?? null;
  return ids.length === 0 ? [{ eventId: null, traceId, httpStatus, message: answer.message }] : ids.map((eventId) => ({ eventId, traceId, httpStatus }));
}
