// Reads an array of custom resources from stdin and checks each against the schema of its operator. The schemas allow
// unknown fields, so it also checks each against the operator's TypeScript types.

import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Certificate } from "@kubernetes-models/cert-manager/cert-manager.io/v1/Certificate";
import { GRPCRoute } from "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1/GRPCRoute";
import { ScaledObject } from "@kubernetes-models/keda/keda.sh/v1alpha1/ScaledObject";
import { TriggerAuthentication } from "@kubernetes-models/keda/keda.sh/v1alpha1/TriggerAuthentication";
import { PrometheusRule } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PrometheusRule";
import { ServiceMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor";

const known = {
  "cert-manager/cert-manager.io/v1/Certificate": Certificate,
  "gateway-api/gateway.networking.k8s.io/v1/GRPCRoute": GRPCRoute,
  "keda/keda.sh/v1alpha1/ScaledObject": ScaledObject,
  "keda/keda.sh/v1alpha1/TriggerAuthentication": TriggerAuthentication,
  "prometheus-operator/monitoring.coreos.com/v1/PrometheusRule": PrometheusRule,
  "prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor": ServiceMonitor,
};

const faults = [];
const typed = [];
for (const document of JSON.parse(readFileSync(0, "utf8"))) {
  const name = `${document.kind} ${document.metadata.name}`;
  const found = Object.entries(known).find(
    ([, model]) => model.kind === document.kind && model.apiVersion === document.apiVersion,
  );
  if (!found) {
    faults.push(`${name}: no schema for ${document.apiVersion}`);
    continue;
  }
  const [path, model] = found;
  try {
    new model(document).validate();
  } catch (error) {
    faults.push(`${name}: ${error.message}`);
  }
  const type = `import("@kubernetes-models/${path}").I${document.kind}`;
  typed.push(`/* ${name} */ (${JSON.stringify(document)}) satisfies ${type};`);
}

const file = fileURLToPath(new URL("typed.ts", import.meta.url));
writeFileSync(file, `${typed.join("\n")}\nexport {};\n`);
const options = ["--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--target", "es2022", "--pretty", "false"];
const compiler = fileURLToPath(new URL("node_modules/typescript/bin/tsc", import.meta.url));
const compiled = spawnSync(process.execPath, [compiler, ...options, file], { encoding: "utf8" });
if (compiled.status !== 0) faults.push(compiled.stdout);

for (const fault of faults) console.error(fault);
process.exit(faults.length ? 1 : 0);
