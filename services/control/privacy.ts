import type { ConsentBarrier, ConsentTables } from '@weir/consent';
import { WeirError } from '@weir/errors';
import type { Reader } from '@weir/log';
import { createFewAtOnce } from '@weir/pipeline';
import type { ServiceContext } from '@weir/service';
import { compactedAfter } from './compaction.ts';
import { markOf } from './erasure-receipt.ts';
import { createErasures, type ErasurePorts, type Erasures } from './erasure.ts';
import { createRawKeyJanitor } from './raw-keys.ts';
import { createRemains } from './remains.ts';
import type { Store } from './store.ts';
import { createSubjects, type Subjects } from './subjects.ts';

/** So many searches of a topic at once, and as many for exports beside them. */
const searches = 4;

/** For one person whole topics are read, and each search holds what a fetch brought: a thousand orders that come together wait for one another. Exports have turns of their own: they wait for who takes them. */
function fewAtOnce(reader: Reader): Reader {
  const inTurn = createFewAtOnce(searches);
  return { ...reader, read: (...search) => inTurn(() => reader.read(...search)) };
}

/** What control does for persons: look, export, erase, and destroy the keys of raw items in time. */
export interface Privacy {
  /** Throws not-ready while the tables are read, or while nothing is sealed. */
  subjects(): Subjects;
  /** The same for exports. */
  exports(): Subjects;
  erasures(): Erasures;
  /** For how long what was written over on weir.consent stands there still, at most, ms; null = for a time that the brokers do not tell. */
  wordsKept(): Promise<number | null>;
  /** Dispatchers that may start `use` calls: they have read the tables of consent. Null while that is not known. */
  callers(): number | null;
  /** The latest time until which anybody is erased; 0 = nobody ever was. Throws not-ready while that is read. */
  newestMark(): number;
  stop(): Promise<void>;
}

/** Begins in the background: its topics may take long, and nothing else of control waits for them. The tables are read already, and the reports of the barrier are `reading`. */
export async function createPrivacy(context: ServiceContext, store: Store, tables: ConsentTables, barrier: ConsentBarrier, reading: Promise<void>, audit: ErasurePorts['audit'], fail: (error: unknown) => void): Promise<Privacy> {
  const { log, serde, topics, groups, clock, keys, releases, logger, workspaceKey } = context;
  const unsealed = (): never => { throw new WeirError('not-ready', 'nothing is sealed (WEIR_SEALING=false): a person cannot be erased'); };
  if (keys === undefined) return { subjects: unsealed, exports: unsealed, erasures: unsealed, wordsKept: () => Promise.resolve(null), callers: () => null, newestMark: () => 0, stop: () => Promise.resolve() };
  const [appender, whole, admin] = await Promise.all([log.appender(), log.reader(), log.admin()]);
  const reader = fewAtOnce(whole);
  const shared = { audit, reader, admin, appender, serde, topics, keys, store, workspaceKey, release: () => releases.current(), now: () => clock.now() };
  const timers = { setTimer: clock.setTimer, clearTimer: clock.clearTimer };
  const subjects = createSubjects({ ...shared, tables });
  const exports = createSubjects({ ...shared, reader: fewAtOnce(whole), tables });
  const janitor = createRawKeyJanitor({ ...shared, ...timers, logger });
  const erasures = createErasures({ ...shared, ...timers, policyGroup: groups.policy, barrier, tables, subjects, remains: createRemains({ ...shared, subjects }), rawUntil: janitor.until, logger });
  let ready = false;
  const loading = (async () => {
    await reading;
    await erasures.start();
    ready = true;
    await janitor.start();
  })().catch(fail);
  const whenReady = <T>(value: T): T => {
    if (!ready) throw new WeirError('not-ready', 'the marks of applied consent and the erasures are being read');
    return value;
  };

  return {
    subjects: () => whenReady(subjects),
    exports: () => whenReady(exports),
    erasures: () => whenReady(erasures),
    newestMark: () => whenReady(erasures).list().reduce((newest, erasure) => Math.max(newest, markOf(erasure) ?? 0), 0),
    wordsKept: () => compactedAfter(admin, topics.consent),
    callers: () => (ready ? barrier.applying() : null),
    async stop() {
      await loading;
      await Promise.all([janitor.stop(), erasures.stop()]);
      await Promise.all([appender.close(), reader.close(), admin.close()]);
    },
  };
}
