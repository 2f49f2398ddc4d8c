// Opens one page in Chromium, and prints what it shows as one line of JSON:
//
//     node page.mjs URL
//
//   status   the HTTP status of the last response
//   heading  the text of the first heading
//   text     the visible text
//   errors   errors of scripts, and what hinders people with disabilities (found by axe-core)

import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';

import { chromium } from 'playwright-core';

const [url] = process.argv.slice(2);
if (url === undefined) {
  console.error('usage: node page.mjs URL');
  process.exit(2);
}

const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const browser = await chromium.launch({
  executablePath: '/usr/bin/chromium',
  chromiumSandbox: false,
  args: [
    '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync',
  ],
});
try {
  const context = await browser.newContext();
  const errors = [];
  context.on('weberror', (error) => errors.push(`script: ${error.error().message}`));
  const page = await context.newPage();
  const response = await page.goto(url);
  const { violations } = await page.evaluate(`${axe}; axe.run()`);
  errors.push(...violations.map(({ id, help }) => `${id}: ${help}`));
  const heading = await page.locator('h1').first().textContent();
  console.log(JSON.stringify({ status: response.status(), heading, text: await page.innerText('body'), errors }));
} finally {
  await browser.close();
}
