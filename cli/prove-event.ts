import { createTree, decodeLeaf, verifyCheckpoint, verifyInclusion, type AuditLeaf } from '@weir/audit';
import { deliveryOfStage, endsOf, type TraceStage } from '@weir/pipeline';
import { checkedLog, tellOwnKey, type CheckedLog } from './audit-log.ts';
import { Refused, type Client } from './client.ts';
import { Finding, textOption, type CommandContext } from './command.ts';
import type { Explained } from './commands/policy-explain.ts';
import { printable } from './terminal.ts';

interface Stage { readonly stage: string; readonly at: string; readonly [field: string]: unknown }
/** `ok`: null = it could not be checked. */
interface Claim { readonly ok: boolean | null; readonly what: string; readonly how: string }

const releaseActions = new Set(['release.apply', 'release.hash']);
/** Releases of before `release.hash` are named by the secrets that they brought into use. */
const applied = ({ action, target, details }: AuditLeaf, release: string): boolean => (releaseActions.has(action) ? target === release : action === 'secret.use' && details['release'] === release);

/**
 * Evidence of what was decided about an event. Checked here, from the bytes of the leaves: the audit leaf under which the
 * release was applied, its proof in the tree of a signed checkpoint, and every kept checkpoint; the signatures by --key, or
 * else by the key that the instance gives, which proves less, and is told. Asked of the control service, which is believed:
 * the recorded decisions with the consent that they saw, and the same ones made once more from the record and that consent
 * (not checked where the record is gone, erased or past its retention). Exit 1 when one of them does not hold.
 */
export async function proveEvent(context: CommandContext, client: Client, eventId: string): Promise<number> {
  const { terminal, json } = context;
  const trace = await client.find<{ stages: readonly Stage[] }>(`/v1/events/${eventId}/trace`);
  if (trace === undefined) throw new Finding(`no event ${eventId}`);
  const decided = trace.stages.filter((s) => s.stage === 'decided');
  if (decided.length === 0) throw new Finding(`nothing was decided about ${eventId}: weir trace ${eventId} says what happened`);
  tellOwnKey(context);
  const log = await checkedLog(context, client);
  const claims: Claim[] = [await again(client, eventId, decided)];
  for (const release of new Set(decided.map((s) => String(s['release'])))) claims.push(releaseClaim(release, log, textOption(context, 'key') ?? log.verifier));
  claims.push({ ok: log.findings.length === 0, what: 'audit log', how: log.findings.length === 0 ? `${log.leaves.length} leaves, as signed in all ${log.kept} kept checkpoints; key ${log.verifier}` : log.findings.map((f) => f.message).join('; ') });
  const ok = claims.every((c) => c.ok !== false);
  if (json) terminal.json({ ok, eventId, keyGiven: textOption(context, 'key') !== undefined, decisions: decided, outcomes: trace.stages.filter((s) => s.stage === 'outcome'), claims, checkpoint: log.checkpoint });
  else {
    print(context, eventId, trace.stages, decided);
    for (const claim of claims) terminal.line(`${claim.ok === null ? terminal.paint.yellow('--') : claim.ok ? terminal.paint.green('ok') : terminal.paint.red('no')}  ${claim.what.padEnd(10)} ${printable(claim.how)}`);
  }
  return ok ? 0 : 1;
}

const nameOf = (s: TraceStage): string => (typeof s['destination'] === 'string' ? `${s['destination']}/${String(s['operation'])}` : '-');

function print({ terminal }: CommandContext, eventId: string, stages: readonly Stage[], decided: readonly Stage[]): void {
  const accepted = stages.find((s) => s.stage === 'accepted');
  terminal.line(`event ${eventId}${accepted === undefined ? '' : `, accepted ${accepted.at} from ${printable(String(accepted['source']))}`}\n`);
  const endOf = endsOf(stages);
  terminal.table(['decided', 'destination', 'result', 'because', 'consent seen'], decided.map((s) => {
    const end = endOf(s);
    const consent = (s['consent'] ?? []) as ReadonlyArray<{ purpose: string; state: string }>;
    return [s.at, nameOf(s), String(end?.['state'] ?? s['effect']), `${String(end?.['reason'] ?? s['reason'] ?? `rule ${String(s['rule'] ?? '-')}`)}${typeof s['purpose'] === 'string' ? `, for ${s['purpose']}` : ''}`, consent.map((c) => `${c.purpose} ${c.state}`).join(', ') || 'none'];
  }));
  terminal.line();
}

