import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Client, PermissionDeniedError, UnauthenticatedError, UnavailableError } from "../src/index.js";
import { Server } from "./server.js";

const keys = mkdtempSync(join(tmpdir(), "lineshaft-ts-keys-"));
const CERTIFICATES = `
new="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
openssl req -x509 $new -keyout ca.key -out ca.pem -days 2 -subj "/CN=test" \
  -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign
openssl req $new -keyout server.key -out server.csr -subj /CN=localhost
printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n' > server.ext
openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile server.ext -out server.pem
`;

let server: Server;

function token(role: string): string {
  const args = ["token", "create", `the-${role}`, "--role", role, "--namespace", "default", "--file", "tokens.toml"];
  return execFileSync(process.env.LINESHAFT_BINARY!, args, {
    cwd: keys,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "ignore"],
  }).trim();
}

let tokens: { submitter: string; viewer: string };

before(async () => {
  execFileSync("bash", ["-euc", CERTIFICATES], { cwd: keys, stdio: "ignore" });
  tokens = { submitter: token("submitter"), viewer: token("viewer") };
  const config = `
[tls]
certificate = "${keys}/server.pem"
key = "${keys}/server.key"

[auth]
tokens_file = "${keys}/tokens.toml"
`;
  server = await new Server(config).start();
});

after(async () => {
  await server.end();
  rmSync(keys, { recursive: true, force: true });
});

const ca = () => readFileSync(join(keys, "ca.pem"));

test("a client with TLS and a token submits, waits and watches", async () => {
  using client = new Client({ address: `https://${server.address}`, tls: { ca: ca() }, token: tokens.submitter });
  const tasks = await Promise.all(Array.from({ length: 20 }, () => client.submit("io", 0)));
  await Promise.all(tasks.map((task) => task.result()));
  assert.match((await tasks[0]!.refresh()).submittedBy, /submitter/);
});

test("what the token does not permit is an error with its reason", async () => {
  using viewer = new Client({ address: server.address, tls: { ca: ca() }, token: tokens.viewer });
  await assert.rejects(viewer.submit("io", 0), (error) => {
    assert(error instanceof PermissionDeniedError);
    assert.equal(error.reason, "PERMISSION_DENIED");
    assert.equal(error.metadata.role, "submitter");
    return true;
  });
  using anonymous = new Client({ address: server.address, tls: { ca: ca() } });
  await assert.rejects(anonymous.submit("io", 0), UnauthenticatedError);
});

test("a certificate of an unknown CA is refused", async () => {
  using client = new Client({ address: `https://${server.address}` });
  await assert.rejects(client.submit("io", 0), (error) => {
    assert(error instanceof UnavailableError);
    assert.match(error.message, /certificate/);
    return true;
  });
});
