// Opens a page in headless Chromium, prints its text and log, and waits until its title is `done`.
import { once } from "node:events";
import { connect } from "node:net";
import { launch } from "puppeteer-core";

const [page, server] = process.argv.slice(2);
const browser = await launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  acceptInsecureCerts: true, // the CA of the test is not trusted
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
});
try {
  const tab = await browser.newPage();
  tab.on("console", (message) => console.log(message.text()));
  tab.on("pageerror", (error) => console.log(String(error)));
  await tab.exposeFunction("control", async (word) => {
    const [host, port] = process.env.LINESHAFT_CONTROL.split(":");
    const end = connect(Number(port), host);
    end.write(`${word}\n`);
    const [response] = await once(end, "data");
    end.destroy();
    if (String(response) !== "done\n") throw new Error(String(response));
  });
  const given = new URLSearchParams({
    server: `http://${server}`,
    secure: `https://${process.env.LINESHAFT_SECURE}`,
    submitter: process.env.LINESHAFT_SUBMITTER,
    viewer: process.env.LINESHAFT_VIEWER,
  });
  await tab.goto(`http://${process.env.LINESHAFT_PAGE}/${page}?${given}`);
  await tab.waitForFunction(() => ["done", "failed"].includes(document.title), { timeout: 120_000 });
  console.log(await tab.evaluate(() => document.body?.innerText ?? ""));
  process.exitCode = (await tab.title()) === "done" ? 0 : 1;
} finally {
  await browser.close();
}
