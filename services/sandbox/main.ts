import { readConfig } from '@weir/config';
import { createLogger } from '@weir/telemetry';
import { createSandbox } from './app.ts';
import { options } from './config.ts';

let config: ReturnType<typeof readConfig<typeof options>>;
try {
  config = readConfig(options);
} catch (error) {
  process.stderr.write(`${(error as Error).message}\n`);
  process.exit(2);
}
const logger = createLogger({ service: 'sandbox', level: config.logLevel });
const sandbox = createSandbox(config, logger);
const end = (code: number): void => {
  setTimeout(() => process.exit(1), 9000).unref();
  void sandbox.stop().then(() => process.exit(code));
};
process.once('SIGINT', () => end(0));
process.once('SIGTERM', () => end(0));
void sandbox.failed.then((error) => {
  logger.fatal({ err: error }, 'the sandbox cannot go on');
  end(1);
});
await sandbox.start();
logger.info({ port: sandbox.port }, 'sandbox started');
