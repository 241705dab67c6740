import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseIdentifier } from '@weir/release';
import { runCli, startInstance, waitFor, type CliRun, type Instance } from '@weir/testing';
import { exportJWK, generateKeyPair, SignJWT } from 'jose';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';

let weir: Instance;
const folder = mkdtempSync(join(tmpdir(), 'weir-csv-'));
let vault: Server;
const workspaceKey = Buffer.alloc(32, 5);
const signing = await generateKeyPair('RS256');
const jwk = { ...(await exportJWK(signing.publicKey)), kid: 'k1', alg: 'RS256' };
const env: Record<string, string> = { WEIR_KEY: `vault:v1:${Buffer.alloc(40, 1).toString('base64')}`, WEIR_VAULT_TOKEN: 'hvs.t' };
/** The workspace key comes wrapped, from the Transit engine of a vault whose KV document is empty: so for npm start and every command. The same server is the OIDC issuer. */
beforeAll(async () => {
  vault = createServer((request, response) => {
    const oidc: Record<string, object> = { '/.well-known/openid-configuration': { issuer: env['WEIR_OIDC_ISSUER'], jwks_uri: `${env['WEIR_OIDC_ISSUER']}/keys` }, '/keys': { keys: [jwk] } };
    if (oidc[request.url!] !== undefined) return response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(oidc[request.url!]));
    const data = request.url === '/v1/transit/decrypt/weir' ? { plaintext: workspaceKey.toString('base64') } : { data: {}, metadata: { version: 1, created_time: new Date().toISOString() } };
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ data }));
  });
  await new Promise<void>((done) => { vault.listen(0, '127.0.0.1', done); });
  env['WEIR_VAULT_ADDR'] = env['WEIR_OIDC_ISSUER'] = `http://127.0.0.1:${(vault.address() as AddressInfo).port}`;
  weir = await startInstance({ brokers: inject('brokers'), registryUrl: inject('registryUrl'), env });
});
afterAll(async () => {
  await weir?.dispose();
  vault?.close();
  vault?.closeAllConnections();
  rmSync(folder, { recursive: true, force: true });
});

/** As `weir consent show` asks, without a process for each. */
async function show(who: string): Promise<any> {
  const { externalIds, ...rest } = parseIdentifier(who);
  const response = await weir.api('/v1/consent/lookup', { method: 'POST', body: JSON.stringify({ people: [externalIds.length === 0 ? rest : { externalIds }] }) });
  expect(response.status).toBe(200);
  return ((await response.json()) as { people: any[] }).people[0];
}
const marketing = (person: any): any => person.purposes.find((p: any) => p.purpose === 'email-marketing');

test('set, show and trace of one person: applied, open, closed again, and carried to the newsletter', async () => {
  expect(existsSync(join(weir.dataDir, 'workspace.key'))).toBe(false);
  expect(marketing(JSON.parse((await weir.cli('consent', 'show', 'ann@larkspur.example', '--json')).out))).toMatchObject({ open: false, reason: 'consent-missing' });
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
  expect(receipts).toMatchObject({ id, source: 'consent-api', actor: 'admin', receipts: expect.arrayContaining([expect.objectContaining({ destination: 'newsletter', operation: 'unsubscribe', state: 'delivered', status: expect.any(Number), at: expect.any(String) }), expect.objectContaining({ destination: 'warehouse', state: 'no-route' })]) });
  const ofPerson = await weir.cli('consent', 'receipts', 'ann@larkspur.example');
  expect([ofPerson.code, ofPerson.out.split('\n').filter((line) => line.startsWith('evt_')).length, ofPerson.out]).toEqual([0, 2, expect.stringMatching(/newsletter +unsubscribe +told/)]);
  expect((await weir.cli('consent', 'receipts', `evt_${'0'.repeat(32)}`)).code).toBe(1);
  expect((await weir.cli('consent', 'set', 'ann@larkspur.example', '--purpose', 'nope', '--state', 'granted')).code).toBe(1);
});

