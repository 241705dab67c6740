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
