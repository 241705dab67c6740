import type { Verdict } from '@weir/adapter';
import { expect, test } from 'vitest';
import { waitMs } from './breaker.ts';
import type { DestinationPorts } from './ports.ts';
import { createStanding } from './standing.ts';
import type { Task } from './types.ts';

function world() {
  const clock = { at: 1000, now: () => clock.at, monotonic: () => clock.at };
  const credential: string[] = [];
  const gauge: number[] = [];
  const standing = createStanding({ name: 'crm', clock, logger: { warn: () => undefined, info: () => undefined }, metrics: { breaker: { set: (_of: object, value: number) => { gauge.push(value); } } }, credential: { accepted: () => credential.push('accepted'), rejected: () => credential.push('rejected') } } as unknown as DestinationPorts, () => undefined);
  const destination = { config: {} } as never;
  const judge = (since: number, verdict: Verdict, status = 503, task = { key: 'k', last: { at: 0, durationMs: 1, status } } as unknown as Task): void => standing.judge([{ kind: 'verdict', verdict }], [task], destination, since);
  return { clock, credential, gauge, standing, judge, state: () => standing.breaker().state };
}
const ok: Verdict = { kind: 'ok', effect: 'done' };
const down: Verdict = { kind: 'retry', effect: 'none', code: 'vendor-unavailable' };

test('what was called before the breaker opened is no probe: its answer neither closes it, nor lets a second probe go, nor doubles the wait', () => {
  const { clock, standing, judge, state } = world();
  const early = Array.from({ length: 9 }, () => standing.began());
  for (const since of early.slice(0, 5)) judge(since, down);
  expect(state()).toBe('open');
  judge(early[5]!, ok);
  expect(state()).toBe('open');
  clock.at += waitMs(standing.breaker(), clock.at);
  const probe = standing.began();
  expect(state()).toBe('probing');
  judge(early[6]!, down);
  expect([state(), standing.breaker().openings]).toEqual(['probing', 1]);
  judge(early[7]!, ok);
  expect(state()).toBe('probing');
  judge(probe, ok);
  expect(state()).toBe('closed');
});

test('failures of calls from before the vendor was away do not open a breaker that has closed since', () => {
  const { clock, standing, judge, state } = world();
  const early = Array.from({ length: 10 }, () => standing.began());
  for (const since of early.slice(0, 5)) judge(since, down);
  clock.at += waitMs(standing.breaker(), clock.at);
  judge(standing.began(), ok);
  for (const since of early.slice(5)) judge(since, down);
  expect(state()).toBe('closed');
  for (let i = 0; i < 5; i++) judge(standing.began(), down);
  expect(state()).toBe('open');
});

test('a refusal of the credential from before it was changed does not take back what the probe found', () => {
  const { clock, standing, judge, state, credential } = world();
  const early = [standing.began(), standing.began()];
  judge(early[0]!, { kind: 'auth-broken', effect: 'none', code: 'credential-rejected' });
  expect([state(), credential]).toEqual(['open', ['rejected']]);
  clock.at += 10;
  standing.credentialChanged();
  judge(standing.began(), ok);
  judge(early[1]!, { kind: 'auth-broken', effect: 'none', code: 'credential-rejected' });
  expect([state(), credential]).toEqual(['closed', ['rejected', 'accepted']]);
});

test('a vendor that says when it is there again is asked no earlier, whether the breaker opens by it or a probe was answered so; what it says of one record, and an absurd time, count as nothing, and after five minutes one call looks', () => {
  const minutes = 60_000;
  const asks = (retryAfterMs: number): Verdict => ({ ...down, retryAfterMs });
  const opened = (verdict: Verdict, status = 503) => {
    const w = world();
    for (let i = 0; i < 5; i++) w.judge(w.standing.began(), verdict, status);
    return { ...w, wait: waitMs(w.standing.breaker(), w.clock.at) };
  };
  const { clock, standing, judge, wait } = opened(asks(2 * minutes));
  expect(wait).toBe(2 * minutes);
  clock.at += wait;
  judge(standing.began(), asks(4 * minutes));
  expect(waitMs(standing.breaker(), clock.at)).toBe(4 * minutes);
  expect([opened(asks(100)), opened(asks(86_400_001)), opened(asks(Number.NaN)), opened(asks(-1)), opened(asks(10 * minutes), 423)].map((o) => o.wait)).toEqual([500, 500, 500, 500, 500]);
  expect(opened(asks(40_000_000)).wait).toBe(5 * minutes);
});

test('what is forgotten is closed, for the gauge, too, and an answer to a call from before says nothing of it', () => {
  const { standing, judge, state, gauge } = world();
  const early = Array.from({ length: 10 }, () => standing.began());
  for (const since of early.slice(0, 5)) judge(since, down);
  standing.forget();
  expect([state(), standing.health().openSince, gauge]).toEqual(['closed', undefined, [1, 0]]);
  for (const since of early.slice(5)) judge(since, down);
  expect(state()).toBe('closed');
});
