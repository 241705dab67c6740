/**
 * Why an evaluation failed, by the code of the library's error. Its own texts quote the data ("No such key: <value>"), and
 * what is said here stands on topics that are not sealed: so only these sentences, and what the expression itself says.
 */
const texts: Readonly<Record<string, string>> = {
  no_such_key: 'a field that it reads is not there',
  index_out_of_bounds: 'a list has no element at that place',
  index_out_of_range: 'a text has no such place',
  bool_conversion_error: 'a text is neither true nor false',
  int_conversion_error: 'a value is no whole number',
  uint_conversion_error: 'a value is no whole number',
  double_conversion_error: 'a text is no number',
  numeric_overflow: 'a number is too large',
  division_by_zero: 'a division by zero',
  modulo_by_zero: 'a division by zero',
  invalid_duration: 'a text is no duration',
  invalid_timestamp: 'a value is no time',
  no_such_overload: 'an operator does not take values of these types',
  no_matching_overload: 'a function does not take values of these types',
  invalid_comparison_type: 'an operator does not take values of these types',
  invalid_list_element_type: 'a list has more than texts',
  field_type_mismatch: 'a value is not of the type that is expected',
  list_item_type_mismatch: 'a value is not of the type that is expected',
  variable_type_mismatch: 'a value is not of the type that is expected',
  unsupported_type: 'a value is of no type of CEL',
  unknown_variable: 'a variable has no value',
  invalid_condition_type: 'a condition is neither true nor false',
  invalid_logical_operand: 'a condition is neither true nor false',
  invalid_comprehension_range: 'a loop goes over what is no list',
  too_many_steps: 'it took too many steps: what it goes over is very large, or a loop goes over more than its element',
};
const otherText = 'could not be evaluated';
const maxPart = 100;

/** What failed, as a sentence of a closed set, and the part of the expression where it did (as written, shortened). Never a value of the data. */
export function failureText(error: unknown, source: string): string {
  const { code, node } = (error ?? {}) as { readonly code?: unknown; readonly node?: { readonly start?: unknown; readonly end?: unknown } };
  const text = typeof code === 'string' && Object.hasOwn(texts, code) ? texts[code]! : otherText;
  const part = typeof node?.start === 'number' && typeof node.end === 'number' ? source.slice(node.start, node.end) : source;
  const written = part.replace(/\s+/g, ' ').trim();
  return `${text}: ${written.length > maxPart ? `${written.slice(0, maxPart)}…` : written}`;
}
