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
  close(): void;
}

const lookEveryMs = 1000;
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

  function count(): Map<string, Unresolved> {
    const found = new Map<string, Unresolved>();
    for (const { eventId, source, at } of store.unresolved()) {
      // Put back, or closed by somebody.
      const end = store.endedAs(eventId);
      if (end === undefined || end === 'dropped') continue;
      const name = incidentName.consent(source);
      const before = found.get(name);
      found.set(name, { source, open: (before?.open ?? 0) + 1, since: Math.min(before?.since ?? Infinity, at) });
    }
    return found;
  }

  async function save(incident: Incident): Promise<void> {
    const last = saved.get(incident.destination);
    if (last !== undefined && last.until === incident.until && clock.now() - last.at < saveEveryMs) return;
    saved.set(incident.destination, { until: incident.until, at: clock.now() });
    await ports.save(incident);
  }

  async function look(): Promise<void> {
    view = count();
    gauge.reset();
    for (const { source, open } of view.values()) gauge.set({ source }, open);
    for (const [destination, { since }] of view) if (ports.incidents().get(destination)?.until !== null) await save({ destination, code: 'consent-unresolved', since, until: null });
    for (const incident of ports.incidents().values()) if (incident.code === 'consent-unresolved' && incident.until === null && !view.has(incident.destination)) await save({ ...incident, until: clock.now() });
  }

  function later(): void {
    timer = clock.setTimer(() => {
      look().catch((error: unknown) => { if (!closed) ports.failed(error); }).finally(() => { if (!closed) later(); });
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
