// From the user's settings to the server's command line and to what is sent to it.
//
// Settings of machine scope decide what is read, run and contacted: they go as flags, and only from where a repository
// cannot write. The server refuses them in messages.

import { inForce, type Inspect, type Property } from './layers';

/** `tokenFile` -> `token_file` */
export function snakeCase(name: string): string {
	return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/** `tokenFile` -> `--token-file` */
export function flag(name: string): string {
	return `--${snakeCase(name).replace(/_/g, '-')}`;
}

/** The flags of `starfill lsp`: what the user has set, never what a workspace has. */
export function machineFlags(names: readonly string[], inspect: Inspect): string[] {
	const flags: string[] = [];
	for (const name of names) {
		const value = inspect(name)?.globalValue;
		if ((typeof value === 'string' && value !== '') || typeof value === 'number') {
			flags.push(flag(name), String(value));
		}
	}
	return flags;
}

/** The other settings, under the server's names, as far as the user or the workspace has set them. */
export function editorSettings(properties: Readonly<Record<string, Property>>, inspect: Inspect): Record<string, unknown> {
	const settings: Record<string, unknown> = {};
	for (const [name, property] of Object.entries(properties)) {
		const value = inForce(property, inspect(name));
		if (value !== undefined) {
			settings[snakeCase(name)] = value;
		}
	}
	return settings;
}
