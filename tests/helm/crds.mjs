// Reads an array of custom resources from standard input and checks each against its operator's schema.

import { readFileSync } from "node:fs";
import { Certificate } from "@kubernetes-models/cert-manager/cert-manager.io/v1/Certificate";
import { GRPCRoute } from "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1/GRPCRoute";
import { ScaledObject } from "@kubernetes-models/keda/keda.sh/v1alpha1/ScaledObject";
import { PrometheusRule } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PrometheusRule";
import { ServiceMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor";

const known = [Certificate, GRPCRoute, ScaledObject, PrometheusRule, ServiceMonitor];
let failed = 0;
for (const document of JSON.parse(readFileSync(0, "utf8"))) {
  const name = `${document.kind} ${document.metadata.name}`;
  const model = known.find((model) => model.kind === document.kind && model.apiVersion === document.apiVersion);
  try {
    if (!model) throw new Error(`no schema for ${document.apiVersion}`);
    new model(document).validate();
  } catch (error) {
    failed += 1;
    console.error(`${name}: ${error.message}`);
  }
}
process.exit(failed ? 1 : 0);
