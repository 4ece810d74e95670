// Which model completes: chosen from those that are here, or brought here.

import * as vscode from 'vscode';

import { lines, output } from './program';
import type { Server } from './server';
import type { Settings } from './settings';

/** What of a model `starfill models list --json` says here. */
interface Model {
	id: string;
	here?: boolean;
	parameters?: number | null;
	licences?: string[];
	gated?: boolean | null;
	precision?: string | null;
	fits?: boolean;
	why?: string | null;
}

interface ModelChoice extends vscode.QuickPickItem {
	model?: string;
}

export async function switchModel(server: Server, settings: Settings): Promise<void> {
	const starter: ModelChoice = { label: 'starfill-starter', description: 'the model that starfill comes with' };
	const folder: ModelChoice = { label: '$(folder) A folder…', description: 'config.json, tokenizer.json, safetensors' };
	const more: ModelChoice = { label: '$(cloud-download) Download another one…', description: 'the only thing for which the network is used' };
	const separator: ModelChoice = { label: '', kind: vscode.QuickPickItemKind.Separator };
	const chosen = await pick(`now: ${settings.model ?? starter.label}`, (models) => [starter, ...models, separator, folder, more], server);
	if (chosen === folder) {
		const folders = await vscode.window.showOpenDialog({ canSelectFolders: true, canSelectFiles: false, openLabel: 'Use' });
		if (folders?.[0] !== undefined) {
			await settings.chooseModel(folders[0].fsPath);
		}
	} else if (chosen === more) {
		await downloadModel(server, settings);
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

/** Models that were downloaded. */
async function modelsHere(server: Server): Promise<ModelChoice[]> {
	return (await modelsOf(server, ['--here'])).map(({ id, precision, fits, why }) => ({
		label: id,
		description: fits === false ? (why ?? 'does not fit') : (precision ?? ''),
		model: id,
	}));
}

/** What the program lists; none if it cannot say. */
async function modelsOf(server: Server, args: string[]): Promise<Model[]> {
	try {
		return JSON.parse((await output(server.executable, ['models', 'list', '--json', ...args])) ?? '[]') as Model[];
	} catch {
		return [];
	}
}

/** Have a model chosen that is not here, its terms accepted, and bring it here; it is the one that completes then. */
async function downloadModel(server: Server, settings: Settings): Promise<void> {
	const { executable } = server;
	if (executable === undefined) {
		return;
	}
	const choices = modelsOf(server, []).then((models) => models.filter(({ here }) => here === false).map(described));
	const chosen = await vscode.window.showQuickPick(choices, { title: 'Which model is to be downloaded?', matchOnDescription: true });
	if (chosen?.model === undefined) {
		return;
	}
	const id = chosen.model;
	const accept = 'Accept and Download';
	const detail = await termsOf(executable, id);
	if ((await vscode.window.showInformationMessage(`${id} comes under these terms.`, { modal: true, detail }, accept)) !== accept) {
		return;
	}
	const options = { location: vscode.ProgressLocation.Notification, title: `starfill downloads ${id}`, cancellable: true };
	const complaint = await vscode.window.withProgress(options, (progress, token) => {
		let before = 0;
		const hear = (line: string) => {
			const { done, total } = parsed<{ done?: number; total?: number }>(line);
			if (done !== undefined && total !== undefined && total > 0) {
				const percent = Math.floor((100 * done) / total);
				progress.report({ increment: percent - before, message: `${percent} % of ${gibibytes(total)}` });
				before = percent;
			}
		};
		return lines(executable, ['models', 'pull', id, '--accept-licence', '--json'], hear, token);
	});
	if (complaint === undefined) {
		await settings.chooseModel(id);
	} else {
		void vscode.window.showErrorMessage(`starfill: ${complaint.replace(/^starfill: /, '')}`);
	}
}

function described({ id, parameters, precision, fits, licences, gated }: Model): ModelChoice {
	const size = parameters === undefined || parameters === null ? '' : `${(parameters / 1e9).toFixed(1)} B parameters, `;
	const fit = fits === true ? `fits in ${precision}` : 'does not fit this machine';
	const gate = gated === true ? ', its page must be agreed to first' : '';
	return { label: id, description: `${size}${fit}, ${(licences ?? []).join(' + ')}${gate}`, model: id };
}

async function termsOf(executable: string, id: string): Promise<string> {
	const { terms } = parsed<{ terms?: string | null }>((await output(executable, ['models', 'show', id, '--json'])) ?? '');
	return terms ?? 'They are not known; read them on its page.';
}

function parsed<T extends object>(text: string): Partial<T> {
	try {
		return JSON.parse(text) as T;
	} catch {
		return {};
	}
}

function gibibytes(bytes: number): string {
	return bytes < 2 ** 30 ? `${(bytes / 2 ** 20).toFixed(1)} MiB` : `${(bytes / 2 ** 30).toFixed(1)} GiB`;
}
