import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startInstance, waitFor, type Instance } from '@weir/testing';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';

let weir: Instance;
const folder = mkdtempSync(join(tmpdir(), 'weir-csv-'));
beforeAll(async () => { weir = await startInstance({ brokers: inject('brokers'), registryUrl: inject('registryUrl') }); });
afterAll(async () => {
  await weir?.dispose();
  rmSync(folder, { recursive: true, force: true });
});

const show = async (who: string): Promise<any> => JSON.parse((await weir.cli('consent', 'show', who, '--json')).out);
const marketing = (person: any): any => person.purposes.find((p: any) => p.purpose === 'email-marketing');

test('set, show and trace of one person: applied, open, closed again, and carried to the newsletter', async () => {
  expect(marketing(await show('ann@larkspur.example'))).toMatchObject({ open: false, reason: 'consent-missing' });
  const granted = await weir.cli('consent', 'set', 'ann@larkspur.example', '--purpose', 'email-marketing', '--state', 'granted', '--proof', 'form 7');
  expect([granted.code, granted.out]).toEqual([0, expect.stringMatching(/^applied everywhere after \d+ ms: evt_/)]);
  await waitFor('the control service has it', async () => marketing(await show('ann@larkspur.example')).open === true);
  const withdrawn = await weir.cli('consent', 'set', 'ann@larkspur.example', '--purpose', 'email-marketing', '--state', 'withdrawn', '--json');
  const { id } = JSON.parse(withdrawn.out);
  await waitFor('the control service has it', async () => marketing(await show('ann@larkspur.example')).reason === 'consent-withdrawn');
  await waitFor('the newsletter was told', async () => (await weir.effects('newsletter')).some((e) => e.operation === 'unsubscribes' && e.subject === 'ann@larkspur.example'));
  await weir.settled();
  const trace = JSON.parse((await weir.cli('trace', id, '--json')).out);
  expect(trace.stages.find((s: any) => s.stage === 'outcome' && s.destination === 'newsletter')).toMatchObject({ state: 'delivered' });
  const receipts = JSON.parse((await weir.cli('consent', 'receipts', id, '--json')).out).changes[0];
  expect(receipts).toMatchObject({ id, source: 'consent-api', receipts: expect.arrayContaining([expect.objectContaining({ destination: 'newsletter', operation: 'unsubscribe', state: 'delivered', status: expect.any(Number), at: expect.any(String) }), expect.objectContaining({ destination: 'warehouse', state: 'no-route' })]) });
  const ofPerson = await weir.cli('consent', 'receipts', 'ann@larkspur.example');
  expect([ofPerson.code, ofPerson.out.split('\n').filter((line) => line.startsWith('evt_')).length, ofPerson.out]).toEqual([0, 2, expect.stringMatching(/newsletter +unsubscribe +told/)]);
  expect((await weir.cli('consent', 'receipts', `evt_${'0'.repeat(32)}`)).code).toBe(1);
  expect((await weir.cli('consent', 'set', 'ann@larkspur.example', '--purpose', 'nope', '--state', 'granted')).code).toBe(1);
});

test('an import says what would change, does nothing without --yes, does it once with it, and refuses a file with a wrong row whole', async () => {
  const file = join(folder, 'people.csv');
  writeFileSync(file, 'email,purpose,channel,state,proof\nbob@larkspur.example,email-marketing,email,granted,"form, 2"\ncyd@larkspur.example,email-marketing,email,withdrawn,\n');
  const preview = JSON.parse((await weir.cli('consent', 'import', file, '--json')).out);
  expect(preview).toMatchObject({ applied: 0, problems: [], changes: expect.arrayContaining([{ change: 'none → granted', rows: 1 }, { change: 'none → withdrawn', rows: 1 }]) });
  expect((await show('bob@larkspur.example')).states).toEqual([]);
  expect(JSON.parse((await weir.cli('consent', 'import', file, '--yes', '--json')).out)).toMatchObject({ applied: 2 });
  await waitFor('both are known', async () => (await show('bob@larkspur.example')).states.length === 1 && (await show('cyd@larkspur.example')).states.length === 1);
  expect((await show('bob@larkspur.example')).states[0]).toMatchObject({ of: 'email', state: 'granted', proof: 'form, 2', source: 'consent-api' });
  expect(JSON.parse((await weir.cli('consent', 'import', file, '--json')).out).changes).toEqual([{ change: 'no change', rows: 2 }]);
  writeFileSync(file, 'email,purpose,state\ndan@larkspur.example,email-marketing,granted\n,email-marketing,granted\neve@larkspur.example,email-marketing,maybe\n');
  const refused = await weir.cli('consent', 'import', file, '--yes', '--json');
  expect([refused.code, JSON.parse(refused.out).problems]).toEqual([1, ['line 3: no identifier', 'line 4: state is none of granted, denied, withdrawn, unknown']]);
  expect((await show('dan@larkspur.example')).states).toEqual([]);
});

test('a withdrawal that names nobody is an incident with its letter and command, until somebody closes it with a reason', async () => {
  const call = (body: object) => fetch(`${weir.ingest}/v1/track`, { method: 'POST', headers: { 'content-type': 'application/json', authorization: `Basic ${Buffer.from(`${weir.writeKey()}:`).toString('base64')}` }, body: JSON.stringify(body) });
  const response = await call({ type: 'track', messageId: 'nobody-1', event: 'Unsubscribed', properties: {} });
  expect(response.status).toBe(200);
  const incident = await waitFor('the incident', async () => ((await weir.status()).incidents as any[]).find((i) => i.destination === 'consent/segment'));
  expect(incident).toMatchObject({ code: 'consent-unresolved', open: 1, since: expect.any(String) });
  expect((await weir.cli('status')).out).toMatch(/1 change of consent of segment binds nobody, the first since \S+: weir dlq list --code consent-unresolved --source segment --open/);
  const [letter] = JSON.parse((await weir.cli('dlq', 'list', '--code', 'consent-unresolved', '--source', 'segment', '--open', '--json')).out).deadLetters;
  expect(letter).toMatchObject({ stage: 'normalizer', codes: ['mapping-failed', 'consent-unresolved'] });
  expect((await weir.cli('consent', 'settle', letter.id)).code).toBe(2);
  expect((await weir.cli('consent', 'settle', letter.id, '--reason', 'a test of the shop')).code).toBe(0);
  await waitFor('the end of the incident', async () => ((await weir.status()).incidents as any[]).every((i) => i.destination !== 'consent/segment'));
  expect((await weir.cli('trace', letter.eventId)).out).toMatch(/dropped.*consent-settled/);
  expect((await weir.cli('audit', 'list')).out).toMatch(/consent\.settle/);
});
