// Opens pages in a real Chromium: reads one JSON object from standard input, prints one on standard output.
//
// in:  {"executable": path or null, "pages": [{"url", "texts": [...], "gone": [...], "screenshot": path or null, "width", "height"}]}
// out: [{"text": everything visible, "links": [{"text", "href"}]}], one for each page, once `texts` are visible and `gone` are not.

import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { chromium } from "playwright-core";

const TIMEOUT_MS = 90_000;

async function bundledChromium() {
  // The npm package unpacks itself and, when told that it runs in a Lambda, its own system libraries too, which is what
  // a machine without root needs.
  process.env.TMPDIR = join(import.meta.dirname, "unpacked");
  process.env.AWS_EXECUTION_ENV = `AWS_Lambda_nodejs${process.versions.node.split(".")[0]}.x`;
  mkdirSync(process.env.TMPDIR, { recursive: true });
  const { default: bundle } = await import("@sparticuz/chromium");
  const path = await bundle.executablePath();
  // Its own font configuration looks below /tmp, and without any font this Chromium ends itself.
  process.env.FONTCONFIG_FILE = join(process.env.TMPDIR, "fonts.conf");
  writeFileSync(process.env.FONTCONFIG_FILE, fontConfiguration(process.env.TMPDIR));
  return path;
}

function fontConfiguration(folder) {
  const folders = [join(folder, "fonts"), "/usr/share/fonts"].map((dir) => `<dir>${dir}</dir>`).join("");
  return `<?xml version="1.0"?><fontconfig>${folders}<cachedir>${folder}/font-cache</cachedir></fontconfig>`;
}

async function look(browser, page) {
  const viewport = { width: page.width ?? 1400, height: page.height ?? 900 };
  // In a POSIX locale the browser reports en-US@posix, on which Dagster's UI fails and stays blank.
  const context = await browser.newContext({ locale: "en-US", timezoneId: "UTC", viewport, deviceScaleFactor: 1 });
  const tab = await context.newPage();
  await tab.goto(page.url, { waitUntil: "domcontentloaded", timeout: TIMEOUT_MS });
  for (const text of page.texts) {
    await tab.getByText(text).filter({ visible: true }).first().waitFor({ timeout: TIMEOUT_MS });
  }
  for (const text of page.gone ?? []) {
    await tab.getByText(text).filter({ visible: true }).first().waitFor({ state: "hidden", timeout: TIMEOUT_MS });
  }
  if (page.screenshot) await tab.screenshot({ path: page.screenshot });
  const text = await tab.locator("body").innerText();
  const links = await tab.locator("a[href]").evaluateAll((all) => all.map((a) => ({ text: a.innerText, href: a.href })));
  await context.close();
  return { text, links };
}

const chunks = [];
for await (const chunk of process.stdin) chunks.push(chunk);
const task = JSON.parse(Buffer.concat(chunks).toString());
const executablePath = task.executable ?? (await bundledChromium());
if (!existsSync(executablePath)) throw new Error(`no browser at ${executablePath}`);
// No GPU process and no zygote: the small Chromium from npm has neither's helpers on every machine.
const args = ["--no-sandbox", "--no-zygote", "--in-process-gpu", "--disable-webgl", "--disable-dev-shm-usage"];
const browser = await chromium.launch({ executablePath, args });
try {
  const seen = [];
  for (const page of task.pages) seen.push(await look(browser, page));
  console.log(JSON.stringify(seen));
} finally {
  await browser.close();
}
