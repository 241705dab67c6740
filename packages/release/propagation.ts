import { closes, consentKey, echoMs, type ConsentState, type Decision } from '@weir/policy';
import type { Release } from './types.ts';

/** States of consent, as the tables have them. */
export interface StatesSeen {
  stored(key: string): { readonly state: ConsentState } | undefined;
}

/** A change of consent, as it was decided on. */
export interface ChangeSeen {
  readonly outputId: string;
  readonly source: string;
  readonly ids: readonly string[];
  readonly purpose: string;
  readonly channel: string | null;
  readonly topic: string | null;
  readonly state: string;
  /** It is said with every call, no act of the person: once every destination was told, it says nothing new for a day. */
  readonly repeats?: boolean;
  /** ms since the epoch; absent = of the same day. */
  readonly acceptedAt?: number;
}

const said = (state: string): string => (closes(state) ? 'no' : state);

/**
 * Whether every identifier of the change had said the same before, by another change: the answer of a tool that Weir
 * told, or a repetition. What told it first has gone to every destination, so going on would be a loop. The state names
 * the change that set it, so the same change is decided alike whenever it is decided again. That it has gone says not that it
 * has arrived, and a destination may be new, so of what is said with every call it counts for a day (`echoMs`): then the fold
 * names the one that is told anew.
 */
function isEcho(change: ChangeSeen, tables: StatesSeen): boolean {
  return change.ids.length > 0 && change.ids.every((id) => {
    const state = tables.stored(consentKey(id, change.purpose, change.channel ?? '', change.topic ?? ''))?.state;
    if (state?.setBy === undefined || state.setBy === '' || state.setBy === change.outputId || said(state.state) !== said(change.state)) return false;
    return change.repeats !== true || (change.acceptedAt ?? 0) - (state.setAt ?? 0) < echoMs;
  });
}

/** Only a tool that Weir tells can answer what it was told: a destination of its adapter, or of its name where it is told by another one (http). What others say again (a person, a form) goes everywhere again: a restriction is never dropped. */
function isTold(source: string, release: Release): boolean {
  return release.destinations.has(source) || [...release.destinations.keys()].some((destination) => isSameTool(destination, source, release));
}

function isSameTool(destination: string, source: string, release: Release): boolean {
  const tool = release.sources.get(source)?.adapter.manifest.name;
  return tool !== undefined && tool === release.destinations.get(destination)?.adapter?.manifest.name;
}

/** The destination told us, so it knows. Where a tool has several accounts, only the one of the source's name surely is the one that spoke. */
function isOrigin(destination: string, source: string, release: Release): boolean {
  if (!isSameTool(destination, source, release)) return false;
  const accounts = (of: Iterable<string>, same: (name: string) => boolean): number => [...of].filter(same).length;
  return destination === source || (accounts(release.destinations.keys(), (name) => isSameTool(name, source, release)) === 1 && accounts(release.sources.keys(), (name) => isSameTool(destination, name, release)) === 1);
}

/** The decisions on a change of consent, without those that would tell a tool what it knows: `consent-origin`, `consent-echo`. */
export function propagate(decisions: readonly Decision[], change: ChangeSeen, tables: StatesSeen, release: Release): readonly Decision[] {
  if (decisions.every((d) => d.effect !== 'allow')) return decisions;
  const echo = (change.repeats === true || isTold(change.source, release)) && isEcho(change, tables);
  return decisions.map((decision): Decision => {
    if (decision.effect !== 'allow') return decision;
    const reason = isOrigin(decision.route.destination, change.source, release) ? 'consent-origin' : echo ? 'consent-echo' : undefined;
    return reason === undefined ? decision : { effect: 'deny', route: decision.route, rule: decision.rule, reason, consent: decision.consent };
  });
}
