// Draws dashboards from recorded data:  node render.mjs RECORDED OUT [DASHBOARD ...]
//
// RECORDED is what `python -m tests.dashboards.record RECORDED` wrote; OUT gets a PNG for each dashboard. Needs npm install in
// this folder and a Chromium (CHROMIUM names it, else `chromium`). Panels are Grafana's own components (@grafana/ui) but
// for state timelines and heatmaps, which it does not export. By code of this folder are also: the grid, rows, at most 24 bars of a
// panel, and the last value as the only reduction. A panel for which nothing was recorded makes the exit code 1.
import { build } from 'esbuild';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const HERE = dirname(fileURLToPath(import.meta.url));
const [recorded, out, ...chosen] = process.argv.slice(2);
if (!recorded || !out) {
  console.error('usage: node render.mjs RECORDED OUT [DASHBOARD ...]');
  process.exit(2);
}
mkdirSync(out, { recursive: true });
await build({
  entryPoints: [join(HERE, 'panels.tsx')],
  bundle: true,
  outfile: join(out, 'panels.js'),
  define: { 'process.env.NODE_ENV': '"production"', global: 'window' },
  loader: { '.svg': 'dataurl', '.woff2': 'dataurl', '.woff': 'dataurl', '.ttf': 'empty' },
  conditions: ['browser', 'require'],
  mainFields: ['browser', 'main'],
  alias: {
    // its ES modules import names that are not exported; editors are never drawn
    '@grafana/ui': join(HERE, 'node_modules/@grafana/ui/dist/cjs/index.cjs'),
    '@grafana/data': join(HERE, 'node_modules/@grafana/data/dist/cjs/index.cjs'), // the same one for all
    'monaco-editor': join(HERE, 'nothing.ts'),
    '@monaco-editor/react': join(HERE, 'nothing.ts'),
  },
  jsx: 'automatic',
  logLevel: 'error',
});
const names = chosen.length ? chosen : readdirSync(join(HERE, '..')).filter((name) => /^[a-z-]+\.json$/.test(name)).map((name) => name.slice(0, -5));
for (const name of names) {
  const board = JSON.parse(readFileSync(join(HERE, '..', `${name}.json`), 'utf8'));
  for (const panel of board.panels) {
    panel.recorded = (panel.targets ?? []).map((target) => {
      const path = join(recorded, name, `${panel.id}-${target.refId}.json`);
      if (!existsSync(path)) {
        throw new Error(`${path} is missing: record anew, the dashboards have changed`);
      }
      const answers = JSON.parse(readFileSync(path, 'utf8'));
      return { ...answers, range: answers.range.result ?? answers.range, vector: answers.vector.result ?? answers.vector };
    });
  }
  const empty = board.panels.filter((panel) => panel.recorded.length && panel.recorded.every((one) => !one.range.length && !one.vector.length));
  for (const panel of empty) {
    console.error(`${name}: nothing was recorded for "${panel.title}"`);
    process.exitCode = 1;
  }
  const rows = Math.max(...board.panels.map((panel) => panel.gridPos.y + panel.gridPos.h));
  const page = join(out, `${name}.html`);
  const script = JSON.stringify(board).replace(/</g, '\\u003c');
  writeFileSync(
    page,
    `<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="panels.css"><style>body{margin:0;font-family:Inter,'DejaVu Sans',sans-serif}</style><div id="root"></div><script>window.DASHBOARD=${script};window.__grafana_public_path__=''</script><script src="panels.js"></script>`
  );
  const picture = resolve(join(out, `${name}.png`));
  execFileSync(
    process.env.CHROMIUM ?? 'chromium',
    ['--headless=new', '--no-sandbox', '--disable-gpu', '--hide-scrollbars', '--allow-file-access-from-files', `--window-size=1464,${rows * 34 + 80}`, '--virtual-time-budget=8000', `--screenshot=${picture}`, pathToFileURL(resolve(page)).href],
    { stdio: ['ignore', 'ignore', process.env.VERBOSE ? 'inherit' : 'ignore'] }
  );
  console.log(picture);
}
