// The manifest says which settings there are and whose they are; nothing is written down twice.

import * as vscode from 'vscode';

import { editorSettings, machineFlags, type Inspect } from './flags';

export const SECTION = 'starfill';
const EXECUTABLE = 'server.path';

export class Settings {
	private readonly machine: string[] = [];
	private readonly others: string[] = [];

	constructor(manifest: { contributes: { configuration: { properties: Record<string, { scope?: string }> } } }) {
		for (const [key, property] of Object.entries(manifest.contributes.configuration.properties)) {
			const name = key.slice(SECTION.length + 1);
			if (name.startsWith('server.')) {
				continue; // the extension's own
			}
			(property.scope === 'machine' ? this.machine : this.others).push(name);
		}
	}

	/** The program that the user names, if any. A workspace cannot. */
	get executable(): string | undefined {
		const value = this.inspect(EXECUTABLE)?.globalValue;
		return typeof value === 'string' && value !== '' ? value : undefined;
	}

	/** The model that the user has chosen, if any. */
	get model(): string | undefined {
		const value = this.inspect('model')?.globalValue;
		return typeof value === 'string' && value !== '' ? value : undefined;
	}

	/** Flags of `starfill lsp`. */
	get flags(): string[] {
		return machineFlags(this.machine, this.inspect);
	}

	/** What is sent to the server. */
	get sent(): Record<string, unknown> {
		return editorSettings(this.others, this.inspect);
	}

	/** All that a server is started with. What a workspace sets is not among it, so that it cannot even restart one. */
	get launch(): string {
		return JSON.stringify([this.executable, this.flags]);
	}

	/** What is switched off for a document, in words; undefined if nothing is. */
	off(document: vscode.TextDocument | undefined): string | undefined {
		const configuration = vscode.workspace.getConfiguration(SECTION, document);
		if (!configuration.get<boolean>('enabled', true)) {
			return 'switched off';
		}
		const languages = configuration.get<Record<string, boolean>>('languages', {});
		const language = document?.languageId;
		if (language !== undefined && !(languages[language] ?? languages['*'] ?? true)) {
			return `switched off for ${language}`;
		}
		return configuration.get<string>('trigger') === 'manual' ? 'only when asked for' : undefined;
	}

	/** Switch completions on or off, for the user. */
	async toggle(): Promise<boolean> {
		const configuration = vscode.workspace.getConfiguration(SECTION);
		const enabled = !configuration.get<boolean>('enabled', true);
		await configuration.update('enabled', enabled, vscode.ConfigurationTarget.Global);
		return enabled;
	}

	/** Switch one language on or off, for the user. */
	async toggleLanguage(language: string): Promise<boolean> {
		const configuration = vscode.workspace.getConfiguration(SECTION);
		const languages = { ...configuration.get<Record<string, boolean>>('languages', {}) };
		const enabled = !(languages[language] ?? languages['*'] ?? true);
		languages[language] = enabled;
		await configuration.update('languages', languages, vscode.ConfigurationTarget.Global);
		return enabled;
	}

	/** Choose the model, for the user; undefined is the one that starfill comes with. */
	async chooseModel(model: string | undefined): Promise<void> {
		await vscode.workspace.getConfiguration(SECTION).update('model', model, vscode.ConfigurationTarget.Global);
	}

	private readonly inspect: Inspect = (name) => vscode.workspace.getConfiguration(SECTION).inspect(name);
}
