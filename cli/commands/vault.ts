import { createInterface } from 'node:readline';
import { Writable } from 'node:stream';
import { readConfig, vaultOptions } from '@weir/config';
import { checkName, checkSecret, loadSecrets, migrateSecrets, openTransit, readWorkspaceKey, removeSecret, rotateRootKey, setSecret } from '@weir/vault';
import { Finding, numberOption, UsageError, type Command } from '../command.ts';
import { leafBefore, type VaultChange } from '../vault-leaf.ts';

const maxValueBytes = 64 * 1024;
export const command: Command = {
  name: 'vault',
  summary: 'The sealed secrets of the data folder: set, list, remove, rotate the key.',
  usage: 'set <NAME> [--overlap <s>] | list | rm <NAME> | rotate-key | wrap-key | migrate',
  options: { overlap: { type: 'string', value: '<s>', doc: 'how long the value before stays accepted, seconds (default 86400)' } },
  takes: { set: ['overlap'], list: [], rm: [], 'rotate-key': [], 'wrap-key': [], migrate: [] },
  positionals: [1, 2],
  async run(context) {
    const { terminal, json, target, positionals } = context;
    const [action, name] = positionals;

    const needName = (): string => {
      if (name === undefined) throw new UsageError('a name is missing');
      return name;
    };
    if ((action === 'list' || action === 'rotate-key' || action === 'wrap-key' || action === 'migrate') && name !== undefined) throw new UsageError('too many arguments');
    /** The change, after its audit leaf. */
    const change = async <T>(kind: VaultChange, about: string | undefined, work: (leaf: string) => T | Promise<T>): Promise<T> => {
      const leaf = await leafBefore(target, kind, about);
      const result = await work(leaf.id);
      leaf.done();
      if (leaf.waits && !json) terminal.error(`no control service answers: the audit leaf waits in ${target.dataDir} until it runs`);
      return result;
    };
    const done = (fields: object, text: string): number => {
      if (json) terminal.json({ ok: true, ...fields });
      else terminal.line(text);
      return 0;
    };
    switch (action) {
      case 'set': {
        const overlap = numberOption(context, 'overlap', 86_400, 0, 604_800);
        checkName(needName());
        const value = await readValue(needName(), context.signal);
        checkSecret(needName(), value);
        await change('set', name, (leaf) => setSecret(target, needName(), value, overlap * 1000, Date.now(), leaf));
        return done({ name }, `${name} is set`);
      }
      case 'list': {
        const now = Date.now();
        const rows = Object.entries(loadSecrets(target)).filter(([known]) => !known.includes('#')).sort(([a], [b]) => (a < b ? -1 : 1)).map(([known, s]) => ({ name: known, overlapUntil: s.previousUntil !== undefined && s.previousUntil > now ? new Date(s.previousUntil).toISOString() : null }));
        if (json) terminal.json(rows);
        else terminal.table(['name', 'value before accepted until'], rows.map((r) => [r.name, r.overlapUntil ?? '']));
        return 0;
      }
      case 'rm':
        checkName(needName());
        if (loadSecrets(target)[needName()] === undefined || !(await change('remove', name, (leaf) => removeSecret(target, needName(), leaf)))) throw new Finding(`there is no secret ${name} in ${target.dataDir}`);
        return done({ name }, `${name} is removed`);
      case 'rotate-key': {
        const root = await change('rotate-key', undefined, (leaf) => rotateRootKey(target, leaf));
        return done({ root }, `every secret is sealed with the new key ${root}; running services go on`);
      }
      case 'wrap-key': {
        const transit = openTransit(readConfig(vaultOptions, target.env));
        const wrapped = await change('wrap-key', undefined, () => transit.encrypt(readWorkspaceKey(target.dataDir, target.env['WEIR_KEY'] || undefined)));
        return done({ wrapped }, wrapped);
      }
      case 'migrate': {
        const moved = await change('migrate', undefined, (leaf) => migrateSecrets(target, leaf));
        return done({ moved }, `${moved} secrets sealed`);
      }
      default:
        throw new UsageError(`there is no vault ${action}`);
    }
  },
};

/** From a prompt without echo, else all of stdin without its last line end. Never from an argument: those are in the process list. */
async function readValue(name: string, signal: AbortSignal): Promise<string> {
  if (process.stdin.isTTY) {
    process.stderr.write(`value of ${name}: `);
    const lines = createInterface({ input: process.stdin, output: new Writable({ write: (_part, _encoding, next) => next() }), terminal: true });
    try {
      return await new Promise<string>((resolve, reject) => {
        signal.addEventListener('abort', () => reject(new Finding('nothing was set')), { once: true });
        lines.once('SIGINT', () => reject(new Finding('nothing was set')));
        lines.question('', resolve);
      });
    } finally {
      lines.close();
      process.stderr.write('\n');
    }
  }
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const part of process.stdin as AsyncIterable<Buffer>) {
    bytes += part.length;
    if (bytes > maxValueBytes) throw new Finding(`the value has more than ${maxValueBytes} bytes`);
    parts.push(part);
  }
  return Buffer.concat(parts).toString('utf8').replace(/\r?\n$/, '');
}
