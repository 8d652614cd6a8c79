// Runs a script as a page of ORIGIN that has loaded jQuery: node browser.mjs ORIGIN, with the script on standard input.
//
// The page's console is this one. It keeps the same-origin policy, so what another origin's answer says reaches the
// script only with that origin's leave.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { JSDOM, VirtualConsole } from 'jsdom';

const page = new JSDOM('<!doctype html>', {
  url: process.argv[2], runScripts: 'outside-only', virtualConsole: new VirtualConsole().sendTo(console),
});
page.window.eval(readFileSync(createRequire(import.meta.url).resolve('jquery'), 'utf8'));
page.window.eval(readFileSync(0, 'utf8'));
