import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, rename, rm, readdir } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
const plugin = 'org.apache.maven.plugins:maven-dependency-plugin:3.8.1';
export const kafkaVersion = '4.3.1';
export const registryVersion = '3.3.3';

export interface Binaries {
  /** Folder with Kafka's jars. */
  readonly kafka: string;
  /** Folder with Apicurio's quarkus app. */
  readonly registry: string;
}

/**
 * Kafka and the registry from Maven Central into `cache`, once, at pinned versions. A folder appears under its
 * final name only when it is complete, so a fetch that was cut is repeated.
 */
export async function fetchBinaries(cache: string): Promise<Binaries> {
  const kafka = join(cache, `kafka-${kafkaVersion}`);
  const registry = join(cache, `registry-${registryVersion}`);
  await mkdir(cache, { recursive: true });
  if (!existsSync(kafka)) {
    await fetched(kafka, async (part) => {
      await maven(['-f', resolve(import.meta.dirname, 'pom.xml'), `${plugin}:copy-dependencies`, `-DoutputDirectory=${part}`, '-DincludeScope=runtime'], cache);
    });
  }
  if (!existsSync(registry)) {
    await fetched(registry, async (part) => {
      await maven([`${plugin}:copy`, `-Dartifact=io.apicurio:apicurio-registry-app:${registryVersion}:tar.gz:all`, `-DoutputDirectory=${part}`], cache);
      const [archive] = await readdir(part);
      await run('tar', ['xzf', archive!], { cwd: part });
      await rm(join(part, archive!));
    });
  }
  return { kafka, registry };
}

async function fetched(target: string, work: (part: string) => Promise<void>): Promise<void> {
  const part = `${target}.part-${process.pid}`;
  await rm(part, { recursive: true, force: true });
  await mkdir(part, { recursive: true });
  try {
    await work(part);
    if (existsSync(target)) await rm(part, { recursive: true });
    else await rename(part, target);
  } catch (error) {
    await rm(part, { recursive: true, force: true });
    throw error;
  }
}

async function maven(args: readonly string[], cwd: string): Promise<void> {
  try {
    await run('mvn', ['-q', '-B', ...args], { cwd, maxBuffer: 16 * 1024 * 1024 });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') throw new Error('Maven is missing: install it (e.g. `apt-get install maven`), or run a Docker engine, or set KAFKA_BROKERS and SCHEMA_REGISTRY_URL', { cause: error });
    throw new Error(`Maven could not fetch the local platform: ${String((error as { stdout?: string }).stdout).slice(-2000)}`, { cause: error });
  }
}
