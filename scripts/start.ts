/**
 * `npm start`: the local platform and every service in one process. Prints the write key, the admin token and
 * `weir ready`; Ctrl-C ends it within 10 s and nothing is lost.
 */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { registry } from '@weir/adapters';
import { commonOptions, defineConfig, readConfig, registryConnection, securityOptions, vaultOptions, type ConfigOf } from '@weir/config';
import { WeirError, WorkspaceError } from '@weir/errors';
import { createSerde, type Serde } from '@weir/log';
import { secretNames } from '@weir/release';
import { armFailpoints, closeContext, createContext, startOps, type OpsServer, type Service, type ServiceContext } from '@weir/service';
import { oidcOptions } from '@weir/service/authenticate';
import { createLogger } from '@weir/telemetry';
import { unwrapEnv } from '@weir/vault';
import { startDocker } from '../infra/local/docker.ts';
import { startPlatform, type Platform } from '../infra/local/platform.ts';
import { createControl } from '../services/control/app.ts';
import { controlOptions } from '../services/control/config.ts';
import { createDispatcher } from '../services/dispatcher/app.ts';
import { options as dispatcherOptions } from '../services/dispatcher/config.ts';
import { createIngest } from '../services/ingest/app.ts';
import { options as ingestOptions } from '../services/ingest/config.ts';
import { createNormalizer } from '../services/normalizer/app.ts';
import { options as normalizerOptions } from '../services/normalizer/config.ts';
import { createPolicy } from '../services/policy/app.ts';
import { options as policyOptions } from '../services/policy/config.ts';
import { createSandbox } from '../services/sandbox/app.ts';
import { options as sandboxOptions } from '../services/sandbox/config.ts';
import { compileWorkspace, localSecrets, prepareCluster, prepareOptions } from './prepare.ts';

const root = resolve(import.meta.dirname, '..');
const began = performance.now();
const stopDeadlineMs = 9500;

const startOptions = defineConfig({
  base: { env: 'WEIR_PORT', type: 'integer', min: 1, max: 65_000, default: 8080, doc: 'Base port: ingest here, control +1, sandbox +10.' },
  dataDir: commonOptions.dataDir,
  workspace: { env: 'WEIR_WORKSPACE', type: 'string', default: join(root, 'workspace'), doc: 'Workspace folder that is applied when its hash is new.' },
  brokers: { env: 'KAFKA_BROKERS', type: 'list', optional: true, doc: 'Use these brokers instead of local ones.' },
  registryUrl: { env: 'SCHEMA_REGISTRY_URL', type: 'string', optional: true, doc: 'Use this registry instead of a local one.' },
});

function fail(error: unknown, code: number): never {
  if (error instanceof WorkspaceError) for (const p of error.problems) console.error(`${p.file}:${p.line}: ${p.message}\n  remedy: ${p.remedy}`);
  else console.error((error as Error).message);
  process.exit(code);
}

interface Running {
  readonly service: Pick<Service, 'name' | 'stop' | 'failed'>;
  readonly context?: ServiceContext;
  readonly ops?: OpsServer;
}

async function startServices(base: number, common: ConfigOf<typeof commonOptions>, serde: Serde): Promise<Running[]> {
  const running: Running[] = [];
  armFailpoints(common.failpoints);
  const host = common.host;
  const sandbox = createSandbox({ ...readConfig(sandboxOptions), port: base + 10 }, createLogger({ service: 'sandbox', level: common.logLevel }));
  await sandbox.start();
  running.push({ service: sandbox });
  const ingestConfig = readConfig(ingestOptions);
  const plan: [string, number | undefined, (context: ServiceContext) => Service | Promise<Service>][] = [
    ['policy', base + 3, (context) => createPolicy(context, readConfig(policyOptions))],
    ['dispatcher', base + 4, (context) => createDispatcher(context, readConfig(dispatcherOptions))],
    ['normalizer', base + 2, (context) => createNormalizer(context, readConfig(normalizerOptions))],
    ['control', undefined, (context) => createControl(context, { ...readConfig(controlOptions), port: base + 1, adapters: registry })],
    ['ingest', undefined, (context) => createIngest(context, { ...ingestConfig, port: base, oidc: oidcOptions(ingestConfig) })],
  ];
  await Promise.all(plan.map(async ([name, opsPort, create]) => {
    const context = await createContext(name, common, registry, process.env, serde);
    const service = await create(context);
    const ops = opsPort === undefined ? undefined : await startOps({ host, port: opsPort, registry: context.registry, readiness: () => service.readiness() });
    running.push({ service, context, ops });
    await service.start();
  }));
  return running;
}

