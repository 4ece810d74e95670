// starfill in VS Code: a language client, a status bar, commands.

import * as vscode from 'vscode';

import { registerCommands } from './commands';
import { Server } from './server';
import { SECTION, Settings } from './settings';
import { StatusBar } from './status';

let server: Server | undefined;

export async function activate(context: vscode.ExtensionContext): Promise<void> {
	const log = vscode.window.createOutputChannel('starfill', { log: true });
	const settings = new Settings(context.extension.packageJSON);
	const bar = new StatusBar();
	server = new Server(settings, bar, log, context.globalState);
	let { launch } = settings;
	const look = () => bar.switched(settings.off(vscode.window.activeTextEditor?.document));
	look();
	context.subscriptions.push(
		log,
		bar,
		...registerCommands(server, settings, bar),
		vscode.window.onDidChangeActiveTextEditor(look),
		vscode.workspace.onDidChangeConfiguration(async (event) => {
			look();
			if (settings.launch !== launch) {
				launch = settings.launch;
				await server?.restart();
			} else if (event.affectsConfiguration(SECTION)) {
				await server?.configure();
			}
		}),
	);
	await server.start();
}

export async function deactivate(): Promise<void> {
	await server?.stop();
}
