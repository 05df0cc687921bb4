npx tsc
npx esbuild scenario.ts --bundle --format=esm --log-level=warning --outfile=page/scenario.js
node look.js scenario.html "$LINESHAFT_PROXY"