const config = (() => {
  try {
    return readConfig(startOptions);
  } catch (error) {
    return fail(error, 2);
  }
})();
const dataDir = resolve(config.dataDir);
mkdirSync(dataDir, { recursive: true });
const pidFile = join(dataDir, 'weir.pid');
writeFileSync(pidFile, String(process.pid));

let platform: Pick<Platform, 'bootstrap' | 'registryUrl' | 'stop'> | undefined;
let running: Running[] = [];
let stopping = false;

async function stop(code: number): Promise<void> {
  if (stopping) return;
  stopping = true;
  setTimeout(() => process.exit(code === 0 ? 1 : code), stopDeadlineMs).unref();
  await Promise.all(running.map(async ({ service, context, ops }) => {
    await service.stop();
    await ops?.close();
    if (context !== undefined) await closeContext(context);
  }));
  await platform?.stop();
  rmSync(pidFile, { force: true });
  process.exit(code);
}
// Not once: npm and the set-up pass the signal on, and a second one must not cut the stop short.
process.on('SIGINT', () => void stop(0));
process.on('SIGTERM', () => void stop(0));

try {
  const { kafkaProtocol } = readConfig(securityOptions);
  const settings = readConfig(vaultOptions);
  const env = await unwrapEnv(process.env, () => settings);
  const release = compileWorkspace(config.workspace, dataDir, env);
  await localSecrets(release, { dataDir, env, settings, by: 'npm start' });
  if (config.brokers === undefined || config.registryUrl === undefined) {
    if (kafkaProtocol !== 'PLAINTEXT') throw new WeirError('config-invalid', `WEIR_KAFKA_SECURITY_PROTOCOL=${kafkaProtocol} needs KAFKA_BROKERS and SCHEMA_REGISTRY_URL: the local brokers speak plaintext`);
    platform = (await startDocker((line) => console.error(line))) ?? (await startPlatform({ dataDir: join(dataDir, 'platform') }));
    Object.assign(process.env, { KAFKA_BROKERS: platform.bootstrap.join(','), SCHEMA_REGISTRY_URL: platform.registryUrl });
  }
  // One instance on one machine: a crash is noticed sooner than in a fleet. Each of these can still be set.
  for (const [name, value] of Object.entries({ WEIR_NORMALIZER_SESSION_MS: '5000', WEIR_POLICY_SESSION_MS: '5000', WEIR_DISPATCHER_SESSION_MS: '9000', WEIR_CALL_TIMEOUT_MS: '4000' })) process.env[name] ||= value;
  Object.assign(process.env, { WEIR_DATA: dataDir, WEIR_SANDBOX_URL: `http://127.0.0.1:${config.base + 10}`, WEIR_ALLOW_PRIVATE_DESTINATIONS: process.env['WEIR_ALLOW_PRIVATE_DESTINATIONS'] || 'true', WEIR_ALLOW_PRIVATE_SOURCES: process.env['WEIR_ALLOW_PRIVATE_SOURCES'] || 'true', WEIR_LOG_LEVEL: process.env['WEIR_LOG_LEVEL'] || 'warn' });
  const common = readConfig(commonOptions);
  const serde = createSerde(registryConnection(common));
  const hash = await prepareCluster(release, readConfig(prepareOptions), 'npm start', env, serde);
  running = await startServices(config.base, common, serde);
  for (const { service, context } of running) {
    void Promise.race([service.failed, ...(context?.broken === undefined ? [] : [context.broken])]).then((error) => {
      if (stopping) return;
      console.error(`${service.name} cannot go on: ${error.message}`);
      void stop(1);
    });
  }
  const { vault } = running.find(({ context }) => context !== undefined)!.context!;
  const segment = [...release.sources.values()].find((s) => s.adapter.manifest.name === 'segment');
  const keyName = segment === undefined ? undefined : secretNames(segment.config).find((s) => s.option === 'writeKey')?.name;
  if (keyName !== undefined) console.log(`segment write key: ${vault.get(keyName).reveal()}`);
  console.log(`admin token: ${vault.get('ADMIN_TOKEN').reveal()}`);
  console.log(`weir ready in ${((performance.now() - began) / 1000).toFixed(1)} s: ingest http://127.0.0.1:${config.base}, control http://127.0.0.1:${config.base + 1}, sandbox http://127.0.0.1:${config.base + 10}; release ${hash}; Ctrl-C ends it`);
} catch (error) {
  await Promise.all(running.map(({ service }) => service.stop()));
  await platform?.stop();
  fail(error, error instanceof WorkspaceError ? 2 : 1);
}