test('an import says what would change, does nothing without --yes, does it once with it, and refuses a file with a wrong row whole', async () => {
  const file = join(folder, 'people.csv');
  writeFileSync(file, 'email,purpose,channel,state,proof\nbob@larkspur.example,email-marketing,email,granted,"form, 2"\ncyd@larkspur.example,email-marketing,email,withdrawn,\n');
  const preview = JSON.parse((await weir.cli('consent', 'import', file, '--json')).out);
  expect(preview).toMatchObject({ applied: 0, problems: [], changes: expect.arrayContaining([{ change: 'none → granted', rows: 1, lines: [2] }, { change: 'none → withdrawn', rows: 1, lines: [3] }]) });
  expect((await show('bob@larkspur.example')).states).toEqual([]);
  expect(JSON.parse((await weir.cli('consent', 'import', file, '--yes', '--json')).out)).toMatchObject({ applied: 2 });
  await waitFor('both are known', async () => (await show('bob@larkspur.example')).states.length === 1 && (await show('cyd@larkspur.example')).states.length === 1);
  expect((await show('bob@larkspur.example')).states[0]).toMatchObject({ of: 'email', state: 'granted', proof: 'form, 2', source: 'consent-api' });
  expect(JSON.parse((await weir.cli('consent', 'import', file, '--json')).out).changes).toEqual([{ change: 'no change', rows: 2, lines: [2, 3] }]);
  // A yes in between, and the same file again: the no of the file is not the one that was folded days ago.
  expect((await weir.cli('consent', 'set', 'cyd@larkspur.example', '--purpose', 'email-marketing', '--channel', 'email', '--state', 'granted')).code).toBe(0);
  expect((await weir.cli('consent', 'set', 'bob@larkspur.example', '--purpose', 'email-marketing', '--channel', 'email', '--state', 'withdrawn')).code).toBe(0);
  // What is shown is what the fold does: the grant of the file was seen, and her no is said anew.
  await waitFor('control has both', async () => (await show('cyd@larkspur.example')).states[0].state === 'granted' && (await show('bob@larkspur.example')).states[0].state === 'withdrawn');
  expect(JSON.parse((await weir.cli('consent', 'import', file, '--json')).out).changes).toEqual([{ change: 'stays withdrawn: this grant was recorded before, and opens nothing again', rows: 1, lines: [2] }, { change: 'granted → withdrawn', rows: 1, lines: [3] }]);
  const told = async (): Promise<number> => (await weir.effects('newsletter')).filter((e) => e.operation === 'unsubscribes' && e.subject === 'cyd@larkspur.example').length;
  expect(JSON.parse((await weir.cli('consent', 'import', file, '--yes', '--json')).out)).toMatchObject({ applied: 2 });
  await waitFor('she is closed again and the newsletter was told twice', async () => (await show('cyd@larkspur.example')).states[0].state === 'withdrawn' && (await told()) === 2);
  expect((await show('bob@larkspur.example')).states[0].state).toBe('withdrawn');
  // What only the consent API can say of a row stops the file too: nothing of it is recorded.
  const wrong = ['dan@larkspur.example,,email-marketing,,granted,', ',,email-marketing,,granted,', 'eve@larkspur.example,,email-marketing,,maybe,', 'eve,,email-marketing,,granted,', ',030 901820,email-marketing,,granted,', 'eve@larkspur.example,,email-marketing,E-Mail,granted,', 'eve@larkspur.example,,email-marketing,,granted,because', 'eve@larkspur.example,,nope,,granted,'];
  writeFileSync(file, `email,phone,purpose,channel,state,legalBasis\n${wrong.join('\n')}\n`);
  const refused = await weir.cli('consent', 'import', file, '--yes', '--json');
  expect([refused.code, JSON.parse(refused.out)]).toMatchObject([1, { applied: 0, wrongRows: 7, problems: ['line 3: identifiers: ', 'line 4: state: ', 'line 5: email: ', 'line 6: phone: ', 'line 7: channel: ', 'line 8: legalBasis: ', 'line 9: purpose: '].map((start) => expect.stringContaining(start)) }]);
  expect((await show('dan@larkspur.example')).states).toEqual([]);
  writeFileSync(file, 'phone,purpose,state\n+49 30 901820,email-marketing,granted\n');
  expect(JSON.parse((await weir.cli('consent', 'import', file, '--yes', '--json')).out)).toMatchObject({ applied: 1 });
  await waitFor('the number is known as mappings write it', async () => (await show('phone:+4930901820')).states[0]?.state === 'granted');
});

