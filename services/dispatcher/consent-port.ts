import type { ConsentTables } from '@weir/consent';
import type { Routes } from '@weir/policy';
import type { ConsentPort } from './ports.ts';

/** The tables, asked by the policy that runs: another one is another answer. */
export function consentPort(tables: Pick<ConsentTables, 'version' | 'atLeast' | 'allows'>, policy: () => Routes): ConsentPort {
  let last: Routes | undefined;
  let policies = 0;
  return {
    version() {
      const now = policy();
      if (now !== last) policies++;
      last = now;
      const version = tables.version();
      return version < 0 ? version : version + policies;
    },
    atLeast: tables.atLeast,
    allows: (ids, purpose, channel, topic, legalBasis, now) => tables.allows(ids, purpose, channel, topic, legalBasis, now, policy()),
  };
}
