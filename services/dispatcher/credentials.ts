import { isDeepStrictEqual } from 'node:util';
import { findWeirError, type ErrorCode } from '@weir/errors';
import { incidentAbout, lackedScopes, resolveConfig, secretNames, type DestinationConfig, type Incident, type ReleaseFeed } from '@weir/release';
import type { Clock } from '@weir/service';
import type { Vault } from '@weir/vault';
import type { Logger } from 'pino';
import { Gauge, type Registry } from 'prom-client';

export interface Credentials {
  /** The destination of the running release with its secrets; undefined when it is not in the release or a secret cannot be had: it is not called and keeps its events. `config` is the same object while its values, secrets too, are the same. */
  destination(name: string): DestinationConfig | undefined;
  /** The vendor refused the credential: the vault is asked again, for new tokens of this destination's clients too, and an incident begins, or goes on. */
  rejected(name: string): void;
  /** The vendor answered a call that carried the credential: an incident ends. */
  accepted(name: string): void;
  close(): Promise<void>;
}

interface Ports {
  readonly vault: Vault;
  readonly releases: Pick<ReleaseFeed, 'current' | 'incidents'>;
  readonly sandboxUrl: string;
  readonly logger: Logger;
  readonly registry: Registry;
  readonly clock: Clock;
  /** Puts the incident on weir.control; resolves when it is acknowledged. */
  readonly save: (incident: Incident) => Promise<void>;
  /** A destination can be had again, or has another credential. */
  readonly changed: () => void;
}

const refusedCode = 'credential-rejected' satisfies ErrorCode;
const firstRetryMs = 500;
const maxRetryMs = 30_000;
/** A secret that cannot be had counts as missing after one read of the vault, and after this at the latest. */
const missedAfterMs = 5000;
/** Between two times that an instance tells that what it noticed lasts. */
const renewMs = 30_000;
/** Who was refused so long ago has nothing more to call, and knows nothing of the credential any more: the breaker lets a probe through sooner. */
const refusedForMs = 120_000;
/** What another instance noticed, and has told nothing of for so long, is over where this one finds it so: that instance may be gone. */
const othersEndAfterMs = 60_000;

interface Missed {
  readonly since: number;
  readonly code: ErrorCode;
  /** The vault was read since, or its refusal needs no read. */
  counts: boolean;
  /** It is in the log. */
  readonly told: boolean;
}

/**
 * Credentials of the destinations. One that cannot be resolved is tried again with a backoff of its own (0.5 s
 * to 30 s) and whenever the vault changed. A secret that is `secret-unavailable` is no incident before the vault was
 * read once: a token that nobody asked for before is fetched then. An incident keeps its start over restarts and
 * instances, and one of a refused credential ends only when the vendor takes it, wherever the secret was meanwhile. Who finds it so
 * saves its incident again every half minute, so that it is left to it by those who find it otherwise, and by those who only read of it;
 * who finds its own ended by another begins a new one.
 */
