npx tsc
npx tsx scenario.ts
