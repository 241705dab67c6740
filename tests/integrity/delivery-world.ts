import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { startInstance, type Instance } from '@weir/testing';

export interface DeliveryWorld extends Instance {
  fault(order: object): Promise<void>;
  arrivals(destination: string): Promise<any[]>;
  /** One profile of a person ('' = one without an address); resolves to its event id. */
  send(name: string, plan?: string): Promise<string>;
  effectsOf(destination: string, name: string): Promise<any[]>;
  deadLetters(query: string): Promise<any[]>;
}

const base: Readonly<Record<string, string>> = {
  'weir.yaml': 'name: delivery\n',
  'purposes.yaml': 'purposes:\n  service: { legalBasis: contract, doc: Service. }\n',
  'policies/all.yaml': 'rules:\n  - { name: all, effect: allow, when: \'purpose == "service"\' }\n',
  'sources/segment.yaml': 'adapter: segment\nconfig: { writeKey: { secret: SEGMENT_WRITE_KEY } }\n',
};

/** A workspace of one source and these destination files, running. */
export async function startDeliveryWorld(options: { brokers: readonly string[]; registryUrl: string; destinations: Readonly<Record<string, string>>; files?: Readonly<Record<string, string>>; env?: Readonly<Record<string, string>> }): Promise<DeliveryWorld> {
  const workspace = mkdtempSync(join(tmpdir(), 'weir-workspace-'));
  const files = { ...base, ...options.files, ...Object.fromEntries(Object.entries(options.destinations).map(([name, text]) => [`destinations/${name}.yaml`, text])) };
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(workspace, path)), { recursive: true });
    writeFileSync(join(workspace, path), text);
  }
  const weir = await startInstance({ brokers: options.brokers, registryUrl: options.registryUrl, workspace, env: { WEIR_CALL_TIMEOUT_MS: '1500', ...options.env } });
  let n = 0;
  const json = async (path: string): Promise<any[]> => (await (await fetch(weir.sandbox + path)).json()) as any[];
  return {
    ...weir,
    async fault(order) {
      const response = await fetch(`${weir.sandbox}/faults`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(order) });
      if (!response.ok) throw new Error(await response.text());
    },
    arrivals: (destination) => json(`/arrivals?destination=${destination}`),
    async send(name, plan = 'a') {
      const response = await weir.segment('identify', { messageId: `w-${n++}`, userId: name === '' ? 'nobody' : name, timestamp: '2026-03-04T05:06:07Z', traits: { ...(name === '' ? {} : { email: `${name}@larkspur.example` }), plan } });
      if (!response.ok) throw new Error(`${response.status} ${await response.text()}`);
      return ((await response.json()) as { eventId: string }).eventId;
    },
    effectsOf: async (destination, name) => (await json(`/effects?destination=${destination}`)).filter((e) => e.subject === `${name}@larkspur.example`),
    deadLetters: async (query) => ((await (await weir.api(`/v1/dlq?${query}`)).json()) as { deadLetters: any[] }).deadLetters,
    async dispose() {
      await weir.dispose();
      rmSync(workspace, { recursive: true, force: true });
    },
  };
}