export function createCredentials(ports: Ports): Credentials {
  const { vault, releases, logger, clock } = ports;
  const paused = new Gauge({ name: 'weir_destination_credential_paused', help: '1 while the destination is paused because its secret cannot be had or is refused.', labelNames: ['destination', 'code'], registers: [ports.registry] });
  const resolved = new Map<string, DestinationConfig>();
  const open = new Map<string, Incident>();
  /** When the vendor refused it last, monotonic ms. */
  const refusedAt = new Map<string, number>();
  /** Start of the incident that was ended here last: weir.control may tell it as open for a moment more. */
  const ended = new Map<string, number>();
  /** Incidents of other instances, as they were told last, and since when this one finds it otherwise (ms, monotonic). */
  const others = new Map<string, { readonly told: Incident; readonly from: number }>();
  /** Destinations whose secret cannot be had. */
  const missed = new Map<string, Missed>();
  /** Scopes that a credential lacks, as they were told last. */
  const scopesTold = new Map<string, string>();
  /** Bounds in time of the reads of the vault that are waited for. */
  const looks = new Set<unknown>();
  let resolvedFor = '';
  let resolvedRevision = -1;
  let timer: unknown;
  let tries = 0;
  let saving: Promise<void> = Promise.resolve();
  const off = vault.onChange(() => { ports.changed(); });

  // Whether a secret can be had this instance finds out by itself.
  for (const incident of releases.incidents().values()) if (incident.until === null && incident.code === refusedCode && releases.current().destinations.has(incident.destination)) stands(incident);
  let renewing: unknown;
  renewLater();

  function save(incident: Incident): void {
    // Out of reach the log fails the work itself; the incident is in the log file and the metric then.
    saving = saving.then(() => ports.save(incident)).catch((error: unknown) => logger.error({ err: error, destination: incident.destination }, 'incident not saved'));
  }

  /** What stands open here; what another instance has ended does not. */
  function standing(destination: string): Incident | undefined {
    const known = open.get(destination);
    const last = releases.incidents().get(destination);
    if (known === undefined || last === undefined || last.until === null || last.since !== known.since) return known;
    open.delete(destination);
    paused.remove({ destination, code: known.code });
    return undefined;
  }

  function stands(incident: Incident): void {
    open.set(incident.destination, incident);
    paused.set({ destination: incident.destination, code: incident.code }, 1);
  }

  /** What weir.control has as open; not what was ended here and is told as open for a moment more. */
  function toldOf(destination: string): Incident | undefined {
    const last = releases.incidents().get(destination);
    return last?.until === null && last.since !== ended.get(destination) ? last : undefined;
  }

  /** Scopes that its credential lacks, with the name of the secret; empty = none that is known. */
  function lackedBy(destination: string): string {
    const config = releases.current().destinations.get(destination);
    return config === undefined ? '' : lackedScopes(config.adapter.manifest.destination?.config ?? {}, config.config, vault).map(({ name, lacks }) => `${name}: ${lacks.join(', ')}`).join('; ');
  }

  /** Once for what is lacking: a vendor may refuse some of the calls only, each as the fault of its record. */
  function tellScopes(destination: string): void {
    const lacks = lackedBy(destination);
    if (lacks !== '' && lacks !== scopesTold.get(destination)) logger.warn({ destination, lacks }, 'the token of the credential lacks scopes that the destination needs');
    scopesTold.set(destination, lacks);
  }

  function begin(destination: string, code: ErrorCode, from = clock.now()): void {
    others.delete(destination);
    const known = standing(destination);
    // What the vendor refused is refused until it takes it, also while the secret cannot be had.
    if (known?.code === code || known?.code === refusedCode) return;
    if (known !== undefined) paused.remove({ destination, code: known.code });
    // Another instance may have noticed it first.
    const told = toldOf(destination);
    const last = releases.incidents().get(destination);
    // One that was told as ended since is another one: people are told by its start.
    const since = last !== undefined && last.until !== null && from <= last.until ? clock.now() : from;
    const incident: Incident = { destination, code: told?.code === refusedCode ? refusedCode : code, since: known?.since ?? told?.since ?? since, until: null };
    stands(incident);
    save(incident);
    const lacks = lackedBy(destination);
    logger.error({ destination, code: incident.code, since: new Date(incident.since).toISOString(), ...(lacks === '' ? {} : { lacks }) }, 'destination paused: credential');
  }

  function end(destination: string): void {
    const known = open.get(destination);
    if (known === undefined) return;
    open.delete(destination);
    ended.set(destination, known.since);
    paused.remove({ destination, code: known.code });
    save({ ...known, until: clock.now() });
    logger.info({ destination, code: known.code, since: new Date(known.since).toISOString() }, 'destination goes on: credential');
  }

  /** This instance finds it over: an incident of one that is gone would stay open for ever. */
  function endOthers(destination: string): void {
    const last = releases.incidents().get(destination);
    if (last?.until !== null) return void others.delete(destination);
    const known = others.get(destination);
    // Each time that it is told it is another object.
    if (known?.told !== last) return void others.set(destination, { told: last, from: clock.monotonic() });
    if (clock.monotonic() - known.from < othersEndAfterMs) return;
    others.delete(destination);
    ended.set(destination, last.since);
    save({ ...last, until: clock.now() });
    logger.info({ destination, code: last.code, since: new Date(last.since).toISOString() }, 'destination goes on: an incident of its credential that another instance left open');
  }

  /** Whether this instance can have the secret, or nobody is to have it: no call tells of the end. */
  const isHad = ({ destination, code }: Incident): boolean => !releases.current().destinations.has(destination) || (code !== refusedCode && resolved.has(destination));

  function renewLater(): void {
    renewing = clock.setTimer(() => {
      for (const destination of [...open.keys()]) {
        const lasts = missed.has(destination) || clock.monotonic() - (refusedAt.get(destination) ?? Number.NEGATIVE_INFINITY) < refusedForMs;
        const incident = lasts ? standing(destination) : undefined;
        if (incident === undefined) continue;
        // Two that noticed it at once have two starts: the one that was written last is told, and both keep to it.
        const since = toldOf(destination)?.since ?? incident.since;
        if (since !== incident.since) open.set(destination, { ...incident, since });
        save({ ...incident, since });
      }
      for (const incident of [...releases.incidents().values()]) if (incidentAbout(incident.destination).kind === 'destination' && !open.has(incident.destination) && isHad(incident)) endOthers(incident.destination);
      renewLater();
    }, renewMs);
  }

  function retryLater(): void {
    if (timer !== undefined) return;
    timer = clock.setTimer(() => {
      timer = undefined;
      // Resolved again by the next destination(); the vault answers from memory when it is up to date.
      resolvedFor = '';
      void vault.refresh().then(ports.changed, (error: unknown) => {
        logger.error({ err: error }, 'vault refresh failed');
        ports.changed();
      });
    }, Math.min(maxRetryMs, firstRetryMs * 2 ** Math.min(tries++, 10)));
  }

  /** Reads the vault, and then the token of a client that it has; bounded in time. What cannot be had after it counts. */
  function look(destination: string, one: Missed): void {
    missed.set(destination, one);
    const read = (): void => {
      if (!looks.delete(bound)) return;
      clock.clearTimer(bound);
      one.counts = true;
      resolvedFor = '';
      ports.changed();
    };
    const bound = clock.setTimer(read, missedAfterMs);
    looks.add(bound);
    const reading = async (): Promise<void> => {
      await vault.refresh();
      if (!looks.has(bound)) return;
      // A client that could not be read before is found now; its token is asked for by this.
      resolveAll();
      if (missed.get(destination) === one) await vault.refresh();
    };
    reading().then(read, (error: unknown) => {
      logger.error({ err: error }, 'vault refresh failed');
      read();
    });
  }

  function resolveAll(): void {
    const before = new Map(resolved);
    resolved.clear();
    let missing = false;
    for (const config of releases.current().destinations.values()) {
      try {
        const known = before.get(config.name)?.config;
        const found = resolveConfig(config.config, { vault, sandboxUrl: ports.sandboxUrl, sentBy: config.adapter.manifest.destination?.config });
        resolved.set(config.name, { ...config, config: isDeepStrictEqual(known, found) ? known! : found });
        missed.delete(config.name);
        tellScopes(config.name);
        if (open.get(config.name)?.code !== refusedCode) end(config.name);
      } catch (error) {
        const known = findWeirError(error);
        if (known === undefined) throw error;
        const before = missed.get(config.name);
        const one: Missed = { since: before?.since ?? clock.now(), code: known.code, counts: known.code !== 'secret-unavailable' || open.has(config.name) || before?.counts === true, told: true };
        if (!one.counts) {
          if (before === undefined) look(config.name, { ...one, told: false });
          continue;
        }
        missed.set(config.name, one);
        if (before?.told !== true || before.code !== known.code) logger.warn({ destination: config.name, reason: known.message }, 'no usable secret');
        begin(config.name, known.code, one.since);
        missing = true;
      }
    }
    for (const name of open.keys()) if (!releases.current().destinations.has(name)) end(name);
    for (const name of missed.keys()) if (!releases.current().destinations.has(name)) missed.delete(name);
    if (missing) retryLater();
    else tries = 0;
  }

  return {
    destination(name) {
      const { hash } = releases.current();
      const revision = vault.revision();
      if (hash !== resolvedFor || revision !== resolvedRevision) {
        resolvedFor = hash;
        resolvedRevision = revision;
        resolveAll();
      }
      return resolved.get(name);
    },
    rejected(name) {
      refusedAt.set(name, clock.monotonic());
      begin(name, refusedCode);
      // A token server that nobody complained of is left alone: it may count requests, or turn a refresh token over at each.
      const names = secretNames(releases.current().destinations.get(name)?.config ?? {}).map((secret) => secret.name);
      void vault.refresh(names).catch((error: unknown) => logger.error({ err: error }, 'vault refresh failed'));
    },
    accepted(name) {
      if (open.size > 0) end(name);
      endOthers(name);
    },
    async close() {
      off();
      if (timer !== undefined) clock.clearTimer(timer);
      clock.clearTimer(renewing);
      for (const bound of looks) clock.clearTimer(bound);
      looks.clear();
      await saving;
    },
  };
}