test('a withdrawal that names nobody is an incident with its letter and command, until somebody closes it with a reason', async () => {
  const call = (body: object) => weir.segment('track', body);
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

test('a withdrawal with an address that is none closes the user id at once, and is an incident until the letter is closed', async () => {
  const who = 'userId:u-broken';
  await weir.segment('identify', { type: 'identify', messageId: 'broken-1', userId: 'u-broken', traits: { plan: 'gold' } });
  expect((await weir.cli('consent', 'set', who, '--purpose', 'email-marketing', '--channel', 'email', '--state', 'granted')).code).toBe(0);
  expect((await weir.segment('track', { type: 'track', messageId: 'broken-2', userId: 'u-broken', event: 'Unsubscribed', properties: { email: 'una at larkspur' } })).status).toBe(200);
  await waitFor('the no holds', async () => marketing(await show(who)).reason === 'consent-withdrawn');
  await waitFor('the incident', async () => ((await weir.status()).incidents as any[]).some((i) => i.destination === 'consent/segment'));
  const [letter] = JSON.parse((await weir.cli('dlq', 'list', '--code', 'consent-unresolved', '--source', 'segment', '--open', '--json')).out).deadLetters;
  expect((await weir.cli('consent', 'settle', letter.id, '--reason', 'a test of the shop')).code).toBe(0);
  await waitFor('the end of the incident', async () => ((await weir.status()).incidents as any[]).every((i) => i.destination !== 'consent/segment'));
  expect(marketing(await show(who)).reason).toBe('consent-withdrawn');
});

test.each([['EMAIL', 'email'], ['all', '']])('an unsubscription of a signed webhook with the channel %s closes the route on email, and the newsletter is told', async (channel, holds) => {
  const [who, user] = [`fay-${channel}@larkspur.example`.toLowerCase(), `u-fay-${channel}`];
  expect((await weir.cli('consent', 'set', who, '--purpose', 'email-marketing', '--channel', 'email', '--state', 'granted')).code).toBe(0);
  await waitFor('the grant is known', async () => (await show(who)).states[0]?.state === 'granted');
  const body = join(folder, `${user}.json`);
  writeFileSync(body, JSON.stringify({ type: 'contact.unsubscribed', timestamp: new Date().toISOString(), data: { user_id: user, email: who, channel } }));
  expect((await weir.cli('send', 'partner', '--body', body)).code).toBe(0);
  await waitFor('the no holds', async () => marketing(await show(who)).reason === 'consent-withdrawn');
  expect((await show(who)).states.filter((s: any) => s.state === 'withdrawn' && s.of === 'email').map((s: any) => s.channel)).toEqual([holds]);
  await waitFor('the newsletter was told', async () => (await weir.effects('newsletter')).some((e) => e.operation === 'unsubscribes' && e.subject === who));
});

test('a no under an event id that came before with another body holds at once and is an incident; put back, it closes nothing that a yes has opened meanwhile', async () => {
  const who = 'userId:u-twice';
  const say = async (event: string): Promise<string> => ((await (await weir.segment('track', { type: 'track', messageId: 'twice-1', userId: 'u-twice', event, properties: {} })).json()) as { eventId: string }).eventId;
  const grant = async (...channel: string[]): Promise<void> => {
    expect((await weir.cli('consent', 'set', who, '--purpose', 'email-marketing', '--state', 'granted', ...channel)).code).toBe(0);
    await waitFor('the yes holds', async () => marketing(await show(who)).open === true);
  };
  const first = await say('Product Viewed');
  await grant();
  expect(await say('Unsubscribed')).toBe(first);
  await waitFor('the no holds', async () => marketing(await show(who)).reason === 'consent-withdrawn');
  const incident = async (): Promise<boolean> => ((await weir.status()).incidents as any[]).some((i) => i.destination === 'consent/segment');
  await waitFor('the incident', incident);
  const [letter] = JSON.parse((await weir.cli('dlq', 'list', '--code', 'event-conflict', '--source', 'segment', '--open', '--json')).out).deadLetters;
  expect(letter).toMatchObject({ eventId: first, stage: 'normalizer', codes: ['event-conflict', 'consent-unresolved'] });
  await grant('--channel', 'email');
  expect((await weir.cli('dlq', 'redrive', letter.id, '--json')).code).toBe(0);
  await waitFor('the end of the incident', async () => !(await incident()));
  await weir.settled();
  expect(JSON.parse((await weir.cli('trace', first, '--json')).out).stages.some((s: any) => s.stage === 'normalized' && s.output === 'unsubscribed')).toBe(true);
  expect(marketing(await show(who)).open).toBe(true);
});

test('why did she (not) get it, prove it, stop it now: each is one command, and what is proven fails on a forged log', async () => {
  const who = 'una@larkspur.example';
  let n = 0;
  const identify = async (): Promise<string> => {
    const answer = await weir.segment('identify', { messageId: `una-${n++}`, userId: 'u-una', timestamp: new Date().toISOString(), traits: { email: who, plan: 'gold' } });
    expect(answer.status).toBe(200);
    await weir.settled();
    return ((await answer.json()) as { eventId: string }).eventId;
  };
  const json = async (...args: string[]): Promise<any> => {
    const done = await weir.cli(...args, '--json');
    return { code: done.code, ...JSON.parse(done.out) };
  };
  const event = await identify();
  const denied = await json('subject', 'why', who, '--destination', 'newsletter');
  expect(denied.decisions).toMatchObject([{ eventId: event, record: 'Profile', destination: 'newsletter', effect: 'deny', reason: 'consent-missing', purpose: 'email-marketing', end: { state: 'denied' } }]);
  expect(denied.consent.now).toMatchObject([{ purpose: 'email-marketing', open: false, reason: 'consent-missing' }]);
  expect((await json('subject', 'why', 'userId:u-una')).decisions).toContainEqual(expect.objectContaining({ eventId: event, destination: 'crm', effect: 'allow', end: expect.objectContaining({ state: 'delivered' }) }));
  expect((await json('subject', 'why', 'nobody@larkspur.example')).decisions).toEqual([]);

  const proof = await json('audit', 'prove', event);
  expect(proof).toMatchObject({ code: 0, ok: true, claims: [{ ok: true, what: 'decisions' }, { ok: true, what: 'release', how: expect.stringContaining('applied by npm start') }, { ok: true, what: 'audit log' }] });
  expect(proof.decisions).toHaveLength(4);
  const forged = join(folder, 'kept.jsonl');
  writeFileSync(forged, `${JSON.stringify(proof.checkpoint.replace(/\n(\d+)\n/, (_: string, size: string) => `\n${Number(size) + 1}\n`))}\n`);
  expect(await json('audit', 'prove', event, '--checkpoints', forged)).toMatchObject({ code: 1, ok: false });

  // By the user id: vendors that know her by the address are told under that of her link, by the same change.
  const stopped = await json('subject', 'stop', 'userId:u-una', '--proof', 'letter of today');
  expect(stopped.toldAgain).toBeUndefined();
  expect((await weir.effects('newsletter')).filter((e) => e.operation === 'unsubscribes' && e.subject === who)).toHaveLength(1);
  expect(stopped).toMatchObject({ code: 0, stopped: true, changes: ['*', 'service', 'analytics', 'email-marketing', 'advertising'].map((purpose) => expect.objectContaining({ purpose, state: 'applied', id: expect.stringMatching(/^evt_/) })) });
  const later = await identify();
  const now = (await json('subject', 'why', who)).decisions.filter((d: any) => d.eventId === later);
  expect(now.map((d: any) => [d.destination, d.end.state, d.reason]).sort()).toEqual(['crm', 'klaviyo', 'newsletter', 'warehouse'].map((d) => [d, 'denied', 'consent-withdrawn']));
  expect((await json('audit', 'prove', later)).code).toBe(0);
  expect((await weir.cli('subject', 'stop', who, '--purpose', 'nope')).code).toBe(2);
});

test('what is no identifier is nobody and ends with 2; an anonymous id and an id of another system are people like any other', async () => {
  const nobody = await weir.cli('consent', 'set', 'u-una', '--purpose', 'email-marketing', '--state', 'withdrawn');
  expect([nobody.code, nobody.err]).toEqual([2, expect.stringContaining('an identifier is an e-mail address')]);
  const track = async (messageId: string): Promise<string> => ((await (await weir.segment('track', { type: 'track', messageId, anonymousId: 'anon-7', event: 'Product Viewed', properties: {} })).json()) as { eventId: string }).eventId;
  await track('anon-1');
  await weir.settled();
  const stop = async (who: string): Promise<any> => {
    const done = await weir.cli('subject', 'stop', who, '--json');
    return { code: done.code, ...JSON.parse(done.out) };
  };
  expect(await stop('anonymousId:anon-7')).toMatchObject({ code: 0, stopped: true, known: 'yes' });
  const later = await track('anon-2');
  await weir.settled();
  const stages = JSON.parse((await weir.cli('trace', later, '--json')).out).stages as any[];
  expect(stages.filter((s) => s.stage === 'decided' && s.destination !== null && s.effect === 'allow')).toEqual([]);
  expect(stages.filter((s) => s.stage === 'decided').map((s) => s.reason)).toContain('consent-withdrawn');
  expect((await weir.cli('consent', 'set', 'external:klaviyo:p-1', '--purpose', 'email-marketing', '--state', 'withdrawn')).code).toBe(0);
  await waitFor('the control service has it', async () => marketing(await show('external:klaviyo:p-1')).reason === 'consent-withdrawn');
});

test('a stop of somebody whom nobody knows is recorded and says so: it binds what comes under it later', async () => {
  const who = 'mistyped@larkspur.example';
  const stopped = await weir.cli('subject', 'stop', who);
  expect([stopped.code, stopped.err]).toEqual([1, expect.stringContaining('nobody is known by this identifier')]);
  await waitFor('the control service has it', async () => marketing(await show(who)).reason === 'consent-withdrawn');
  const again = await weir.cli('subject', 'stop', who, '--json');
  expect([again.code, JSON.parse(again.out)]).toMatchObject([0, { stopped: true, known: 'unclear' }]);
  const answer = await weir.segment('identify', { messageId: 'late-1', userId: 'u-late', timestamp: new Date().toISOString(), traits: { email: who } });
  await weir.settled();
  const { decisions } = JSON.parse((await weir.cli('subject', 'why', who, '--json')).out);
  expect(decisions.filter((d: any) => d.record === 'Profile').map((d: any) => d.reason)).toEqual(expect.arrayContaining(['consent-withdrawn']));
  expect(answer.status).toBe(200);
});

test('who signs in by OIDC sets, imports and stops by the command line with the role of his claim, and is named on the change', async () => {
  const token = (roles: readonly string[]): Promise<string> => new SignJWT({ weir_roles: roles, iss: env['WEIR_OIDC_ISSUER'], aud: 'weir', sub: 'dpo', exp: Math.floor(Date.now() / 1000) + 600 }).setProtectedHeader({ alg: 'RS256', kid: 'k1', typ: 'at+jwt' }).sign(signing.privateKey);
  const as = async (roles: readonly string[], ...args: string[]): Promise<CliRun> => runCli(args, { ...env, WEIR_DATA: weir.dataDir, WEIR_PORT: String(weir.base), WEIR_TOKEN: await token(roles) });
  const who = 'oda@larkspur.example';
  const granted = await as(['privacy'], 'consent', 'set', who, '--purpose', 'email-marketing', '--state', 'granted', '--json');
  expect([granted.code, JSON.parse(granted.out)]).toMatchObject([0, { state: 'applied' }]);
  const file = join(folder, 'oidc.csv');
  writeFileSync(file, `email,purpose,state\n${who},analytics,denied\n`);
  expect(await as(['privacy'], 'consent', 'import', file, '--yes')).toMatchObject({ code: 0 });
  const stopped = await as(['privacy'], 'subject', 'stop', who, '--json');
  expect([stopped.code, JSON.parse(stopped.out)]).toMatchObject([0, { stopped: true, known: 'yes' }]);
  await waitFor('the control service has it', async () => (await show(who)).purposes.every((p: any) => !p.open));
  await weir.settled();
  const { changes } = JSON.parse((await as(['privacy'], 'consent', 'receipts', who, '--json')).out) as { changes: { actor: string | null }[] };
  expect([changes.length > 2, new Set(changes.map(({ actor }) => actor))]).toEqual([true, new Set(['oidc:dpo'])]);
  expect(await as(['viewer'], 'consent', 'set', who, '--purpose', 'email-marketing', '--state', 'withdrawn')).toMatchObject({ code: 1, err: expect.stringMatching(/./) });
}, 90_000);
