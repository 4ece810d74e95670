// Where the server is, and what to do when it is nowhere.

import { execFile } from 'node:child_process';
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import * as vscode from 'vscode';

const NAME = process.platform === 'win32' ? 'starfill.exe' : 'starfill';

/** Folders in which installers put programs, and which a desktop's PATH often lacks. */
const USUAL = [path.join(os.homedir(), '.local', 'bin'), '/opt/homebrew/bin', '/usr/local/bin'];

async function isExecutable(file: string): Promise<boolean> {
	try {
		await fs.access(file, fs.constants.X_OK);
		return (await fs.stat(file)).isFile();
	} catch {
		return false;
	}
}

/** The program to run: the one that the user names, or the first on PATH and in the usual folders. */
export async function findExecutable(named: string | undefined): Promise<string | undefined> {
	if (named !== undefined) {
		const file = named.startsWith('~/') ? path.join(os.homedir(), named.slice(2)) : named;
		return path.isAbsolute(file) && (await isExecutable(file)) ? file : undefined;
	}
	for (const folder of [...(process.env.PATH ?? '').split(path.delimiter), ...USUAL]) {
		// A relative entry of PATH would be looked up in whatever folder is open.
		if (path.isAbsolute(folder) && (await isExecutable(path.join(folder, NAME)))) {
			return path.join(folder, NAME);
		}
	}
	return undefined;
}

function exists(program: string): Promise<boolean> {
	return new Promise((resolve) => execFile(program, ['--version'], { timeout: 5000 }, (error) => resolve(!error)));
}

/** Tell that the server is missing, and offer to install it in a terminal that the user sees. */
export async function offerInstallation(named: string | undefined): Promise<void> {
	if (named !== undefined) {
		const open = 'Open Settings';
		const message = `starfill: "${named}" is no program; correct starfill.server.path (an absolute path) or clear it.`;
		if ((await vscode.window.showErrorMessage(message, open)) === open) {
			await vscode.commands.executeCommand('workbench.action.openSettings', 'starfill.server.path');
		}
		return;
	}
	const install = 'Install';
	const message = 'starfill is not installed on this machine. Install it with uv or pipx?';
	if ((await vscode.window.showInformationMessage(message, install)) !== install) {
		return;
	}
	const terminal = vscode.window.createTerminal('starfill');
	terminal.show();
	terminal.sendText((await exists('uv')) ? 'uv tool install starfill' : 'pipx install starfill');
	const restart = 'Start starfill';
	if ((await vscode.window.showInformationMessage('When the installation has ended:', restart)) === restart) {
		await vscode.commands.executeCommand('starfill.restart');
	}
}
