// Starts the dashboard.
import { render } from "preact";
import { App } from "./app";
import { startLive } from "./data/live";
import { keepPreferences } from "./preferences";

keepPreferences();
startLive();
render(<App />, document.getElementById("app")!);
