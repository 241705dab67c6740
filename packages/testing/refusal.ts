/** The code of the error with which it is refused ('no code' where it has none); undefined = it is not. */
export function refusalOf(act: () => unknown): string | undefined {
  try {
    act();
    return undefined;
  } catch (error) {
    return (error as { code?: string }).code ?? 'no code';
  }
}
