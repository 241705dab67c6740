import { simulate } from './world.ts';
const t=performance.now();
const r = await simulate(Number(process.argv[2] ?? 1), { faults: process.argv[3] !== 'off', trace: process.argv[4] ? console.log : undefined });
console.log(r.hash, r.steps, r.virtualMs, r.history.stuck, r.history.early.slice(0,3), r.history.calls.length, r.history.effects.length, [...r.history.records].map(([n,p])=>`${n}:${p.map(x=>x.length)}`).join(' '), performance.now()-t);
console.log(Object.fromEntries(r.faults));
