export { compileMapping } from './compile.ts';
export { transforms } from './transforms.ts';
export type { CompiledMapping, MappedOutput, MappingMeta, MappingResult } from './types.ts';
export { compileContract, type CompiledContract, type ContractTerms } from './contract.ts';
