// Lets Chromium keep tokens of growing and shrinking size, as `__Host-` cookies.
//
//     node cookie-chunks.mjs http://localhost:PORT
//
// Prints what every page said and which cookies the browser had after it, as one line of JSON.

import { chromium } from 'playwright-core';

const [start] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath: '/usr/bin/chromium',
  chromiumSandbox: false,
  args: ['--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking'],
});
const visits = [];
try {
  const context = await browser.newContext();
  const page = await context.newPage();
  for (const path of ['/put/10', '/get', '/put/8000', '/get', '/put/4500', '/get', '/put/999999', '/get', '/put/10', '/get', '/delete', '/get']) {
    await page.goto(new URL(path, start).href);
    const cookies = (await context.cookies()).map(({ name, secure, httpOnly, sameSite, path }) => ({
      name, secure, httpOnly, sameSite, path,
    }));
    visits.push({ path, said: await page.locator('body').innerText(), cookies });
  }
} finally {
  await browser.close();
}
console.log(JSON.stringify(visits));
