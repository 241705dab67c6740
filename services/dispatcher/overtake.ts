import { checkUse, consentPart, type ConsentEntry } from '@weir/policy';
import { consentRefusal, recordOf, takeUp } from './attempt.ts';
import type { Ending } from './ends.ts';
import { forgetHead, type Parked } from './lane.ts';
import { lookUp } from './ledger.ts';
import type { DestinationPorts } from './ports.ts';
import { effectSoFar } from './task.ts';
import type { EndValue, Task } from './types.ts';

interface Context {
  readonly ports: Pick<DestinationPorts, 'consent' | 'keys' | 'clock' | 'serde'>;
  /** The parked record at this offset. */
  load(offset: number): Promise<Task>;
  endOf(key: string): EndValue | undefined;
  end(ending: Ending): void;
  /** Resolves when every end up to now is acknowledged; false: the partition has another owner. */
  written(): Promise<boolean>;
  mark(): Promise<void>;
  /** The partition is gone. */
  gone(): boolean;
}

const lookAgainMs = 5;

/**
 * What restricts goes ahead of the uses of its subject that wait (I3). Before it does, those of them that may not be sent
 * any more are ended, and their ends acknowledged: a later grant does not let them. What is left is of other purposes; it
 * goes when it is due, and the outcome of the restrict names it (I4). False: the partition is gone.
 */
export async function goAhead(context: Context, parked: Parked, restrict: Task): Promise<boolean> {
  const { ports } = context;
  const { uses } = parked;
  const before = uses.offsets.filter((offset) => offset < restrict.parkedOffset);
  if (before.length === 0) return !context.gone();
  // The tables have what the restrict says.
  while (!ports.consent.atLeast(restrict.delivery.consentOffsets, restrict.delivery.identityOffsets)) {
    await new Promise<void>((resolve) => { ports.clock.setTimer(resolve, lookAgainMs); });
    if (context.gone()) return false;
  }
  const kept: number[] = [];
  for (const offset of before) {
    const use = await context.load(offset);
    if (context.gone()) return false;
    const found = lookUp(use.delivery, use.redrive, use.offset, context.endOf);
    const code = found.kind === 'open' ? refusalOf(ports, use, restrict) : undefined;
    if (found.kind === 'open') takeUp(use, found);
    if (code === undefined) kept.push(offset);
    else context.end({ task: use, state: 'denied', effect: effectSoFar(use), code, detail: null, deadLetter: false });
  }
  if (kept.length < before.length) {
    const head = uses.offsets[0];
    uses.offsets.splice(0, before.length, ...kept);
    if (uses.offsets[0] !== head) forgetHead(uses);
    if (!await context.written()) return false;
    await context.mark();
  }
  if (kept.length > 0) restrict.ahead = `ahead of ${kept.length} that wait, ${kept[0]!} to ${kept.at(-1)!} on the parked topic`;
  return !context.gone();
}

/** Why a use that waits may not be sent any more: by what the restrict itself says of everything accepted before it (the tables may not have it yet), or by the tables. */
function refusalOf(ports: Context['ports'], use: Task, restrict: Task): string | undefined {
  const { delivery } = use;
  const now = ports.clock.now();
  if (delivery.acceptedAt <= restrict.delivery.acceptedAt) {
    if (restrict.delivery.recordType === 'weir.canonical.Erasure') return 'subject-erased';
    const readable = restrict.sealedBy === '' || ports.keys?.has(restrict.sealedBy) === true;
    const change = readable && restrict.delivery.recordType === 'weir.canonical.ConsentChange' ? recordOf(ports, restrict.delivery.payload) : undefined;
    const said = change === undefined ? undefined : withdrawalOf(change as never);
    const answer = said === undefined || delivery.purpose === null ? undefined : checkUse(['anyone'], delivery.purpose, delivery.channel, delivery.topic, delivery.legalBasis, () => [said], now);
    if (answer?.ok === false && (answer.reason === 'consent-withdrawn' || answer.reason === 'consent-denied')) return answer.reason;
  }
  return consentRefusal(ports, use, 'use', now);
}

/** A change of consent as the state that it makes, where it closes. */
function withdrawalOf(record: { readonly purpose: string; readonly channel: string | null; readonly topic: string | null; readonly state: string }): ConsentEntry | undefined {
  if (record.state !== 'withdrawn' && record.state !== 'denied') return undefined;
  return { purpose: consentPart(record.purpose), channel: consentPart(record.channel), topic: consentPart(record.topic), state: record.state, version: 0, expiresAt: null };
}
