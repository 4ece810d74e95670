// What the user can ask for by name.

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import * as vscode from 'vscode';

import type { Server } from './server';
import type { Settings } from './settings';
import type { StatusBar } from './status';

const run = promisify(execFile);
const RUN_MS = 60_000;

interface Choice extends vscode.QuickPickItem {
	command: string;
}

export function registerCommands(server: Server, settings: Settings, bar: StatusBar): vscode.Disposable[] {
	const commands: Record<string, () => unknown> = {
		'starfill.toggle': async () => say(`completions are ${onOff(await settings.toggle())}`),
		'starfill.toggleLanguage': async () => {
			const language = vscode.window.activeTextEditor?.document.languageId;
			if (language === undefined) {
				return say('open a file to switch its language');
			}
			return say(`completions for ${language} are ${onOff(await settings.toggleLanguage(language))}`);
		},
		'starfill.trigger': () => vscode.commands.executeCommand('editor.action.inlineSuggest.trigger'),
		'starfill.next': () => vscode.commands.executeCommand('editor.action.inlineSuggest.showNext'),
		'starfill.previous': () => vscode.commands.executeCommand('editor.action.inlineSuggest.showPrevious'),
		'starfill.switchModel': () => switchModel(settings),
		'starfill.showStatus': () => showStatus(server, bar),
		'starfill.doctor': () => showDoctor(server),
		'starfill.log': () => server.log.show(),
		'starfill.restart': () => server.restart(),
		'starfill.menu': () => showMenu(bar),
	};
	return Object.entries(commands).map(([name, command]) => vscode.commands.registerCommand(name, command));
}

function onOff(enabled: boolean): string {
	return enabled ? 'on' : 'off';
}

function say(message: string): void {
	vscode.window.setStatusBarMessage(`starfill: ${message}`, 4000);
}

async function showMenu(bar: StatusBar): Promise<void> {
	const language = vscode.window.activeTextEditor?.document.languageId;
	const choices: Choice[] = [
		{ label: '$(info) Status', description: bar.line, command: 'starfill.showStatus' },
		{ label: '$(circle-slash) Switch completions on or off', command: 'starfill.toggle' },
		...(language === undefined
			? []
			: [{ label: `$(symbol-file) Switch ${language} on or off`, command: 'starfill.toggleLanguage' }]),
		{ label: '$(server) Switch model', command: 'starfill.switchModel' },
		{ label: '$(pulse) Doctor', command: 'starfill.doctor' },
		{ label: '$(output) Log', command: 'starfill.log' },
		{ label: '$(debug-restart) Restart the server', command: 'starfill.restart' },
	];
	const chosen = await vscode.window.showQuickPick(choices, { title: 'starfill' });
	if (chosen !== undefined) {
		await vscode.commands.executeCommand(chosen.command);
	}
}

async function showStatus(server: Server, bar: StatusBar): Promise<void> {
	const status = await server.describe();
	await showText(JSON.stringify({ message: bar.line, ...(status as object | undefined) }, null, 2), 'json');
}

async function showDoctor(server: Server): Promise<void> {
	await withOutput(server, ['doctor'], (text) => showText(text, 'plaintext'));
}

async function switchModel(settings: Settings): Promise<void> {
	const starter: vscode.QuickPickItem = { label: 'starfill-starter', description: 'the model that starfill comes with' };
	const other: vscode.QuickPickItem = { label: 'A folder…', description: 'config.json, tokenizer.json, safetensors' };
	const chosen = await vscode.window.showQuickPick([starter, other], { title: 'Which model completes?' });
	if (chosen === starter) {
		await settings.chooseModel(undefined);
	} else if (chosen === other) {
		const folders = await vscode.window.showOpenDialog({ canSelectFolders: true, canSelectFiles: false, openLabel: 'Use' });
		if (folders?.[0] !== undefined) {
			await settings.chooseModel(folders[0].fsPath);
		}
	}
}

async function showText(content: string, language: string): Promise<void> {
	const document = await vscode.workspace.openTextDocument({ content, language });
	await vscode.window.showTextDocument(document, { preview: true });
}

async function withOutput(server: Server, args: string[], use: (text: string) => Promise<void>): Promise<void> {
	if (server.executable === undefined) {
		void vscode.window.showWarningMessage('starfill: the program was not found');
		return;
	}
	try {
		const { stdout } = await run(server.executable, args, { timeout: RUN_MS });
		await use(stdout);
	} catch (error) {
		// A doctor with findings ends with an exit code; what it found is on its output.
		const { stdout, message } = error as { stdout?: string; message: string };
		await use(stdout || message);
	}
}
