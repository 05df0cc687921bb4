// What the server says about itself and about the caller. Read again after each connection.
import { signal } from "@preact/signals";
import type { GetServerInfoResponse } from "../gen/lineshaft/v1/system_service_pb";

export const info = signal<GetServerInfoResponse | undefined>(undefined);
