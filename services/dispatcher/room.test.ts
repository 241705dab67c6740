import { createHandClock } from '@weir/testing';
import { expect, test } from 'vitest';
import { createLane, type Lane } from './lane.ts';
import { createRoom, type Delayed } from './room.ts';

test('heads that were refused wait no longer when their credential is another one, and go on waiting when it is the same or the trouble is another', () => {
  const clock = createHandClock(0);
  const delayed = new Map<Lane, Delayed>();
  const offered: string[] = [];
  const before = { key: 'old' };
  const delay = (subject: string, verdict: string, credential: object): Lane => {
    const lane = createLane(subject);
    lane.queue.push({ last: { verdict } } as never);
    const timer = clock.setTimer(() => {
      delayed.delete(lane);
      offered.push(`${subject} in time`);
    }, 3_600_000);
    delayed.set(lane, { lane, runner: {} as never, since: 0, due: 3_600_000, timer, credential });
    return lane;
  };
  const now = { key: 'new' };
  delay('anna', 'auth-broken', before);
  delay('bob', 'retry', before);
  delay('cem', 'auth-broken', now);
  delay('dora', 'auth-broken', before).dead = true;
  const left: number[] = [];
  const room = createRoom({ clock, heads: {} as never, delayed, timeLeft: () => true, wakeIn: () => undefined, offer: ({ subject }) => {
    offered.push(subject);
    left.push(delayed.size);
  } });
  room.renewed(undefined);
  room.renewed(before);
  expect(offered).toEqual(['cem']);
  room.renewed(now);
  expect([offered, left]).toEqual([['cem', 'anna'], [3, 2]]);
  for (const _ of clock.turn(3_600_000));
  expect(offered.slice(2)).toEqual(['bob in time', 'dora in time']);
});
