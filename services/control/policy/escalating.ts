import { isAway } from '@weir/pipeline';
import { incidentAbout, incidentName, type Incident } from '@weir/release';
import type { Clock } from '@weir/service';

interface Ports {
  /** Of these rules those that hold a delivery that waits for an approver; undefined = that cannot be said now. */
  readonly waiting: (rules: ReadonlySet<string>) => Promise<ReadonlySet<string> | undefined>;
  /** Rules of the running release that escalate. */
  readonly rules: () => readonly string[];
  readonly incidents: () => ReadonlyMap<string, Incident>;
  /** Puts the incident on weir.control; resolves when it is acknowledged. */
  readonly save: (incident: Incident) => Promise<void>;
  readonly clock: Pick<Clock, 'now' | 'setTimer' | 'clearTimer'>;
  readonly failed: (error: Error) => void;
}

export interface Escalating {
  /** Something of this rule was decided: its incident ends now where nothing of it waits any more. What fails is done by the next look. */
  decided(rule: string): Promise<void>;
  close(): void;
}

const lookEveryMs = 5000;

/**
 * Keeps the incident of an escalating rule open while something that it holds waits for an approver, and no longer: it ends
 * when all of it is decided or has expired, also after the rule has left the release. The policy stage raises it with the first
 * that is held; one that was held while the incident of those before it ended is found here. What does not fit has to be seen
 * twice: an incident and what it is about come over two topics.
 */
export function createEscalating(ports: Ports): Escalating {
  const { clock, incidents } = ports;
  let timer: unknown;
  let closed = false;
  /** Names of incidents that did not fit at the last look. */
  let odd: ReadonlySet<string> = new Set();
  const isOpen = (rule: string): boolean => incidents().get(incidentName.rule(rule))?.until === null;

  async function end(rule: string): Promise<void> {
    const incident = incidents().get(incidentName.rule(rule));
    if (incident?.until === null) await ports.save({ ...incident, until: clock.now() });
  }

  async function look(): Promise<void> {
    const rules = new Set(ports.rules());
    for (const { destination, until } of incidents().values()) {
      const { kind, name } = incidentAbout(destination);
      if (kind === 'policy' && until === null) rules.add(name);
    }
    const waiting = rules.size === 0 ? new Set<string>() : await ports.waiting(rules);
    if (waiting === undefined) return;
    const before = odd;
    odd = new Set([...rules].filter((rule) => isOpen(rule) !== waiting.has(rule)));
    for (const rule of odd) {
      if (!before.has(rule)) continue;
      if (isOpen(rule)) await end(rule);
      else await ports.save({ destination: incidentName.rule(rule), code: 'approval-required', since: clock.now(), until: null });
    }
  }

  /** Brokers that are away: the next look writes what this one could not. */
  const failed = (error: unknown): void => { if (!closed && !isAway(error)) ports.failed(error as Error); };

  function later(): void {
    timer = clock.setTimer(() => { void look().catch(failed).finally(() => { if (!closed) later(); }); }, lookEveryMs);
  }
  later();
  return {
    async decided(rule) {
      try {
        if (isOpen(rule) && (await ports.waiting(new Set([rule])))?.size === 0) await end(rule);
      } catch (error) {
        failed(error);
      }
    },
    close() {
      closed = true;
      clock.clearTimer(timer);
    },
  };
}
