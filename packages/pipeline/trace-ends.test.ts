import { expect, test } from 'vitest';
import { endsOf } from './trace-ends.ts';

const decided = (outputId: string | null | undefined, operation = 'unsubscribe') => ({ stage: 'decided', outputId, destination: 'crm', operation });
const end = (outputId: string | null | undefined, state: string, operation = 'unsubscribe') => ({ stage: 'outcome', outputId, destination: 'crm', operation, state });

test('an end is of its own output, destination and operation, and of several the last counts', () => {
  const endOf = endsOf([end('out_1', 'dead-lettered'), end('out_2', 'delivered'), end('out_1', 'denied'), end('out_3', 'delivered', 'unsubscribe (by email:h4Kd2w)'), end(null, 'quarantined')]);
  expect([decided('out_1'), decided('out_2'), decided('out_3'), decided('out_3', 'unsubscribe (by email:h4Kd2w)'), decided(null)].map((of) => endOf(of)?.state)).toEqual(['denied', 'delivered', undefined, 'delivered', 'quarantined']);
});

test('an end that was indexed before ends named their output counts for each, until a later one names it', () => {
  const { outputId: _none, ...unnamed } = end(undefined, 'dead-lettered');
  const endOf = endsOf([unnamed, end('out_2', 'delivered')]);
  expect([decided('out_1'), decided('out_2')].map((of) => endOf(of)?.state)).toEqual(['dead-lettered', 'delivered']);
});
