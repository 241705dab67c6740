/**
 * Does one after the other what it is given, in the order of the calls, and gives what each comes to. One that fails keeps nobody
 * from his turn. Nothing of a result is kept.
 */
export function createInTurn(): <T>(work: () => T | Promise<T>) => Promise<T> {
  let last: Promise<void> = Promise.resolve();
  const over = (): void => undefined;
  return (work) => {
    const mine = last.then(work);
    last = mine.then(over, over);
    return mine;
  };
}

/** As `createInTurn`, so many at once; who comes first begins first. Work that waits in it for more of the same waits for ever. */
export function createFewAtOnce(atOnce: number): <T>(work: () => Promise<T>) => Promise<T> {
  const waiting: (() => void)[] = [];
  let underWay = 0;
  return async (work) => {
    if (underWay < atOnce) underWay++;
    else await new Promise<void>((turn) => waiting.push(turn));
    try {
      return await work();
    } finally {
      const next = waiting.shift();
      // Its place goes on to the next.
      if (next === undefined) underWay--;
      else next();
    }
  };
}
