import type { Adapter } from '@weir/adapter';
import { readConfig, type commonOptions, type ConfigOf, type ConfigSchema } from '@weir/config';
import { findWeirError } from '@weir/errors';
import { closeContext, createContext } from './context.ts';
import { armFailpoints } from './failpoints.ts';
import { startOps } from './ops.ts';
import type { Service, ServiceContext } from './types.ts';

const stopDeadlineMs = 9000;

/**
 * The whole life of a service process: read the environment, connect, start, serve /healthz, /readyz and
 * /metrics, stop on SIGINT or SIGTERM within 9 s, exit 1 on an error that nobody declared (without a commit)
 * and 2 on a bad environment.
 */
export async function runService<S extends ConfigSchema & typeof commonOptions>(name: string, options: S, adapters: ReadonlyMap<string, Adapter>, create: (context: ServiceContext, config: ConfigOf<S>) => Service | Promise<Service>, opsPort: (config: ConfigOf<S>) => number | undefined): Promise<void> {
  let config: ConfigOf<S>;
  try {
    config = readConfig(options);
  } catch (error) {
    console.error((error as Error).message);
    process.exit(2);
  }
  const common = config as unknown as ConfigOf<typeof commonOptions>;
  try {
    armFailpoints(common.failpoints);
  } catch (error) {
    console.error((error as Error).message);
    process.exit(2);
  }
  const context = await createContext(name, common, adapters, process.env).catch((error: unknown) => {
    console.error(`${name} cannot start: ${(error as Error).message}`);
    process.exit(findWeirError(error)?.code === 'config-invalid' ? 2 : 1);
  });
  /** Nothing of it may commit or clean up: what is half started is left as after a crash. One line, not the stack of an error that nobody caught. */
  const giveUp = (error: unknown): never => {
    console.error(`${name} cannot start: ${(error as Error).message}`);
    context.logger.flush();
    return process.exit(1);
  };
  const service = await (async () => create(context, config))().catch(async (error: unknown) => {
    console.error(`${name} cannot start: ${(error as Error).message}`);
    await closeContext(context);
    process.exit(2);
  });
  const port = opsPort(config);
  const ops = port === undefined ? undefined : await startOps({ host: common.host, port, registry: context.registry, readiness: () => service.readiness() }).catch(giveUp);
  let ending: Promise<void> | undefined;
  const end = (code: number): void => {
    ending ??= (async () => {
      setTimeout(() => process.exit(code === 0 ? 1 : code), stopDeadlineMs).unref();
      await service.stop();
      await ops?.close();
      await closeContext(context);
      process.exit(code);
    })();
  };
  // Not once: a second signal must not cut the stop short.
  process.on('SIGINT', () => end(0));
  process.on('SIGTERM', () => end(0));
  void Promise.race([service.failed, ...(context.broken === undefined ? [] : [context.broken])]).then((error) => {
    context.logger.fatal({ err: error }, 'the service cannot go on');
    context.logger.flush();
    // Not end(1): an undeclared error must not commit anything on its way out.
    setTimeout(() => process.exit(1), 50);
  });
  try {
    await service.start();
  } catch (error) {
    // Told to stop while it starts: what it was waiting for ends with an error, and the stop has the last word.
    if (ending !== undefined) return;
    giveUp(error);
  }
  context.logger.info({ port }, `${name} started`);
}
