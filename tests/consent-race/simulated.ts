import { checkers } from '../integrity/sim/checkers.ts';
import { afterApplied } from '../integrity/sim/consent.ts';
import { situationsOf, type Situation } from '../integrity/sim/situations.ts';
import { epoch } from '../integrity/sim/time.ts';
import { simulate, type Run } from '../integrity/sim/world.ts';

export interface Race {
  readonly run: Run;
  readonly problems: readonly string[];
  /** Withdrawals asked for, those answered as applied, and how long each took, virtual ms. */
  readonly asked: number;
  readonly applied: readonly number[];
  /** Answered as pending: somebody who might have called did not say in time that he knows. The others got no answer: the API died. */
  readonly pending: number;
  /** How often it came to each situation that the race is there for. */
  readonly situations: ReadonlyMap<Situation, number>;
}

const events = 220;
const changes = 26;

/** One seed of the race, by the checkers that hold for a history with replays in it. */
export async function race(seed: number, trace?: (line: string) => void): Promise<Race> {
  const run = await simulate(seed, { events, consent: changes, ...(trace === undefined ? {} : { trace }) });
  const { history } = run;
  const problems = [...checkers.settled(history), ...checkers.nothingLost(history), ...checkers.consentHeld(history), ...checkers.leased(history), ...afterApplied(history)];
  const withdrawals = history.consent!.asks.filter((a) => a.state === 'withdrawn' && a.recorded !== undefined);
  return { run, problems, asked: withdrawals.length, applied: withdrawals.flatMap((a) => (a.appliedAt === undefined ? [] : [a.appliedAt - a.askedAt])), pending: withdrawals.filter((a) => a.pending).length, situations: situationsOf(history, history.consent!.done, epoch) };
}
