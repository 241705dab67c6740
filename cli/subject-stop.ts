import type { Client } from './client.ts';
import { Finding, textOption, UsageError, type CommandContext } from './command.ts';
import { createConsentSender, identifiersOf, lookUpConsent, type ConsentAnswer, type ConsentOrder, type PersonConsent } from './consent-api.ts';
import { printable } from './terminal.ts';
import { tellLinked, type Told } from './subject-tell.ts';

/** Every purpose, of later releases too (docs/consent.md). */
const every = '*';
/** How long what is known of the person is waited for, before the no goes out without it. */
const lookMs = 5000;

/**
 * No use of the person for any purpose (or those named) from when it answers: each is withdrawn, and waited for until
 * every instance has applied it. Without --purpose those that a later release brings are closed too. Exit 1 when one
 * could not be waited for; it holds all the same once it is applied. Exit 1 also where nobody was known by the
 * identifier: the no is recorded all the same, and binds what comes under it later.
 */
export async function stop(context: CommandContext, client: Client, identifier: string): Promise<number> {
  const { terminal, json } = context;
  const identifiers = identifiersOf(identifier);
  const asked = context.values['purpose'] as readonly string[] | undefined;
  // Before the no, which makes a state and a key.
  const before = await personBefore(client, identifiers);
  if (asked !== undefined) checkPurposes(before, asked);
  const send = createConsentSender(context.target, context.signal);
  const proof = textOption(context, 'proof');
  const withdraw = (purpose: string, of: ConsentOrder['identifiers']): Promise<ConsentAnswer> => send({ identifiers: of, purpose, state: 'withdrawn', reason: 'weir subject stop', ...(proof === undefined ? {} : { proof }) }, { wait: true });
  const answers = await Promise.all((asked ?? [every]).map(async (purpose) => ({ purpose, ...await withdraw(purpose, identifiers) })));
  const refused = answers.find((a) => a.status >= 400);
  const changes = answers.flatMap(({ purpose, id, state, waitedMs, message, status, changes: each = [{ purpose, id }] }) => each.map((change) => ({ ...change, state, waitedMs, message, status })));
  const stopped = answers.every((a) => a.state === 'applied');
  const told = stopped ? await tellLinked(client, identifier, identifiers, changes, withdraw) : undefined;
  const known = before instanceof Finding ? null : before.known;
  if (json) terminal.json({ stopped, known, changes: changes.map(({ status: _status, ...change }) => change), ...(told === undefined ? {} : { toldAgain: told }) });
  else terminal.table(['purpose', 'withdrawn', 'after', 'change'], changes.map((c) => [c.purpose === every ? '* (every other, also of later releases)' : c.purpose, c.state === 'applied' ? 'applied everywhere' : c.state ?? c.message ?? String(c.status), c.waitedMs === undefined ? '-' : `${c.waitedMs} ms`, c.id ?? '-']));
  if (refused !== undefined) throw new Finding(`${refused.purpose === every ? 'the person' : refused.purpose} was not ${refused.purpose === every ? 'stopped' : 'withdrawn'}: ${refused.message ?? refused.status}`);
  if (!stopped) throw new Finding('not every instance has answered in time: it is recorded, and holds when the last of them has applied it or its lease has ended');
  if (known === 'nobody' && json) return 1;
  if (known === 'nobody') throw new Finding('nobody is known by this identifier: look at how it is written. The no is recorded, and nothing that comes under it will be used, but whoever was meant is stopped only if it is theirs');
  if (before instanceof Finding) terminal.error(`whether anybody is known by this identifier could not be seen: ${printable(before.message)}`);
  if (!json && known === 'unclear') terminal.line('nothing but an earlier no is known by this identifier for certain: look at how it is written');
  if (!json) terminal.line(`stopped: nothing of this person is being sent for ${asked === undefined ? 'any purpose' : asked.join(', ')}, and nothing will be until a new consent`);
  return told === undefined ? 0 : printTold(told, context);
}

/** Exit 1 where a vendor still does not know: what it sends by itself goes on. */
function printTold({ destinations, by, changes }: Told, { terminal, json }: CommandContext): number {
  const names = destinations.join(', ');
  if (by.length === 0) throw new Finding(`${names} know the person by an identifier that was not given and that no record has in the clear, and were not told: find it, and weir subject stop <it>`);
  const failed = changes.find((c) => c.state !== 'applied');
  if (failed !== undefined) throw new Finding(`${names} were to be told by ${by.join(' and ')}, too: ${failed.purpose} ${failed.message ?? failed.state ?? 'was not answered'}`);
  if (!json) terminal.line(`${names} know the person by another identifier: told once more by ${by.join(' and ')} of the records (${changes.map((c) => c.id).join(', ')})`);
  return 0;
}

/** What is known of the person; the finding where nobody can say: a stop does not wait for that. */
async function personBefore(client: Client, identifiers: ConsentOrder['identifiers']): Promise<PersonConsent | Finding> {
  try {
    return (await lookUpConsent(client, [identifiers], AbortSignal.timeout(lookMs)))[0]!;
  } catch (error) {
    if (error instanceof Finding) return error;
    throw error;
  }
}

function checkPurposes(person: PersonConsent | Finding, asked: readonly string[]): void {
  if (person instanceof Finding) throw person;
  const all = person.purposes.map((p) => p.purpose);
  const unknown = asked.find((name) => !all.includes(name));
  if (unknown !== undefined) throw new UsageError(`the workspace has no purpose ${unknown}: it has ${all.join(', ')}`);
}
