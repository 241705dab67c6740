import { expect, test } from 'vitest';
import { knownConsent, parseOrder } from './consent-order.ts';

const known = knownConsent({ purposes: new Map([['email-marketing', {} as never]]), routes: new Map([['Profile', [{ channel: 'email', topic: 'Product News' } as never, {} as never]]]) });
const order = (over: object): Buffer => Buffer.from(JSON.stringify({ identifiers: { userId: 'ann' }, purpose: 'email-marketing', state: 'withdrawn', ...over }));

test.each([[{ channel: 'Email' }, 'channel: the workspace writes it email'], [{ channel: 'email', topic: 'product news' }, 'topic: the workspace writes it Product News']])('a channel or topic in other letters is refused: as it stands it would close nothing, and be called applied: %j', (over, message) => {
  expect(() => parseOrder(order(over), known)).toThrow(message);
});

test('those of the routes are taken as they are, and so are others, for a later release', () => {
  expect(parseOrder(order({ channel: 'email', topic: 'Product News' }), known)).toMatchObject({ channel: 'email', topic: 'Product News' });
  expect(parseOrder(order({ channel: 'push' }), known)).toMatchObject({ channel: 'push', topic: null });
});
