// Drives the demo and its built-in provider in Chromium, as a person would.
//
//     node browser.mjs http://127.0.0.1:PORT OUTPUT_FOLDER
//
// Leaves before.png, after.png and api.png in the folder and prints a report as one line of JSON:
//   ok       whether everything went as it should; the exit status says the same
//   steps    what was done, in order; the last one is where it failed
//   cookies  name, secure, httpOnly and sameSite of the browser's cookies once it is connected
//   errors   what went wrong: the failed step, errors of scripts, console errors, answers with an error status

import { join } from 'node:path';

import { chromium } from 'playwright-core';

const [start, output] = process.argv.slice(2);
if (output === undefined) {
  console.error('usage: node browser.mjs DEMO_URL OUTPUT_FOLDER');
  process.exit(2);
}

const home = new URL('/', start).href;
const user = { name: 'alice', password: 'dance', subject: /local-1001/ };
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
  await inNewProfile(twoTabsAtOnce);
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
  await picture(page, 'before.png');

  await connect(page);
  await finishAtProvider(page);
  await step('shows the connection', () => control(page, /^disconnect\b/i).waitFor());
  await picture(page, 'after.png');
  report.cookies = (await context.cookies()).map(({ name, secure, httpOnly, sameSite }) => ({
    name, secure, httpOnly, sameSite,
  }));

  await step('calls the API', () => control(page, /^call( the)? api\b/i).click());
  await step('shows the answer', () => page.locator('body', { hasText: user.subject }).waitFor());
  await picture(page, 'api.png');

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

async function inNewProfile(scenario) {
  report.steps.push(scenario.name);
  const context = await browser.newContext({ viewport: { width: 1100, height: 800 } });
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

async function finishAtProvider(page) {
  const signIn = page.getByRole('button', { name: 'Sign in', exact: true });
  const allow = page.getByRole('button', { name: 'Allow', exact: true });
  await signIn.or(allow).first().waitFor();
  if (await signIn.isVisible()) {
    await step('signs in', async () => {
      await page.getByLabel('User name', { exact: true }).fill(user.name);
      await page.getByLabel('Password', { exact: true }).fill(user.password);
      await signIn.click();
    });
  }
  await step('allows', () => allow.click());
  await step('comes back to the demo', () => page.waitForURL(home));
}

// The page's first button or link of that name.
function control(page, name) {
  return page.getByRole('button', { name }).or(page.getByRole('link', { name })).first();
}

async function picture(page, file) {
  await page.screenshot({ path: join(output, file), fullPage: true });
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
