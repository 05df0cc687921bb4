// Where the server is and how the caller proves who it is: from options and the environment.

import { readFileSync } from "node:fs";
import { isIP } from "node:net";
import type { SecureContextOptions } from "node:tls";
import { type Check, type Checks, anything, callable, text } from "../check.js";
import { LineshaftError } from "../errors.js";

export const DEFAULT_ADDRESS = "127.0.0.1:7070";

export interface ConnectOptions {
  /**
   * `host:port`, or a URL; `https://` uses TLS. Several addresses, separated by commas, are tried in turn.
   * Default: the environment variable `LINESHAFT_SERVER`, then 127.0.0.1:7070.
   */
  address?: string;
  /**
   * API key or JWT, or a function that returns the current one. Default: `LINESHAFT_TOKEN`, or the content of the file
   * `LINESHAFT_TOKEN_FILE`.
   */
  token?: string | (() => string);
  /**
   * TLS: true, or what `tls.connect` of Node accepts, such as `ca`, `cert` and `key`. Default: the files
   * `LINESHAFT_TLS_CA`, `LINESHAFT_TLS_CERT` and `LINESHAFT_TLS_KEY`; without them TLS is used with `https://` only.
   */
  tls?: boolean | TlsOptions;
}

const token: Check = (value, path) => (typeof value === "function" ? callable : text)(value, path);

export const CONNECT_OPTIONS: Checks<ConnectOptions> = { address: text, token, tls: anything };

export interface TlsOptions extends SecureContextOptions {
  /** Name in the server's certificate, if it is not that of the address. */
  servername?: string;
}

export interface Endpoint {
  /** Such as `http://127.0.0.1:7070`. */
  urls: string[];
  tls: TlsOptions | undefined;
  token: () => string | undefined;
}

type Environment = Record<string, string | undefined>;

/** @throws LineshaftError if the options contradict each other */
export function endpoint(options: ConnectOptions, environment: Environment = process.env): Endpoint {
  const addresses = (options.address || environment.LINESHAFT_SERVER || DEFAULT_ADDRESS)
    .split(",")
    .map((one) => one.trim());
  const tls = tlsOptions(options, environment, addresses);
  const urls = addresses.map((address) => url(address, tls !== undefined));
  const token = tokenSource(options, environment);
  if (token && !tls && !urls.every(isLoopback)) {
    throw new LineshaftError(`the token would be sent unencrypted to ${addresses.join(", ")}: use an https:// address`);
  }
  return { urls, tls, token: token ?? (() => undefined) };
}

function tlsOptions(options: ConnectOptions, environment: Environment, addresses: string[]): TlsOptions | undefined {
  if (options.tls === false) return undefined;
  const files: TlsOptions = {};
  if (environment.LINESHAFT_TLS_CA) files.ca = readFileSync(environment.LINESHAFT_TLS_CA);
  if (environment.LINESHAFT_TLS_CERT) files.cert = readFileSync(environment.LINESHAFT_TLS_CERT);
  if (environment.LINESHAFT_TLS_KEY) files.key = readFileSync(environment.LINESHAFT_TLS_KEY);
  if (typeof options.tls === "object") return { ...files, ...options.tls };
  if (options.tls || addresses.some((address) => address.startsWith("https://"))) return files;
  const isPlain = addresses.some((address) => address.startsWith("http://"));
  return isPlain || Object.keys(files).length === 0 ? undefined : files;
}

function url(address: string, isSecure: boolean): string {
  const scheme = isSecure ? "https" : "http";
  const text = address.includes("://") ? address : `${scheme}://${address}`;
  const parsed = URL.canParse(text) ? new URL(text) : undefined;
  if (!parsed?.hostname || parsed.username || parsed.search || !["", "/"].includes(parsed.pathname)) {
    throw new LineshaftError(
      `address ${JSON.stringify(address)} is invalid, must be host:port, such as ${DEFAULT_ADDRESS}`,
    );
  }
  if (parsed.protocol !== `${scheme}:`) {
    throw new LineshaftError(`address ${address} must start with ${scheme}://, as TLS is ${isSecure ? "on" : "off"}`);
  }
  return parsed.origin;
}

function tokenSource(options: ConnectOptions, environment: Environment): (() => string | undefined) | undefined {
  const { token } = options;
  if (typeof token === "function") return token;
  if (token) return () => token.trim();
  const { LINESHAFT_TOKEN: value, LINESHAFT_TOKEN_FILE: file } = environment;
  if (value) return () => value.trim();
  // Read for each connection, so that a new token is used without a restart.
  return file ? () => readFileSync(file, "utf8").trim() : undefined;
}

function isLoopback(url: string): boolean {
  const { hostname } = new URL(url);
  const address = hostname.replace(/^\[|\]$/g, "");
  return hostname === "localhost" || (isIP(address) === 4 && address.startsWith("127.")) || address === "::1";
}
