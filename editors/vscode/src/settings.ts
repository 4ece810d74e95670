// The manifest says which settings there are and whose they are; nothing is written down twice.

import * as vscode from 'vscode';

import { editorSettings, machineFlags } from './flags';
import { decides, type Inspect, type Property, type Source, withEntry } from './layers';

export const SECTION = 'starfill';
const EXECUTABLE = 'server.path';
/** The settings that are flags of `starfill doctor` too: those that say which engine completes. */
const OF_THE_ENGINE = ['engine', 'model', 'tokenFile', 'device', 'dtype', 'kvMemory'];
const TARGETS: Record<Source, vscode.ConfigurationTarget> = {
	user: vscode.ConfigurationTarget.Global,
	workspace: vscode.ConfigurationTarget.Workspace,
};

export class Settings {
	private readonly machine: string[] = [];
	private readonly others: Record<string, Property> = {};

	constructor(manifest: { contributes: { configuration: { properties: Record<string, Property> } } }) {
		for (const [key, property] of Object.entries(manifest.contributes.configuration.properties)) {
			const name = key.slice(SECTION.length + 1);
			if (name.startsWith('server.')) {
				continue; // the extension's own
			}
			if (property.scope === 'machine') {
				this.machine.push(name);
			} else {
				this.others[name] = property;
			}
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

	/** Those of them that `starfill doctor` has too, so that it examines what is in use. */
	get doctorFlags(): string[] {
		return machineFlags(OF_THE_ENGINE, this.inspect);
	}

	/** What is sent to the server. */
	get sent(): Record<string, unknown> {
		return editorSettings(this.others, this.inspect);
	}

	/** All that a server is started with. What a workspace sets is not among it, so that it cannot even restart one. */
	get launch(): string {
		return JSON.stringify([this.executable, this.flags]);
	}

	/** Whether anything is completed at all. */
	get enabled(): boolean {
		return this.sent['enabled'] !== false;
	}

	/** Whether a language is completed, as far as that is said of languages. */
	speaks(language: string): boolean {
		const languages = (this.sent['languages'] ?? {}) as Record<string, boolean>;
		return languages[language] ?? languages['*'] ?? true;
	}

	/** What is switched off for a document, in words; undefined if nothing is. */
	off(document: vscode.TextDocument | undefined): string | undefined {
		if (!this.enabled) {
			return 'switched off';
		}
		if (document !== undefined && !this.speaks(document.languageId)) {
			return `switched off for ${document.languageId}`;
		}
		return this.sent['trigger'] === 'manual' ? 'only when asked for' : undefined;
	}

	/** Switch completions on or off, in the user's settings or in the workspace's if those decide. */
	async toggle(): Promise<void> {
		const target = TARGETS[decides(this.property('enabled'), this.inspect('enabled'))];
		await vscode.workspace.getConfiguration(SECTION).update('enabled', !this.enabled, target);
	}

	/** Switch one language on or off, where it is decided. */
	async toggleLanguage(language: string): Promise<void> {
		const found = this.inspect('languages');
		const source = decides(this.property('languages'), found, language);
		const table = withEntry(found, source, language, !this.speaks(language));
		await vscode.workspace.getConfiguration(SECTION).update('languages', table, TARGETS[source]);
	}

	/** Choose the model, for the user; undefined is the one that starfill comes with. */
	async chooseModel(model: string | undefined): Promise<void> {
		await vscode.workspace.getConfiguration(SECTION).update('model', model, vscode.ConfigurationTarget.Global);
	}

	private property(name: string): Property {
		return this.others[name] ?? {};
	}

	private readonly inspect: Inspect = (name) => vscode.workspace.getConfiguration(SECTION).inspect(name);
}
