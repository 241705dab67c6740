import { isAway } from '@weir/pipeline';
import type { Incident } from '@weir/release';
import { incidentName } from '@weir/release';
import { Gauge, type Registry } from 'prom-client';
import type { Store } from './store.ts';

/** Changes of consent of one source that bind nobody. */
export interface Unresolved {
  readonly source: string;
  /** Events that wait to be put right. */
  readonly open: number;
  /** When the first of them was set aside, ms. */
  readonly since: number;
}

interface Ports {
  readonly store: Pick<Store, 'unresolved' | 'endedAs'>;
  readonly incidents: () => ReadonlyMap<string, Incident>;
  /** Puts the incident on weir.control; resolves when it is acknowledged. */
  readonly save: (incident: Incident) => Promise<void>;
  readonly registry: Registry;
  readonly clock: { now(): number; setTimer(run: () => void, ms: number): unknown; clearTimer(timer: unknown): void };
  readonly failed: (error: unknown) => void;
}

export interface UnresolvedConsent {
  /** By the name of the incident. */
  view(): ReadonlyMap<string, Unresolved>;
  /** A look that is under way ends: it reads nothing more of the store, which may be closed at once, and saves nothing more. */
  close(): void;
}

const lookEveryMs = 1000;
/** Looked at in one turn of the event loop: a few milliseconds. */
const turnRows = 500;
/** An incident that was written and is not seen on weir.control is written again after this time. */
const saveEveryMs = 10_000;

/**
 * Keeps one incident per source while dead letters of it carry changes of consent: who they are about may still be sent
 * to. It begins with the first letter and ends when each of them was put back and not set aside again; people are told
 * as of any incident (services/dispatcher, escalation). Derived from the letters themselves, so it outlives every process.
 */
export function createUnresolved(ports: Ports): UnresolvedConsent {
  const { store, clock } = ports;
  const gauge = new Gauge({ name: 'weir_consent_unresolved', help: 'Events whose change of consent binds nobody, by source, until they are put right.', labelNames: ['source'], registers: [ports.registry] });
  const saved = new Map<string, { readonly until: number | null; readonly at: number }>();
  let view: ReadonlyMap<string, Unresolved> = new Map();
  let closed = false;
  let timer: unknown;

  /**
   * Each event as it stands when its turn comes. What is set aside behind it meanwhile is found by the next look: at worst an
   * incident ends and begins anew a second later. Undefined = closed meanwhile.
   */
  async function count(): Promise<Map<string, Unresolved> | undefined> {
    const found = new Map<string, Unresolved>();
    let looked = 0;
    for (const { eventId, source, at, ofIngest } of store.unresolved()) {
      // A mapping that fails sets aside whatever comes: a kill switch must not wait for a look at it.
      if (++looked % turnRows === 0) {
        await new Promise<void>((resume) => { setImmediate(resume); });
        if (closed) return undefined;
      }
      // Put back, or closed by somebody; what ingest set aside was accepted by nobody and has no end before.
      const end = store.endedAs(eventId);
      if ((end === undefined && !ofIngest) || end === 'dropped') continue;
      const name = incidentName.consent(source);
      const before = found.get(name);
      found.set(name, { source, open: (before?.open ?? 0) + 1, since: Math.min(before?.since ?? Infinity, at) });
    }
    return found;
  }

  async function save(incident: Incident): Promise<void> {
    if (closed) return;
    const last = saved.get(incident.destination);
    if (last !== undefined && last.until === incident.until && clock.now() - last.at < saveEveryMs) return;
    saved.set(incident.destination, { until: incident.until, at: clock.now() });
    await ports.save(incident);
  }

  async function look(): Promise<void> {
    const found = await count();
    if (found === undefined) return;
    view = found;
    gauge.reset();
    for (const { source, open } of view.values()) gauge.set({ source }, open);
    for (const [destination, { since }] of view) if (ports.incidents().get(destination)?.until !== null) await save({ destination, code: 'consent-unresolved', since, until: null });
    for (const incident of ports.incidents().values()) if (incident.code === 'consent-unresolved' && incident.until === null && !view.has(incident.destination)) await save({ ...incident, until: clock.now() });
  }

  /** The next look begins a second after the end of this one, however long it takes. */
  function later(): void {
    timer = clock.setTimer(() => {
      // Brokers that are away: the next look writes what this one could not.
      look().catch((error: unknown) => { if (!closed && !isAway(error)) ports.failed(error); }).finally(() => { if (!closed) later(); });
    }, lookEveryMs);
  }
  later();
  return {
    view: () => view,
    close() {
      closed = true;
      clock.clearTimer(timer);
    },
  };
}
