import { incidentAbout, type Escalation, type EscalationConfig, type Incident } from '@weir/release';
import type { Clock } from '@weir/service';
import type { Logger } from 'pino';
import { Counter, type Registry } from 'prom-client';

/** How a destination is, as seen by the instance that owns its first partition. */
export interface Observed {
  readonly destination: string;
  /** Since when the breaker has not been closed, ms; undefined = it is closed. */
  readonly openSince: number | undefined;
  readonly openCode: string;
  /** When a call was answered last, ms; 0 = not by this instance, or not since it looks at the trouble that was told. */
  readonly aliveAt: number;
  /** The last incident of its credential. */
  readonly credential: Incident | undefined;
}

/** What escalating rules and changes of consent that bind nobody raised, as something to look at; for one instance alone. */
export function escalatedOthers(incidents: Iterable<Incident>): Observed[] {
  return [...incidents].filter((i) => incidentAbout(i.destination).kind !== 'destination').map((credential) => ({ destination: credential.destination, openSince: undefined, openCode: '', aliveAt: 0, credential }));
}

/** The destination whose owner tells of those others: the first of those that run, for one whose topics are missing has no owner. */
export const speakerFor = (destinations: Iterable<string>, runs: (destination: string) => boolean): string | undefined => [...destinations].sort().find(runs);

/** What people are told: that something began or that it is over. */
export interface Notice extends Escalation {
  readonly phase: 'opened' | 'closed';
  /** The same for every try and channel: who gets it twice can tell. */
  readonly id: string;
}

/**
 * What is to be told now, given what was told before. The trouble of a breaker is told when it lasts; that of a
 * credential at once, one incident each. Over is: a call was answered after it began, or the incident ended.
 */
export function decide(kind: Escalation['kind'], told: Escalation | undefined, seen: Observed, now: number, afterMs: number): Escalation | undefined {
  const { destination } = seen;
  if (kind === 'credential') {
    const incident = seen.credential;
    if (told?.until === null) return incident?.until === null && incident.since === told.since ? undefined : { ...told, until: incident?.until ?? now };
    return incident?.until === null && incident.since !== told?.since ? { destination, kind, code: incident.code, since: incident.since, until: null } : undefined;
  }
  if (told?.until === null) return seen.openSince === undefined && seen.aliveAt > told.since ? { ...told, until: now } : undefined;
  // A broken credential opens the breaker, too; it is told as what it is.
  const lasts = seen.openSince !== undefined && now - seen.openSince >= afterMs && seen.credential?.until !== null;
  return lasts ? { destination, kind, code: seen.openCode, since: seen.openSince!, until: null } : undefined;
}

export interface EscalationPorts {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly registry: Registry;
  config(): EscalationConfig | undefined;
  /** What was told last, by `<destination>/<kind>`. */
  told(): ReadonlyMap<string, Escalation>;
  /** Kept for who owns the destination next; resolves when it is acknowledged. */
  save(escalation: Escalation): Promise<void>;
  /** Each throws when it was not taken. */
  readonly channels: Readonly<Record<'webhook' | 'email', (config: EscalationConfig, notice: Notice) => Promise<void>>>;
}

const tries = 6;
const firstWaitMs = 1000;
const longestWaitMs = 60_000;

/**
 * Tells people, beside the delivery and never in its way: nothing here is waited for by a call. Once per incident and
 * once at its end; what was told is kept on weir.control, so that the next owner does not tell it again (after a crash
 * in between it does, under the same id). Each channel is tried six times in about two minutes; then the log and the
 * metric have it.
 */
