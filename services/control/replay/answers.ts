import { createRecent } from '@weir/state';
import type { StandingPorts } from './standing.ts';

/** How long an answer about consent counts for a selection. The dispatcher asks again, in the tick of the call. */
const countsMs = 30_000;
/** People of one generation, of two: about 20 MB at most, while there is a pass. */
const remembered = 50_000;

/**
 * `allows` for one pass over many records: what was asked about the same identifiers and use a moment ago is not looked up
 * again, for a person has many records and the answer takes a read of the table for each of his identifiers, and for what it is linked with.
 */
export function recentAnswers(allows: StandingPorts['allows']): StandingPorts['allows'] {
  let answers = createRecent<boolean>(remembered);
  let since = Number.NEGATIVE_INFINITY;
  return (ids, purpose, channel, topic, legalBasis, now) => {
    if (!(now - since < countsMs && now >= since)) {
      answers = createRecent<boolean>(remembered);
      since = now;
    }
    // Identifiers hold no comma and no name of the workspace a line break.
    const asked = `${ids.join(',')}\n${purpose}\n${channel ?? ''}\n${topic ?? ''}\n${legalBasis ?? ''}`;
    const known = answers.get(asked);
    if (known !== undefined) return known;
    const answer = allows(ids, purpose, channel, topic, legalBasis, now);
    answers.set(asked, answer);
    return answer;
  };
}
