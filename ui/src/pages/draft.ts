// A task that the form for submissions begins with.
import { signal } from "@preact/signals";
import type { Task } from "../gen/lineshaft/v1/task_pb";

export const draft = signal<Task | undefined>(undefined);