/** The decisions made once more, by the control service, from what was recorded. */
async function again(client: Client, eventId: string, decided: readonly Stage[]): Promise<Claim> {
  const what = 'decisions';
  let found: Explained;
  try {
    found = await client.get<Explained>(`/v1/events/${eventId}/explain?release=recorded`);
  } catch (error) {
    // An erased person's record, or one that has left its topic, is not there to be decided once more.
    if (error instanceof Refused && error.status === 404) return { ok: null, what, how: 'not checked: the record itself is gone (erased, or past its retention), so they cannot be made once more' };
    throw error;
  }
  // An event has several outputs, each decided by itself; the record of one may be gone, with its person.
  const outputs = new Set(found.records.map((r) => r.outputId));
  const last = decided.filter((s) => s['release'] === found.release && typeof s['destination'] === 'string');
  const recorded = new Map(last.filter((s) => outputs.has(s['outputId'] as string)).map((s) => [deliveryOfStage(s), s]));
  const gone = new Set(last.map(deliveryOfStage)).size - recorded.size;
  const now = new Map(found.records.flatMap(({ outputId, routes }) => routes.map(({ destination, operation, effect }) => [deliveryOfStage({ stage: 'decided', outputId, destination, operation }), effect] as const)));
  // A limit that was used up, and a loop of consent that was cut, are not in the record.
  const open = [...recorded].filter(([key, s]) => now.get(key) !== s['effect'] && !last.some((other) => deliveryOfStage(other) === key && /^(limit:|consent-(origin|echo)$)/.test(String(other['reason']))));
  const made = `made once more by the control service with ${found.release}`;
  const left = gone === 0 ? '' : `; ${gone} not checked: their record is gone (erased, or past its retention)`;
  return { ok: open.length > 0 ? false : recorded.size === 0 && gone > 0 ? null : true, what, how: (open.length === 0 ? `${made} from the recorded event and consent: the same ${recorded.size}` : `${made}, others: ${open.map(([key, s]) => `${nameOf(s)} ${String(s['effect'])}, now ${now.get(key) ?? 'none'}`).join('; ')}`) + left };
}

/** The leaf under which the release was applied, with its proof in the tree. */
function releaseClaim(release: string, log: CheckedLog, verifier: string): Claim {
  const what = 'release';
  const index = log.leaves.findIndex((bytes) => {
    const leaf = decodeLeaf(bytes);
    return leaf !== undefined && applied(leaf, release);
  });
  if (index === -1) return { ok: false, what, how: `${release} has no leaf in the audit log` };
  const bytes = log.leaves[index]!;
  const leaf = decodeLeaf(bytes)!;
  const checkpoint = verifyCheckpoint(log.checkpoint, verifier);
  if (checkpoint === undefined || checkpoint.size > log.leaves.length || index >= checkpoint.size) return { ok: false, what, how: `${release}: the checkpoint does not cover its leaf` };
  const tree = createTree();
  for (const one of log.leaves.slice(0, checkpoint.size)) tree.append(one);
  const ok = verifyInclusion({ leaf: bytes, index, size: checkpoint.size, path: tree.inclusion(index), root: checkpoint.root });
  return { ok, what, how: `${release} applied by ${leaf.actor}${leaf.details['approval'] === 'none' ? ' alone' : ''} at ${new Date(leaf.at).toISOString()}: ${ok ? `leaf ${index} of ${checkpoint.size} (${leaf.id})` : `its leaf ${index} is not in the signed tree`}` };
}
