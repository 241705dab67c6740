import { expect, test } from 'vitest';
import { murmur2, partitionOf } from './murmur2.ts';

// Vectors of org.apache.kafka.common.utils.UtilsTest#testMurmur2.
test.each([['21', -973932308], ['foobar', -790332482], ['a-little-bit-long-string', -985981536], ['a-little-bit-longer-string', -1486304829], ['lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8', -58897971], ['abc', 479470107]])('murmur2 of %s is what the Java client computes', (text, hash) => {
  expect(murmur2(Buffer.from(text)) | 0).toBe(hash);
});

test('a negative hash gives a partition all the same', () => {
  expect(partitionOf('21', 6)).toBe((-973932308 & 0x7fffffff) % 6);
});
