import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import type { TestProject } from 'vitest/node';
import { dockerAnswers } from '../../infra/local/docker.ts';
import { startPlatform } from '../../infra/local/platform.ts';

declare module 'vitest' {
  export interface ProvidedContext {
    brokers: string[];
    registryUrl: string;
  }
}

/** One cluster per run: KAFKA_BROKERS and SCHEMA_REGISTRY_URL when given; else containers when a Docker engine answers; else the local platform on a folder of its own. */
export default async function setup(project: TestProject): Promise<(() => Promise<void>) | undefined> {
  const brokers = process.env['KAFKA_BROKERS'];
  const registryUrl = process.env['SCHEMA_REGISTRY_URL'];
  if (brokers && registryUrl) {
    project.provide('brokers', brokers.split(','));
    project.provide('registryUrl', registryUrl);
    return undefined;
  }
  if (await dockerAnswers()) {
    const { DockerComposeEnvironment } = await import('testcontainers');
    const environment = await new DockerComposeEnvironment(resolve(import.meta.dirname, '../..'), 'docker-compose.yml').withProjectName('weir-test').up(['kafka', 'registry']);
    project.provide('brokers', ['127.0.0.1:9092']);
    project.provide('registryUrl', 'http://127.0.0.1:8085/apis/ccompat/v7');
    return async () => { await environment.down({ removeVolumes: true }); };
  }
  const dataDir = await mkdtemp(join(tmpdir(), 'weir-test-platform-'));
  const platform = await startPlatform({ dataDir, shortLived: true });
  project.provide('brokers', [...platform.bootstrap]);
  project.provide('registryUrl', platform.registryUrl);
  return async () => {
    await platform.stop();
    await rm(dataDir, { recursive: true, force: true });
  };
}
