/** Unit tests that replace a module: the other files of a worker, which share its modules, must not get that. */
export const isolated: string[] = ['packages/durable/durable.test.ts', 'services/control/audit-witness.test.ts'];
