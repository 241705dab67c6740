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

interface Cluster {
  readonly brokers: string[];
  readonly registryUrl: string;
  stop(): Promise<void>;
}

/** Projects of one run share it: the last that ends stops it. */
let users = 0;
let shared: Promise<Cluster> | undefined;

/** One cluster per run: KAFKA_BROKERS and SCHEMA_REGISTRY_URL when given; else containers when a Docker engine answers; else the local platform on a folder of its own. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  users++;
  const cluster = await (shared ??= startCluster());
  project.provide('brokers', cluster.brokers);
  project.provide('registryUrl', cluster.registryUrl);
  return async () => {
    if (--users === 0) await cluster.stop();
  };
}

async function startCluster(): Promise<Cluster> {
  const brokers = process.env['KAFKA_BROKERS'];
  const registryUrl = process.env['SCHEMA_REGISTRY_URL'];
  if (brokers && registryUrl) return { brokers: brokers.split(','), registryUrl, stop: async () => undefined };
  if (await dockerAnswers()) {
    const { DockerComposeEnvironment } = await import('testcontainers');
    const environment = await new DockerComposeEnvironment(resolve(import.meta.dirname, '../..'), 'docker-compose.yml').withProjectName('weir-test').up(['kafka', 'registry']);
    return { brokers: ['127.0.0.1:9092'], registryUrl: 'http://127.0.0.1:8085/apis/ccompat/v7', stop: async () => { await environment.down({ removeVolumes: true }); } };
  }
  const dataDir = await mkdtemp(join(tmpdir(), 'weir-test-platform-'));
  const platform = await startPlatform({ dataDir, shortLived: true });
  return {
    brokers: [...platform.bootstrap],
    registryUrl: platform.registryUrl,
    async stop() {
      await platform.stop();
      await rm(dataDir, { recursive: true, force: true });
    },
  };
}
