import type { OperationManifest } from '@weir/adapter';
import { bucketOf, createAccountQuota, createUnreserved, drawOf, readBackDraw, type AccountQuota, type CallClass, type Draw, type QuotaReserve, type QuotaShare, type QuotaState, type Want } from '@weir/http';
import { isPassing } from '@weir/pipeline';
import type { DestinationConfig, Release } from '@weir/release';
import type { Clock } from '@weir/service';
import { Gauge, type Registry } from 'prom-client';
import type { Task } from './types.ts';

/** What is left of the quota of a destination's account to this instance. */
export interface DestinationQuota {
  /** ms until a call may start; 0 = it is counted, and `finished` must follow. */
  take(bucket: string, limit: OperationManifest['limit'], name: CallClass, now: number): number;
  finished(bucket: string, end: Parameters<AccountQuota['finished']>[1], now: number): void;
  /** For a choice among equivalent paths: what may start now, at which rate, closed for how long. */
  state(operation: string, limit: OperationManifest['limit'], now: number): QuotaState;
  /** Partitions are gone and others may have used their part. */
  lost(now: number): void;
  /** Partitions came or went. */
  shareChanged(now: number): void;
}

export interface Quotas {
  of(destination: string): DestinationQuota;
  /** Partitions of weir.dispatch.<destination>, as the brokers told. */
  partitions(destination: string, count: number): void;
  /**
   * This instance was given these of them. There are so many at least, which holds at once; how many there are, some may have been added,
   * is what `ask` tells. Brokers that do not answer are asked again with the next assignment.
   */
  assigned(destination: string, partitions: readonly number[], ask: () => Promise<number>): Promise<void>;
}

interface Ports {
  readonly release: () => Release;
  /** Partitions of the destination that this instance surely owns now. */
  readonly held: (destination: string) => number;
  /** What is left to others of an account for a while (`reserve/<account>` on weir.control). */
  readonly reserves: () => ReadonlyMap<string, QuotaReserve>;
  readonly clock: Clock;
  readonly registry: Registry;
}

/** What a call, or a look at what the vendor has, counts against. */
export function drawnFrom(task: Pick<Task, 'path' | 'delivery'>, kind: 'call' | 'read-back', operation: OperationManifest): Draw {
  if (kind === 'read-back') return readBackDraw(task.delivery.operation, operation);
  return drawOf(task.path === '' ? task.delivery.operation : task.path, operation);
}

/** Where a delivery stands in the order of its account. A refusal for the rate alone makes no retry of it. */
export function classOf(task: Pick<Task, 'redrive' | 'attempts' | 'last'>, kind: OperationManifest['kind'] | undefined): CallClass {
  if (kind === 'restrict') return 'restrict';
  if (task.redrive !== '') return 'replay';
  return task.attempts > 0 && task.last?.verdict !== 'throttled' ? 'retry' : 'live';
}

/**
 * One quota per vendor account, shared by all its destinations in this process. Its share of the account is the part
 * of the account's dispatch partitions that it owns (docs/decisions/0007-quota.md), less what is reserved (0032).
 */
