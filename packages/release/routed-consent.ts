import { asRouted, everyPurpose, isRoutedPurpose, type CompiledPolicy } from '@weir/policy';

/** A part of a change of consent that no route has, with what was done about it. */
export interface Unrouted {
  readonly part: 'channel' | 'topic';
  /** `no`: of a channel, it was taken for one to all of them; of a topic, it closes that alone. `yes`: it opens nothing. */
  readonly said: 'no' | 'yes';
  /** Name of the output in its mapping. */
  readonly output: string;
}

type Policy = Pick<CompiledPolicy, 'routes'>;
type Value = (field: string) => unknown;

const parts = ['channel', 'topic'] as const;
const isNo = (state: unknown): boolean => state === 'withdrawn' || state === 'denied';

/** What becomes of a part: undefined = it stays; null = all of them. `unrouted`: no route has it. */
function meant(value: Value, part: Unrouted['part'], policy: Policy): { readonly text: string | null; readonly unrouted: boolean } | undefined {
  const text = value(part);
  if (typeof text !== 'string') return undefined;
  if (text === '') return { text: null, unrouted: false };
  const [no, yes] = [isNo(value('state')), value('state') === 'granted'];
  // There is no yes to every purpose, and a no to all of them is one on every channel and topic.
  if (value('purpose') === everyPurpose) return no ? { text: null, unrouted: true } : undefined;
  const routed = asRouted(policy, part, text);
  if (routed === text) return undefined;
  if (routed !== undefined) return { text: routed, unrouted: false };
  // What nobody is used for binds nothing yet: the release that brings its routes says which channels it has.
  if (!isRoutedPurpose(policy, String(value('purpose')))) return undefined;
  // A channel in words that nobody knows may be any of them. Topics are the sender's own, and most are not sent about by Weir: a no to
  // one of those says nothing about the others.
  if (no) return { text: part === 'channel' ? null : text, unrouted: true };
  return yes ? { text, unrouted: true } : undefined;
}

/** Whether a change of consent stays as its mapping gives it. @param value of a field of the record */
export const isRouted = (value: Value, policy: Policy): boolean => parts.every((part) => meant(value, part, policy) === undefined);

/**
 * A change of consent as the routes of the release take it: what binds nobody by its spelling binds whom it means. A channel or
 * topic that differs from that of a route by case, `-`, `_` or spaces becomes that one. Of a no, a channel that no route has becomes all
 * of them, a topic stays what it is, and any beside a no to every purpose (`*`) becomes all; a yes stays as it is, and opens nothing. A function of record and
 * release. @param tell of each part that no route has
 */
export function routedConsent(record: Readonly<Record<string, unknown>>, policy: Policy, tell: (part: Unrouted['part'], said: Unrouted['said']) => void): Readonly<Record<string, unknown>> {
  let changed: Record<string, unknown> | undefined;
  for (const part of parts) {
    const found = meant((field) => record[field], part, policy);
    if (found === undefined) continue;
    if (found.unrouted) tell(part, isNo(record['state']) ? 'no' : 'yes');
    if (found.text !== record[part]) (changed ??= { ...record })[part] = found.text;
  }
  return changed ?? record;
}
