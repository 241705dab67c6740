import { createAccountQuota, createUnreserved, type AccountQuota, type QuotaReserve } from '@weir/http';
import type { Release } from '@weir/release';

/** Quota of the account of one polled source. */
export interface PollQuota {
  /** ms until the next call may start; 0 = it is counted, and `finished` must follow. */
  take(): number;
  finished(end: Parameters<AccountQuota['finished']>[1]): void;
}

interface Ports {
  readonly release: () => Release;
  /** Partitions of weir.dispatch.<destination>, where they are known. */
  readonly partitionsOf: (destination: string) => number | undefined;
  /** True while this process surely holds the poller's lease. */
  readonly holds: (source: string) => boolean;
  /** What is left to others of an account for a while (`reserve/<account>` on weir.control). */
  readonly reserves: () => ReadonlyMap<string, QuotaReserve>;
  readonly monotonic: () => number;
  readonly now: () => number;
  readonly random: () => number;
}

const bucket = 'poll';

/**
 * Pollers are the last in the order of their account and run in another process than its deliveries: each has one
 * part of the account's limit, beside the partitions of the account's dispatch topics (docs/decisions/0007-quota.md).
 */
export function createPollQuotas(ports: Ports): (source: string) => PollQuota {
  const accounts = new Map<string, AccountQuota>();
  const unreserved = createUnreserved(ports);

  function polled(account: string): string[] {
    return [...ports.release().sources.values()].filter((s) => s.account === account && s.adapter.source?.kind === 'poll').map((s) => s.name);
  }

  function accountOf(account: string): AccountQuota {
    let quota = accounts.get(account);
    if (quota === undefined) {
      quota = createAccountQuota({
        share() {
          const names = polled(account);
          const held = (): number => names.filter(ports.holds).length * unreserved(account);
          const partitions = [...ports.release().destinations.values()].filter((d) => d.account === account).reduce((sum, d) => sum + (ports.partitionsOf(d.name) ?? 0), 0);
          return { operation: { slots: names.length, held }, account: { slots: names.length + partitions, held } };
        },
        limit: () => [...ports.release().sources.values()].find((s) => s.account === account)?.accountLimit,
        random: ports.random,
        now: ports.now,
      });
      accounts.set(account, quota);
    }
    return quota;
  }

  return (source) => {
    const quota = (): AccountQuota | undefined => {
      const config = ports.release().sources.get(source);
      return config === undefined ? undefined : accountOf(config.account);
    };
    /** Accounts that counted the calls that are open: a release may name another one before they end. */
    const counted: AccountQuota[] = [];
    return {
      take() {
        const account = quota();
        const ms = account?.take({ bucket, limit: undefined, class: 'poll', who: source }, ports.monotonic()) ?? 0;
        if (account !== undefined && ms === 0) counted.push(account);
        return ms;
      },
      finished: (end) => (counted.shift() ?? quota())?.finished(bucket, end, ports.monotonic()),
    };
  };
}
