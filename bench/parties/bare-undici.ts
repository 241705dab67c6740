/** `bare-undici.ts <port> <concurrency>`: so many calls at a time, each with a key and a body of the size that the dispatcher sends. */
import { Pool } from 'undici';
import { answer } from './helper.ts';

const [port, concurrency] = process.argv.slice(2).map(Number) as [number, number];
const pool = new Pool(`http://127.0.0.1:${port}`, { connections: concurrency });
let number = 0;

async function worker(until: number): Promise<void> {
  while (number < until) {
    const i = number++;
    const { statusCode, body } = await pool.request({ path: '/contacts', method: 'PUT', headers: { 'content-type': 'application/json', 'idempotency-key': `dlv_${i.toString(16).padStart(32, '0')}` }, body: JSON.stringify({ email: `person.${i}@larkspur.example`, external_id: `usr_${i}`, title: 'Head of Field Operations', first_name: 'Ada', last_name: 'Lovelace', plan: 'enterprise' }) });
    await body.text();
    if (statusCode !== 200) throw new Error(`status ${statusCode}`);
  }
}

answer({
  async run(count: number) {
    const until = number + count;
    await Promise.all(Array.from({ length: concurrency }, () => worker(until)));
    return count;
  },
});
