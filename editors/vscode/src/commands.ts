// What the user can ask for by name.

import * as vscode from 'vscode';

import { switchModel } from './models';
import { output } from './program';
import type { Server } from './server';
import type { Settings } from './settings';
import type { StatusBar } from './status';

/** The doctor itself gives each of two looks at a driver that may hang two minutes. */
const DOCTOR_MS = 300_000;

interface Choice extends vscode.QuickPickItem {
	command: string;
}

export function registerCommands(server: Server, settings: Settings, bar: StatusBar): vscode.Disposable[] {
	const commands: Record<string, () => unknown> = {
		'starfill.toggle': async () => {
			await settings.toggle();
			say(`completions are ${onOff(settings.enabled)}`);
		},
		'starfill.toggleLanguage': async () => {
			const language = vscode.window.activeTextEditor?.document.languageId;
			if (language === undefined) {
				return say('open a file to switch its language');
			}
			await settings.toggleLanguage(language);
			const all = settings.enabled ? '' : ', but all completions are off';
			return say(`completions for ${language} are ${onOff(settings.speaks(language))}${all}`);
		},
		'starfill.trigger': () => server.streaming.trigger(),
		'starfill.next': () => server.streaming.cycle('editor.action.inlineSuggest.showNext'),
		'starfill.previous': () => server.streaming.cycle('editor.action.inlineSuggest.showPrevious'),
		'starfill.switchModel': () => switchModel(server, settings),
		'starfill.rewriteSelection': () => rewriteSelection(server),
		'starfill.showStatus': () => showStatus(server, bar),
		'starfill.doctor': () => showDoctor(server, settings),
		'starfill.log': () => server.log.show(),
		'starfill.restart': () => server.restart(true),
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

/** The other code actions stand in the editor's own menu; this one needs words. */
async function rewriteSelection(server: Server): Promise<void> {
	const editor = vscode.window.activeTextEditor;
	if (editor === undefined) {
		return say('open a file to rewrite something in it');
	}
	const instruction = await vscode.window.showInputBox({ title: 'Rewrite as told', prompt: 'What is to be done with the selected lines?' });
	if (instruction !== undefined && instruction.trim() !== '') {
		await server.rewrite(editor.document.uri, editor.selection, instruction);
	}
}

async function showStatus(server: Server, bar: StatusBar): Promise<void> {
	const status = await server.describe();
	await showText(JSON.stringify({ message: bar.line, ...(status as object | undefined) }, null, 2), 'json');
}

async function showDoctor(server: Server, settings: Settings): Promise<void> {
	const examining = output(server.executable, ['doctor', ...settings.doctorFlags], DOCTOR_MS);
	vscode.window.setStatusBarMessage('starfill: looking at everything', examining);
	const text = await examining;
	if (text !== undefined) {
		await showText(text, 'plaintext');
	}
}

async function showText(content: string, language: string): Promise<void> {
	const document = await vscode.workspace.openTextDocument({ content, language });
	await vscode.window.showTextDocument(document, { preview: true });
}
