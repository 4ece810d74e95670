// Where the server is, and what to do when it is nowhere.

import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import * as vscode from 'vscode';

const NAME = 'starfill';
const INSTALLERS = [
	['uv', 'tool install starfill'],
	['pipx', 'install starfill'],
] as const;

/** Folders in which installers put programs, and which a desktop's PATH often lacks. */
const USUAL = [path.join(os.homedir(), '.local', 'bin'), '/opt/homebrew/bin', '/usr/local/bin'];

const LOOKS_EVERY_MS = 1000;

async function isExecutable(file: string): Promise<boolean> {
	try {
		await fs.access(file, fs.constants.X_OK);
		return (await fs.stat(file)).isFile();
	} catch {
		return false;
	}
}

function onPath(): string[] {
	return (process.env.PATH ?? '').split(path.delimiter);
}

/** The first program of that name on PATH and in the usual folders. */
async function find(name: string): Promise<string | undefined> {
	const file = process.platform === 'win32' ? `${name}.exe` : name;
	for (const folder of [...onPath(), ...USUAL]) {
		// A relative entry of PATH would be looked up in whatever folder is open.
		if (path.isAbsolute(folder) && (await isExecutable(path.join(folder, file)))) {
			return path.join(folder, file);
		}
	}
	return undefined;
}

/** The program to run: the one that the user names, or the first that is found. */
export async function findExecutable(named: string | undefined): Promise<string | undefined> {
	if (named === undefined) {
		return find(NAME);
	}
	const file = named.startsWith('~/') ? path.join(os.homedir(), named.slice(2)) : named;
	return path.isAbsolute(file) && (await isExecutable(file)) ? file : undefined;
}

/** Tell that the program which the user names is none. */
export async function tellWrongPath(named: string): Promise<void> {
	const open = 'Open Settings';
	const message = `starfill: "${named}" is no program; correct starfill.server.path (an absolute path) or clear it.`;
	if ((await vscode.window.showErrorMessage(message, open)) === open) {
		await openSetting();
	}
}

/** What became of an offer to install the server. */
export type Installation = 'there' | 'not now' | 'never';

/** Tell that there is no server, and by which command it would be installed; run that in a terminal that the user sees. */
export async function offerInstallation(): Promise<Installation> {
	const command = await installation();
	const never = "Don't Ask Again";
	if (command === undefined) {
		const open = 'Open Settings';
		const message =
			'starfill is not installed on this machine, nor are uv or pipx, which would install it. ' +
			'Install one of them, or name the program in starfill.server.path.';
		const chosen = await vscode.window.showWarningMessage(message, open, 'Not Now', never);
		if (chosen === open) {
			await openSetting();
		}
		return chosen === never ? 'never' : 'not now';
	}
	const install = 'Install';
	const message = `starfill is not installed on this machine. Install it by "${command}", in a terminal?`;
	const chosen = await vscode.window.showInformationMessage(message, install, 'Not Now', never);
	if (chosen !== install) {
		return chosen === never ? 'never' : 'not now';
	}
	const terminal = vscode.window.createTerminal('starfill');
	terminal.show();
	terminal.sendText(command);
	return (await installed(terminal)) ? 'there' : 'not now';
}

/** The command that installs the server with what there is to install it. */
async function installation(): Promise<string | undefined> {
	for (const [program, rest] of INSTALLERS) {
		const file = await find(program);
		if (file !== undefined) {
			// The shell of the terminal may not look where we have.
			const name = onPath().includes(path.dirname(file)) ? program : file.includes(' ') ? `'${file}'` : file;
			return `${name} ${rest}`;
		}
	}
	return undefined;
}

/** Wait until the server is there -> whether it is, or the user has closed the terminal or does not want to wait. */
async function installed(terminal: vscode.Terminal): Promise<boolean> {
	const options = {
		location: vscode.ProgressLocation.Notification,
		title: 'starfill starts when the installation in the terminal has ended',
		cancellable: true,
	};
	return vscode.window.withProgress(options, async (_, token) => {
		while (!token.isCancellationRequested && terminal.exitStatus === undefined) {
			if ((await find(NAME)) !== undefined) {
				return true;
			}
			await new Promise((resolve) => setTimeout(resolve, LOOKS_EVERY_MS));
		}
		return false;
	});
}

function openSetting(): Thenable<unknown> {
	return vscode.commands.executeCommand('workbench.action.openSettings', 'starfill.server.path');
}
