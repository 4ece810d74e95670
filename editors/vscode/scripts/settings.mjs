// Brings the manifest's settings up to date with the server's schema: `npm run settings`, in an environment with starfill.
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';

const python = process.env.PYTHON ?? 'python3';
const root = new URL('../../..', import.meta.url);
const schema = JSON.parse(execFileSync(python, ['-m', 'lsp_server.settings', 'vscode'], { cwd: root, encoding: 'utf8' }));
const own = {
	'starfill.server.path': {
		type: 'string',
		default: '',
		scope: 'machine',
		markdownDescription: 'The `starfill` program, as an absolute path; empty: the one on PATH.',
	},
};
const file = new URL('../package.json', import.meta.url);
const manifest = JSON.parse(readFileSync(file, 'utf8'));
manifest.contributes.configuration.properties = { ...own, ...schema.properties };
manifest.capabilities.untrustedWorkspaces.restrictedConfigurations = [...Object.keys(own), ...schema.restrictedConfigurations];
writeFileSync(file, `${JSON.stringify(manifest, null, '\t')}\n`);
