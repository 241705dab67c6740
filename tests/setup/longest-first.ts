import { BaseSequencer, type TestSpecification } from 'vitest/node';

/**
 * Files that take long and do not look it. What was never run before (each run of .ci/run) begins with the largest file: these are small, came
 * last, and half of the workers had nothing to do meanwhile. Longest first; a name that is no file any more fails the test beside this.
 */
export const long: readonly string[] = ['tests/e2e/consent.test.ts', 'tests/integrity/log/log.test.ts', 'tests/integrity/replay-exact.test.ts', 'tests/e2e/samples.test.ts', 'tests/e2e/onetrust.test.ts'];

/** These files, those of `long` first; the order of projects and their groups, and of all the others, stays. */
export function longestFirst<T extends { readonly moduleId: string; readonly project: object }>(files: readonly T[]): T[] {
  const rank = ({ moduleId }: T): number => {
    const at = long.findIndex((name) => moduleId.endsWith(`/${name}`));
    return at < 0 ? long.length : at;
  };
  const projects = [...new Set(files.map(({ project }) => project))];
  return projects.flatMap((project) => files.filter((file) => file.project === project).sort((a, b) => rank(a) - rank(b)));
}

export default class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    return longestFirst(await super.sort(files));
  }
}
