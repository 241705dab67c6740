import { closes, consentKey, everyPurpose } from '@weir/policy';
import type { ConsentTables } from './tables.ts';

/** What a change of consent is for; null = every one. */
export interface Asked {
  readonly purpose: string;
  readonly channel: string | null;
  readonly topic: string | null;
}

/**
 * Whether a yes to this stands for each of these identifiers, now: its state does not close, and no no to every purpose came since.
 * False of a yes that opened nothing: it is older than the no, its source says it all the time, or the rule for several sources keeps
 * it closed. What other levels (every channel, another identifier) say is not asked.
 */
export function stands({ stored }: Pick<ConsentTables, 'stored'>, ids: readonly string[], { purpose, channel, topic }: Asked): boolean {
  return ids.every((id) => {
    const own = stored(consentKey(id, purpose, channel ?? '', topic ?? ''))?.state;
    const stop = stored(consentKey(id, everyPurpose, '', ''))?.state;
    return own !== undefined && !closes(own.state) && (stop === undefined || !closes(stop.state) || own.over === stop.changeId);
  });
}
