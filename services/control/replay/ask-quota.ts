import { createAccountQuota, mostReserved, type AccountQuota, type Draw, type QuotaReserve } from '@weir/http';
import type { DestinationConfig, Release } from '@weir/release';
import type { Clock } from '@weir/service';

/** Quota for questions to vendors: a share of each account that its dispatchers and pollers leave while questions are asked. */
export interface AskQuota {
  /**
   * ms until the next question may go, 0 = it is counted and `finished` must follow. Reserves the share first, which
   * waits for the log. Rejects as an append does.
   */
  take(destination: Pick<DestinationConfig, 'name' | 'account'>, draw: Draw, share: number): Promise<number>;
  /** Whether the share is left to us still: looked at in the tick of the socket write. */
  stands(account: string): boolean;
  /** ms for which the vendor asked to be left alone. */
  closedMs(account: string, bucket: string): number;
  finished(account: string, bucket: string, end: Parameters<AccountQuota['finished']>[1]): void;
}

interface Ports {
  readonly release: () => Release;
  /** Partitions of the dispatch topics of these destinations, together. */
  readonly partitions: (destinations: readonly string[]) => Promise<number>;
  /** Announces a reserve; resolves when it is acknowledged. */
  readonly save: (reserve: QuotaReserve) => Promise<void>;
  readonly clock: Clock;
}

/** Dispatchers and pollers leave a share for so long after they read it. */
const reservedMs = 30_000;
/** From the acknowledgement until everybody who follows weir.control has read it: as long as a kill switch takes, at most. */
const settleMs = 2000;

/** What an acknowledged announcement allows, monotonic ms; `untilWall` by the other clock, which goes on while a machine is suspended. */
interface Grant {
  share: number;
  readonly from: number;
  readonly until: number;
  readonly untilWall: number;
}

interface Account {
  readonly quota: AccountQuota;
  partitions: number;
  pollers: number;
  grants: Grant[];
  /** The largest share that was asked for since the last announcement. */
  wanted: number;
  announced: number;
  renewAt: number;
  announcing: Promise<void> | undefined;
}

/**
 * The share is announced on weir.control (`reserve/<account>`), renewed while questions are asked, and ends by itself
 * sooner here than where it is left, so that both together never have more than the whole (docs/decisions/0032).
 */
export function createAskQuota(ports: Ports): AskQuota {
  const { clock } = ports;
  const accounts = new Map<string, Account>();

  function accountOf(name: string): Account {
    let found = accounts.get(name);
    if (found === undefined) {
      const made: Account = {
        partitions: 1, pollers: 0, grants: [], wanted: 0, announced: 0, renewAt: 0, announcing: undefined,
        quota: createAccountQuota({
          share() {
            const share = shareOf(made);
            const part = (slots: number) => ({ slots, held: () => slots * share });
            return { operation: part(made.partitions), account: part(made.partitions + made.pollers) };
          },
          limit: () => [...ports.release().destinations.values()].find((d) => d.account === name)?.accountLimit,
          random: () => clock.random(),
          now: () => clock.now(),
        }),
      };
      accounts.set(name, found = made);
    }
    return found;
  }

  /** What is surely left to us now. */
  function shareOf({ grants }: Account): number {
    const now = clock.monotonic();
    const wall = clock.now();
    return Math.max(0, ...grants.map((g) => (g.from <= now && now < g.until && wall < g.untilWall ? g.share : 0)));
  }

  async function announce(name: string, account: Account): Promise<void> {
    const share = account.wanted;
    account.wanted = 0;
    // Others leave no more than this from when they read it, which may be before we know that it is written.
    for (const grant of account.grants) grant.share = Math.min(grant.share, share);
    const { destinations, sources } = ports.release();
    account.pollers = [...sources.values()].filter((s) => s.account === name && s.adapter.source?.kind === 'poll').length;
    account.partitions = Math.max(1, await ports.partitions([...destinations.values()].filter((d) => d.account === name).map((d) => d.name)));
    const sent = clock.monotonic();
    const at = clock.now();
    await ports.save({ account: name, share, at, forMs: reservedMs });
    const now = clock.monotonic();
    const before = shareOf(account);
    // What came while the whole was theirs is not ours.
    if (before === 0) account.quota.lost(now);
    account.grants = account.grants.filter((g) => g.until > now);
    account.grants.push({ share, from: before >= share ? now : now + settleMs, until: sent + reservedMs, untilWall: at + reservedMs });
    account.announced = share;
    account.renewAt = sent + reservedMs / 2;
  }

  return {
    async take({ name, account: accountName }, draw, share) {
      const account = accountOf(accountName);
      account.wanted = Math.max(account.wanted, Math.min(share, mostReserved));
      if (account.announcing === undefined && (clock.monotonic() >= account.renewAt || account.wanted > account.announced)) account.announcing = announce(accountName, account).finally(() => { account.announcing = undefined; });
      await account.announcing;
      const now = clock.monotonic();
      if (shareOf(account) === 0) return Math.max(1, Math.ceil(Math.min(settleMs, ...account.grants.map((g) => g.from - now).filter((ms) => ms > 0))));
      return account.quota.take({ bucket: draw.bucket, limit: draw.limit, class: 'replay', who: name }, now);
    },
    stands: (account) => shareOf(accountOf(account)) > 0,
    closedMs: (account, bucket) => accountOf(account).quota.closedMs(bucket, clock.monotonic()),
    finished: (account, bucket, end) => accountOf(account).quota.finished(bucket, end, clock.monotonic()),
  };
}
