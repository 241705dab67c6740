export { compileMapping, consentRecord, unresolved } from './compile.ts';
export { phoneNumber, transforms } from './transforms.ts';
export type { CompiledMapping, MappedOutput, MappingMeta, MappingResult } from './types.ts';
export { compileContract, type CompiledContract, type ContractTerms, type FieldRule } from './contract.ts';
export type { Around, DirectMapping, DirectOptions, DirectOutput, MayGive } from './direct/compile.ts';