export function createEscalations(ports: EscalationPorts): { look(seen: readonly Observed[]): void; drained(): Promise<void>; close(): void } {
  const { clock, logger } = ports;
  const sent = new Counter({ name: 'weir_escalations_total', help: 'Notices to people about destinations in trouble, by channel and result.', labelNames: ['channel', 'phase', 'result'], registers: [ports.registry] });
  const mine = new Map<string, Escalation>();
  const running = new Set<Promise<void>>();
  const waiting = new Map<unknown, () => void>();
  /** Of what was told as trouble: when a call had been answered last as this instance first looked at it. A new owner's answer may be from before it. */
  const before = new Map<string, number>();
  let closed = false;

  function wait(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        waiting.delete(handle);
        resolve();
      };
      const handle = clock.setTimer(done, ms);
      waiting.set(handle, done);
    });
  }

  /** False: it was cut off by the end of this process; who owns the destination next tells it. */
  async function send(channel: 'webhook' | 'email', config: EscalationConfig, notice: Notice): Promise<boolean> {
    for (let n = 1; !closed; n++) {
      try {
        await ports.channels[channel](config, notice);
        sent.inc({ channel, phase: notice.phase, result: 'sent' });
        return true;
      } catch (error) {
        const last = n >= tries;
        logger[last ? 'error' : 'warn']({ destination: notice.destination, channel, phase: notice.phase, try: n, reason: (error as Error).message }, last ? 'nobody could be told' : 'escalation not sent, tried again');
        if (last) {
          sent.inc({ channel, phase: notice.phase, result: 'given-up' });
          return true;
        }
      }
      await wait(Math.min(longestWaitMs, firstWaitMs * 3 ** (n - 1)));
    }
    return false;
  }

  /** With the answers alone that came since this instance looks at the trouble that was told. */
  function sinceTold(seen: Observed, told: Escalation | undefined): Observed {
    const { destination, aliveAt } = seen;
    if (told?.until !== null) {
      before.delete(destination);
      return seen;
    }
    const first = before.get(destination) ?? aliveAt;
    before.set(destination, first);
    return aliveAt === first ? { ...seen, aliveAt: 0 } : seen;
  }

  async function tell(escalation: Escalation, config: EscalationConfig): Promise<void> {
    const phase = escalation.until === null ? 'opened' : 'closed';
    const notice: Notice = { ...escalation, phase, id: `esc_${escalation.destination}_${escalation.kind}_${escalation.since}_${phase}` };
    logger[phase === 'opened' ? 'error' : 'info']({ destination: notice.destination, kind: notice.kind, code: notice.code, since: new Date(notice.since).toISOString(), phase }, 'escalation');
    const told = await Promise.all((['webhook', 'email'] as const).filter((channel) => config[channel] !== undefined).map((channel) => send(channel, config, notice)));
    if (told.every((one) => one)) await ports.save(escalation);
  }

  return {
    look(seen) {
      const config = ports.config();
      if (config === undefined || closed) return;
      const names = new Set(seen.map(({ destination }) => destination));
      for (const destination of before.keys()) if (!names.has(destination)) before.delete(destination);
      for (const one of seen) {
        for (const kind of ['breaker', 'credential'] as const) {
          const key = `${one.destination}/${kind}`;
          // What this instance told may not have come back yet.
          const [own, read] = [mine.get(key), ports.told().get(key)];
          const last = own === undefined || (read !== undefined && (read.since > own.since || (read.since === own.since && read.until !== null))) ? read : own;
          const next = decide(kind, last, kind === 'breaker' ? sinceTold(one, last) : one, clock.now(), config.afterMs);
          if (next === undefined) continue;
          if (kind === 'breaker' && next.until === null) before.set(one.destination, one.aliveAt);
          mine.set(key, next);
          const work = tell(next, config).catch((error: unknown) => {
            logger.error({ err: error, destination: one.destination }, 'escalation not kept');
          }).finally(() => running.delete(work));
          running.add(work);
        }
      }
    },
    async drained() {
      while (running.size > 0) await Promise.all(running);
    },
    close() {
      closed = true;
      for (const [handle, done] of [...waiting]) {
        clock.clearTimer(handle);
        done();
      }
    },
  };
}
