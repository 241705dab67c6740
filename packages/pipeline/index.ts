export { createCommitWindow, type CommitWindow } from './commit-window.ts';
export { aclRules, acls, type AclGrants, type AclOperation, type AclPrincipal, type AclRule } from './acls.ts';
export { consentApi, H } from './headers.ts';
export * from './ids.ts';
export * from './outcome.ts';
export { standings, type ReadBackAnswer, type ReplayPreview, type Standing } from './replay-preview.ts';
export { alarmShare, expiringBefore, expiringShare, retentionOf } from './retention.ts';
export { groupNames, isName, topicNames, type TopicNames } from './topics.ts';
export { checkArithmetic, checkTopics, compareTopics, planTopics, topicDurationMs, type TopicFinding, type TopicPlanOptions, type TopicScope } from './topic-plan.ts';
