/** Order in which calls of one account go: the first that waits is served first. */
export const callClasses = ['restrict', 'live', 'retry', 'replay', 'poll'] as const;
export type CallClass = (typeof callClasses)[number];
export const rankOf = (name: CallClass): number => callClasses.indexOf(name);

/**
 * Every so many calls one goes to a class below the first, so that none of them stands still (I8): a retry that
 * never came would hold the commit of its partition, and with it live traffic itself. `restrict` gives way to nobody.
 */
export const yieldEvery = 10;
