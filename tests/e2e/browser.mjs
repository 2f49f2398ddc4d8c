// Drives the demo and its built-in provider in Chromium, as a person would.
//
//     node browser.mjs http://127.0.0.1:PORT OUTPUT_FOLDER
//
// Leaves a picture of every page in the folder (before.png, login.png, consent.png, after.png, api.png), and one in
// dark colours on a narrow screen (before-narrow.png and so on). Prints a report as one line of JSON:
//   ok       whether everything went as it should; the exit status says the same
//   steps    what was done, in order; the last one is where it failed
//   cookies  name, secure, httpOnly and sameSite of the browser's cookies once it is connected
//   errors   what went wrong: the failed step, errors of scripts, console errors, answers with an error status, what
//            hinders people with disabilities (found by axe-core), pages wider than the screen

import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';

import { chromium } from 'playwright-core';

const [start, output] = process.argv.slice(2);
if (output === undefined) {
  console.error('usage: node browser.mjs DEMO_URL OUTPUT_FOLDER');
  process.exit(2);
}

const home = new URL('/', start).href;
const user = { name: 'alice', password: 'dance', subject: /local-1001/ };
const screens = [
  { suffix: '', colorScheme: 'light', width: 1100, height: 800 },
  { suffix: '-narrow', colorScheme: 'dark', width: 360, height: 640 },
];
const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const report = { ok: false, steps: [], cookies: [], errors: [] };

const browser = await chromium.launch({
  executablePath: '/usr/bin/chromium',
  chromiumSandbox: false,
  args: [
    '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync',
  ],
});
try {
  await inNewProfile(connectCallDisconnect);
  await inNewProfile(twoTabsAtOnce, { javaScriptEnabled: false });
} catch (error) {
  report.errors.push(error.message);
} finally {
  await browser.close();
}
report.ok = report.errors.length === 0;
console.log(JSON.stringify(report));
process.exitCode = report.ok ? 0 : 1;

async function connectCallDisconnect(context) {
  const page = await openHome(context);
  await look(page, 'before');

  await connect(page);
  await look(page, 'login');
  await signIn(page);
  await look(page, 'consent');
  await allow(page);
  await step('shows the connection', () => control(page, /^disconnect\b/i).waitFor());
  await step('names the provider in every control', () => allNamed(page, /Local provider/));
  await look(page, 'after');
  report.cookies = (await context.cookies()).map(({ name, secure, httpOnly, sameSite }) => ({
    name, secure, httpOnly, sameSite,
  }));

  await step('calls the API', () => control(page, /^call( the)? api\b/i).click());
  await step('shows the answer', () => page.locator('body', { hasText: user.subject }).waitFor());
  await look(page, 'api');

  await goHome(page);
  await step('disconnects', () => control(page, /^disconnect\b/i).click());
  await step('shows no connection', async () => {
    await control(page, /^connect\b/i).waitFor();
    await control(page, /^disconnect\b/i).waitFor({ state: 'detached' });
  });
}

async function twoTabsAtOnce(context) {
  const first = await openHome(context);
  const second = await openHome(context);
  await connect(first);
  await connect(second);
  await finishAtProvider(second);
  await finishAtProvider(first);
  for (const page of [first, second]) {
    await goHome(page);
    await step('is connected in both tabs', () => control(page, /^disconnect\b/i).waitFor());
  }
}

async function inNewProfile(scenario, options = {}) {
  report.steps.push(scenario.name);
  const context = await browser.newContext({ viewport: { width: 1100, height: 800 }, ...options });
  context.setDefaultTimeout(15_000);
  context.on('weberror', (error) => report.errors.push(`script: ${error.error().message}`));
  context.on('console', (message) => {
    if (message.type() === 'error') {
      report.errors.push(`console: ${message.text()}`);
    }
  });
  context.on('response', (response) => {
    if (response.status() >= 400) {
      report.errors.push(`${response.status()} for ${withoutQuery(response.url())}`);
    }
  });
  try {
    await scenario(context);
  } finally {
    await context.close();
  }
}

async function openHome(context) {
  const page = await context.newPage();
  await goHome(page);
  return page;
}

async function goHome(page) {
  await step('opens the demo', () => page.goto(home));
}

async function connect(page) {
  await step('presses Connect', () => control(page, /^connect\b/i).click());
  await step('arrives at the provider', () => page.waitForURL((url) => url.origin !== new URL(home).origin));
}

// Signs in where that is asked, which a second tab finds done already.
async function finishAtProvider(page) {
  const asked = page.getByRole('button', { name: 'Sign in', exact: true });
  await asked.or(allowButton(page)).first().waitFor();
  if (await asked.isVisible()) {
    await signIn(page);
  }
  await allow(page);
}

async function signIn(page) {
  await step('signs in', async () => {
    await page.getByLabel('User name', { exact: true }).fill(user.name);
    await page.getByLabel('Password', { exact: true }).fill(user.password);
    await page.getByRole('button', { name: 'Sign in', exact: true }).click();
    await allowButton(page).waitFor();
  });
}

async function allow(page) {
  await step('allows', () => allowButton(page).click());
  await step('comes back to the demo', () => page.waitForURL(home));
}

function allowButton(page) {
  return page.getByRole('button', { name: 'Allow', exact: true });
}

// The page's first button or link of that name.
function control(page, name) {
  return page.getByRole('button', { name }).or(page.getByRole('link', { name })).first();
}

async function allNamed(page, name) {
  for (const role of ['button', 'link']) {
    const [all, named] = [page.getByRole(role), page.getByRole(role, { name })];
    if (await all.count() !== await named.count()) {
      throw new Error(`a ${role} without ${name} in its name: ${await all.allTextContents()}`);
    }
  }
}

// Takes a page's pictures, and notes what some people could not see or use.
async function look(page, name) {
  const usual = page.viewportSize();
  for (const { suffix, colorScheme, width, height } of screens) {
    await page.setViewportSize({ width, height });
    await page.emulateMedia({ colorScheme });
    await page.screenshot({ path: join(output, `${name}${suffix}.png`), fullPage: true });
    const { violations } = await page.evaluate(`${axe}; axe.run()`);
    for (const { id, help, nodes } of violations) {
      report.errors.push(`${name}${suffix}: ${id}: ${help}: ${nodes.map(({ html }) => html).join(' ')}`);
    }
    const wide = await page.evaluate(() => document.documentElement.scrollWidth);
    if (wide > width) {
      report.errors.push(`${name}${suffix}: ${wide} pixels wide on a screen of ${width}`);
    }
  }
  await page.setViewportSize(usual);
  await page.emulateMedia({ colorScheme: null });
}

async function step(name, action) {
  report.steps.push(name);
  try {
    await action();
  } catch (error) {
    throw new Error(`${name}: ${error.message}`);
  }
}

function withoutQuery(url) {
  return url.split('?')[0];
}
