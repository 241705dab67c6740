import type { CompiledPolicy } from './compile.ts';
import { sameSpelling } from './spelling.ts';

/** The routes of a policy: by them it is known which channels and topics there are. */
export type Routes = Pick<CompiledPolicy, 'routes'>;
type Part = 'channel' | 'topic';

/** Channels and topics that the routes of a policy name. */
interface Routed {
  readonly channel: ReadonlySet<string>;
  readonly topic: ReadonlySet<string>;
  readonly purpose: ReadonlySet<string>;
}

/** By the policy's own object: another release is another policy. */
const known = new WeakMap<Routes['routes'], Routed>();

function routedOf({ routes }: Routes): Routed {
  let found = known.get(routes);
  if (found === undefined) {
    const all = [...routes.values()].flat();
    const named = (part: keyof Routed): ReadonlySet<string> => new Set(all.flatMap((route) => [route[part] ?? [], route.second?.[part] ?? []].flat()));
    known.set(routes, found = { channel: named('channel'), topic: named('topic'), purpose: named('purpose') });
  }
  return found;
}

/**
 * The channel or topic of the routes that a text means: itself, or the one that it differs from only by case, `-`, `_` or spaces.
 * Undefined = no route has it. Where no route names any, there is nothing to be told apart, and each is as good as routed.
 */
export function asRouted(policy: Routes, part: Part, text: string): string | undefined {
  const written = routedOf(policy)[part];
  if (written.size === 0 || written.has(text)) return text;
  for (const name of written) if (sameSpelling(name, text)) return name;
  return undefined;
}

/** Whether a route has this channel, by whatever spelling. */
export const isRoutedChannel = (policy: Routes, channel: string): boolean => routedOf(policy).channel.size > 0 && asRouted(policy, 'channel', channel) !== undefined;

/** Whether a route uses people for this purpose. */
export const isRoutedPurpose = (policy: Routes, purpose: string): boolean => routedOf(policy).purpose.has(purpose);
