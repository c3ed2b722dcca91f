// Firefox as its distributions ship it, driven by what is built into it: WebDriver BiDi.
//
// FIREFOX names it (default /usr/bin/firefox-esr). Node 22, for WebSocket.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { createInterface } from 'node:readline';

// Whatever would ask the network for something of its own.
const quiet = {
  'app.normandy.enabled': false,
  'app.update.disabledForTesting': true,
  'browser.safebrowsing.downloads.enabled': false,
  'browser.search.update': false,
  'browser.shell.checkDefaultBrowser': false,
  'datareporting.policy.dataSubmissionEnabled': false,
  'extensions.systemAddon.update.enabled': false,
  'network.captive-portal-service.enabled': false,
  'network.connectivity-service.enabled': false,
  'services.settings.server': 'data:,',
  'toolkit.telemetry.enabled': false,
};

// A page at `url`. `evaluate(act, argument)` calls the function there, and brings what it resolves
// with; argument and result are JSON.
export async function openFirefox(url) {
  const profile = mkdtempSync(`${tmpdir()}/tidings-firefox-`);
  writeFileSync(`${profile}/user.js`, Object.entries(quiet).map(([name, value]) => `user_pref("${name}", ${JSON.stringify(value)});\n`).join(''));
  const program = process.env.FIREFOX ?? '/usr/bin/firefox-esr';
  const child = spawn(program, ['--headless', '--no-remote', '--remote-debugging-port=0', '--profile', profile, 'about:blank'], {
    env: { ...process.env, HOME: profile },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const ended = once(child, 'exit');
  process.on('exit', () => child.kill('SIGKILL'));

  let address;
  for await (const line of createInterface(child.stderr)) {
    [, address] = line.match(/^WebDriver BiDi listening on (.*)/) ?? [];
    if (address) break;
  }
  if (!address) throw new Error(`${program} does not start`);
  child.stderr.resume();

  const socket = new WebSocket(`${address}/session`);
  await once(socket, 'open');
  const asked = new Map();
  socket.onmessage = ({ data }) => {
    const { id, result, message } = JSON.parse(data);
    const { resolve, reject } = asked.get(id) ?? {};
    asked.delete(id);
    if (result) resolve?.(result);
    else reject?.(new Error(message));
  };
  let id = 0;
  const ask = (method, params) => new Promise((resolve, reject) => {
    asked.set(++id, { resolve, reject });
    socket.send(JSON.stringify({ id, method, params }));
  });

  await ask('session.new', { capabilities: {} });
  const { contexts: [{ context }] } = await ask('browsingContext.getTree', {});
  await ask('browsingContext.navigate', { context, url, wait: 'complete' });

  return {
    async evaluate(act, argument) {
      const { result, exceptionDetails } = await ask('script.callFunction', {
        functionDeclaration: `async text => JSON.stringify(await (${act})(JSON.parse(text)))`,
        arguments: [{ type: 'string', value: JSON.stringify(argument ?? null) }],
        awaitPromise: true,
        target: { context },
      });
      if (exceptionDetails) throw new Error(exceptionDetails.text);
      return result.value && JSON.parse(result.value);
    },
    async close() {
      child.kill();
      await ended;
      rmSync(profile, { recursive: true, force: true, maxRetries: 10 });
    },
  };
}
