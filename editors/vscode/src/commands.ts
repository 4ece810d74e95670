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
		'starfill.switchModel': () => switchModel(server, settings),
		'starfill.rewriteSelection': () => rewriteSelection(server),
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

async function showDoctor(server: Server): Promise<void> {
	const text = await output(server, ['doctor']);
	if (text !== undefined) {
		await showText(text, 'plaintext');
	}
}

/** What of a model `starfill models list --json` says here. */
interface Model {
	id: string;
	precision?: string | null;
	fits?: boolean;
	why?: string | null;
}

interface ModelChoice extends vscode.QuickPickItem {
	model?: string;
}

async function switchModel(server: Server, settings: Settings): Promise<void> {
	const starter: ModelChoice = { label: 'starfill-starter', description: 'the model that starfill comes with' };
	const folder: ModelChoice = { label: '$(folder) A folder…', description: 'config.json, tokenizer.json, safetensors' };
	const more: ModelChoice = { label: '$(cloud-download) Get another one…', description: 'starfill models pull' };
	const separator: ModelChoice = { label: '', kind: vscode.QuickPickItemKind.Separator };
	const chosen = await pick(`now: ${settings.model ?? starter.label}`, (models) => [starter, ...models, separator, folder, more], server);
	if (chosen === folder) {
		const folders = await vscode.window.showOpenDialog({ canSelectFolders: true, canSelectFiles: false, openLabel: 'Use' });
		if (folders?.[0] !== undefined) {
			await settings.chooseModel(folders[0].fsPath);
		}
	} else if (chosen === more) {
		const terminal = vscode.window.createTerminal('starfill');
		terminal.show();
		terminal.sendText(`"${server.executable ?? 'starfill'}" models list`);
	} else if (chosen !== undefined) {
		await settings.chooseModel(chosen.model);
	}
}

/** Ask for a model; those that were downloaded join the choices as soon as the program has said which they are. */
function pick(
	placeholder: string,
	among: (models: ModelChoice[]) => ModelChoice[],
	server: Server,
): Promise<ModelChoice | undefined> {
	const box = vscode.window.createQuickPick<ModelChoice>();
	box.title = 'Which model completes?';
	box.placeholder = placeholder;
	box.items = among([]);
	box.busy = true;
	void modelsHere(server).then((models) => {
		box.items = among(models);
		box.busy = false;
	});
	return new Promise((resolve) => {
		box.onDidAccept(() => {
			resolve(box.selectedItems[0]);
			box.hide();
		});
		box.onDidHide(() => {
			resolve(undefined);
			box.dispose();
		});
		box.show();
	});
}

/** Models that were downloaded; none if the program cannot say. */
async function modelsHere(server: Server): Promise<ModelChoice[]> {
	try {
		const models = JSON.parse((await output(server, ['models', 'list', '--here', '--json'])) ?? '[]') as Model[];
		return models.map(({ id, precision, fits, why }) => ({
			label: id,
			description: fits === false ? (why ?? 'does not fit') : (precision ?? ''),
			model: id,
		}));
	} catch {
		return [];
	}
}

async function showText(content: string, language: string): Promise<void> {
	const document = await vscode.workspace.openTextDocument({ content, language });
	await vscode.window.showTextDocument(document, { preview: true });
}

/** What the program prints when it is run with some arguments; undefined if there is no program. */
async function output(server: Server, args: string[]): Promise<string | undefined> {
	if (server.executable === undefined) {
		void vscode.window.showWarningMessage('starfill: the program was not found');
		return undefined;
	}
	try {
		return (await run(server.executable, args, { timeout: RUN_MS })).stdout;
	} catch (error) {
		// A doctor with findings ends with an exit code; what it found is on its output.
		const { stdout, message } = error as { stdout?: string; message: string };
		return stdout || message;
	}
}
