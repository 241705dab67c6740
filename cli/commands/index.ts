import type { Command } from '../command.ts';

/** In the order of the help. Loaded when asked for, so that a short command does not wait for what a long one needs. */
export const commands: ReadonlyMap<string, () => Promise<{ readonly command: Command }>> = new Map([
  ['doctor', () => import('./doctor.ts')],
  ['validate', () => import('./validate.ts')],
  ['apply', () => import('./apply.ts')],
  ['send', () => import('./send.ts')],
  ['tail', () => import('./tail.ts')],
  ['trace', () => import('./trace.ts')],
  ['dlq', () => import('./dlq.ts')],
  ['deliveries', () => import('./deliveries.ts')],
  ['replay', () => import('./replay.ts')],
  ['status', () => import('./status.ts')],
  ['destination', () => import('./destination.ts')],
  ['topics', () => import('./topics.ts')],
  ['vault', () => import('./vault.ts')],
  ['consent', () => import('./consent.ts')],
  ['audit', () => import('./audit.ts')],
  ['token', () => import('./token.ts')],
  ['subject', () => import('./subject.ts')],
  ['policy', () => import('./policy.ts')],
  ['approve', () => import('./approve.ts')],
]);
