import { openTable } from './table.ts';
import { readFileSync, statSync, truncateSync, mkdtempSync } from 'node:fs';
const path = process.argv[2] ?? mkdtempSync('/tmp/zz-');
const t = openTable({ path, onDiscard: (r) => console.log('discard', r) });
if (process.argv[3] === 'read') { let n = 0; try { for (const e of t.range('k')) n++; console.log('read', n, t.get('k/100')?.length); } catch (e) { console.log('E', e); } t.putBatch([{ key: 'k/new', value: Buffer.from('x') }]); await t.close(); console.log('closed'); }
else {
  for (let b = 0; b < 20; b++) t.putBatch(Array.from({ length: 1000 }, (_, i) => ({ key: `k/${b * 1000 + i}`, value: Buffer.alloc(500, i) })), new Map([[0, b]]));
  try { t.get('x'.repeat(3000)); console.log('long get ok'); } catch (e) { console.log('long get', (e as Error).message); }
  try { t.putBatch([{ key: 'x'.repeat(3000), value: Buffer.from('1') }]); } catch (e) { console.log('long put', (e as Error).message); }
  t.putBatch([{ key: 'p/\u{1F600}', value: Buffer.from('1') }, { key: 'p/a', value: Buffer.from('1') }]);
  console.log([...t.range('p/')].map((e) => e.key));
  console.log([...t.range('')].slice(0, 2).map((e) => e.key));
  t.clear(); console.log([...t.range('k')].length, t.positions());
  for (let b = 0; b < 20; b++) t.putBatch(Array.from({ length: 1000 }, (_, i) => ({ key: `k/${b * 1000 + i}`, value: Buffer.alloc(500, i) })), new Map([[0, b]]));
  const b = readFileSync(path + '/data.mdb'); const ps = 4096;
  for (const pg of [0, 1]) { const o = pg * ps; const m = [16, 24].map((d) => b.readUInt32LE(o + d).toString(16)); console.log(pg, m, statSync(path + '/data.mdb').size, Array.from({ length: 22 }, (_, i) => Number(b.readBigUInt64LE(o + 24 + 8 * i)))); }
  console.log(path); process.kill(process.pid, 'SIGKILL');
}
