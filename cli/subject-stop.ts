import type { Client } from './client.ts';
import { Finding, textOption, UsageError, type CommandContext } from './command.ts';
import { createConsentSender, identifiersOf } from './consent-api.ts';

interface Person { readonly purposes: ReadonlyArray<{ readonly purpose: string }> }

/**
 * No use of the person for any purpose (or those named) from when it answers: each is withdrawn, and waited for until
 * every instance has applied it. Exit 1 when one could not be waited for; it holds all the same once it is applied.
 */
export async function stop(context: CommandContext, client: Client, identifier: string): Promise<number> {
  const { terminal, json } = context;
  const identifiers = identifiersOf(identifier);
  if (identifiers === undefined) throw new UsageError('stop takes an e-mail address, email:, phone: or userId:');
  const { people } = await client.post<{ people: readonly Person[] }>('/v1/consent/lookup', { people: [identifiers] });
  const all = people[0]!.purposes.map((p) => p.purpose);
  const asked = context.values['purpose'] as readonly string[] | undefined;
  const unknown = asked?.find((name) => !all.includes(name));
  if (unknown !== undefined) throw new UsageError(`the workspace has no purpose ${unknown}: it has ${all.join(', ')}`);
  const send = createConsentSender(context.target, context.signal);
  const proof = textOption(context, 'proof');
  const answers = await Promise.all((asked ?? all).map(async (purpose) => ({ purpose, ...await send({ identifiers, purpose, state: 'withdrawn', reason: 'weir subject stop', ...(proof === undefined ? {} : { proof }) }, { wait: true }) })));
  const refused = answers.find((a) => a.status >= 400);
  if (json) terminal.json({ stopped: answers.every((a) => a.state === 'applied'), changes: answers.map(({ purpose, id, state, waitedMs, message }) => ({ purpose, id, state, waitedMs, message })) });
  else terminal.table(['purpose', 'withdrawn', 'after', 'change'], answers.map((a) => [a.purpose, a.state === 'applied' ? 'applied everywhere' : a.state ?? a.message ?? String(a.status), a.waitedMs === undefined ? '-' : `${a.waitedMs} ms`, a.id ?? '-']));
  if (refused !== undefined) throw new Finding(`${refused.purpose} was not withdrawn: ${refused.message ?? refused.status}`);
  if (answers.some((a) => a.state !== 'applied')) throw new Finding('not every instance has answered in time: it is recorded, and holds when the last of them has applied it or its lease has ended');
  if (!json) terminal.line(`stopped: nothing of this person is being sent for ${asked === undefined ? 'any purpose' : answers.map((a) => a.purpose).join(', ')}, and nothing will be until a new consent`);
  return 0;
}
