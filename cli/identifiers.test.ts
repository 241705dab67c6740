import { expect, test } from 'vitest';
import { UsageError, type CommandContext } from './command.ts';
import { command as consent } from './commands/consent.ts';
import { command as subject } from './commands/subject.ts';
import { identifiersOf } from './consent-api.ts';

/** No folder, no token and no instance: whoever gets past the identifier ends with another error. */
const run = (command: typeof consent, action: string, who: string) => command.run({ positionals: [action, who], values: { purpose: command === consent ? 'news' : ['news'], state: 'withdrawn', yes: true }, json: false, target: { host: '127.0.0.1', port: 1, dataDir: '/nowhere', env: {} }, terminal: {}, signal: new AbortController().signal } as unknown as CommandContext);

test.each([...['show', 'set', 'receipts'].map((action) => ['consent', action, consent] as const), ...['show', 'why', 'stop', 'export', 'erase'].map((action) => ['subject', action, subject] as const)])('%s %s: what is no identifier ends with 2, before anything is asked or sent', async (_name, action, command) => {
  for (const who of ['u-7', 'Email:ann@x', '030 901820', '+49', 'phone:+49', 'external:klaviyo', 'userId: ', 'ann@']) await expect(run(command, action, who), who).rejects.toThrow(UsageError);
  await expect(run(command, action, 'anonymousId:a')).rejects.not.toThrow(UsageError);
});

test('an identifier goes to the consent API as its type, and as mappings write it', () => {
  expect(['Ann@X.example', '+49 30 901820', 'userId:+49 30', 'anonymousId:abc', 'external:klaviyo:1'].map(identifiersOf)).toEqual([{ email: 'ann@x.example' }, { phone: '+4930901820' }, { userId: '+49 30' }, { anonymousId: 'abc' }, { externalIds: [{ type: 'klaviyo', value: '1' }] }]);
});