export function createQuotas(ports: Ports): Quotas {
  const { clock } = ports;
  const accounts = new Map<string, AccountQuota>();
  const counts = new Map<string, number>();
  /** By destination and bucket, the account that counted each call that is open: a release may name another one before the call ends. */
  const open = new Map<string, Map<string, AccountQuota[]>>();
  const unreserved = createUnreserved({ reserves: ports.reserves, now: () => clock.now(), monotonic: () => clock.monotonic() });
  metrics(ports.registry, accounts, clock);

  const members = (account: string): string[] => [...ports.release().destinations.values()].filter((d) => d.account === account).map((d) => d.name);

  function shareOf(account: string): () => QuotaShare {
    let release: Release | undefined;
    let total = -1;
    let share: QuotaShare | undefined;
    return () => {
      const current = ports.release();
      const known = [...counts.values()].reduce((a, b) => a + b, 0);
      if (share === undefined || release !== current || known !== total) {
        release = current;
        total = known;
        const names = members(account);
        const slots = names.reduce((sum, name) => sum + (counts.get(name) ?? 0), 0);
        const pollers = [...current.sources.values()].filter((s) => s.account === account && s.adapter.source?.kind === 'poll').length;
        const held = (): number => names.reduce((sum, name) => sum + ports.held(name), 0) * unreserved(account);
        share = { operation: { slots, held }, account: { slots: slots + pollers, held } };
      }
      return share;
    };
  }

  function limitOf(account: string): () => DestinationConfig['accountLimit'] {
    let release: Release | undefined;
    let limit: DestinationConfig['accountLimit'];
    return () => {
      if (release !== ports.release()) {
        release = ports.release();
        limit = release.destinations.get(members(account)[0] ?? '')?.accountLimit;
      }
      return limit;
    };
  }

  function accountOf(destination: string): AccountQuota {
    const account = ports.release().destinations.get(destination)?.account ?? destination;
    let quota = accounts.get(account);
    if (quota === undefined) {
      accounts.set(account, quota = createAccountQuota({ share: shareOf(account), limit: limitOf(account), random: () => clock.random(), now: () => clock.now() }));
    }
    return quota;
  }

  function openOf(destination: string): Map<string, AccountQuota[]> {
    let calls = open.get(destination);
    if (calls === undefined) open.set(destination, calls = new Map());
    return calls;
  }

  function take(destination: string, want: Want, now: number): number {
    const account = accountOf(destination);
    const ms = account.take(want, now);
    if (ms > 0) return ms;
    const calls = openOf(destination);
    const counted = calls.get(want.bucket);
    if (counted === undefined) calls.set(want.bucket, [account]);
    else counted.push(account);
    return 0;
  }

  return {
    partitions: (destination, count) => { counts.set(destination, count); },
    async assigned(destination, partitions, ask) {
      counts.set(destination, Math.max(counts.get(destination) ?? 0, ...partitions.map((p) => p + 1)));
      try {
        counts.set(destination, await ask());
      } catch (error) {
        if (!isPassing(error)) throw error;
      }
    },
    of: (destination) => ({
      take: (bucket, limit, name, now) => take(destination, { bucket, limit, class: name, who: destination }, now),
      finished: (bucket, end, now) => (openOf(destination).get(bucket)?.shift() ?? accountOf(destination)).finished(bucket, end, now),
      state: (operation, limit, now) => accountOf(destination).state(bucketOf(operation, limit), limit, now),
      lost: (now) => accountOf(destination).lost(now),
      shareChanged: (now) => accountOf(destination).shareChanged(now),
    }),
  };
}

/** Read when they are asked for; -1 stands for no limit. */
function metrics(registry: Registry, accounts: ReadonlyMap<string, AccountQuota>, clock: Clock): void {
  const gauge = (name: string, help: string, value: (state: QuotaState) => number): void => {
    new Gauge({
      name, help, labelNames: ['account', 'bucket'], registers: [registry],
      collect() {
        this.reset();
        for (const [account, quota] of accounts) for (const state of quota.states(clock.monotonic())) this.set({ account, bucket: state.bucket }, value(state));
      },
    });
  };
  const finite = (n: number): number => (Number.isFinite(n) ? n : -1);
  gauge('weir_quota_available', 'Calls that this instance may start now; -1 = no limit is known.', (s) => finite(s.available));
  gauge('weir_quota_calls_per_second', 'Calls a second of this instance in the long run; -1 = no limit is known.', (s) => finite(s.perSecond));
  gauge('weir_quota_closed_seconds', 'For how long the vendor asked to be left alone.', (s) => s.closedMs / 1000);
  gauge('weir_quota_told_remaining', 'Calls left as the vendor said last, the part of this instance; -1 = it did not say.', (s) => s.told ?? -1);
}
