// The starfill program, run with other arguments than the server's.

import { execFile, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import * as vscode from 'vscode';

const run = promisify(execFile);
const RUN_MS = 60_000;

/** What it prints when it is run with some arguments; undefined if there is no program. */
export async function output(program: string | undefined, args: string[], timeout = RUN_MS): Promise<string | undefined> {
	if (program === undefined) {
		void vscode.window.showWarningMessage('starfill: the program was not found');
		return undefined;
	}
	try {
		return (await run(program, args, { timeout })).stdout;
	} catch (error) {
		// A doctor with findings ends with an exit code; what it found is on its output.
		const { stdout, message } = error as { stdout?: string; message: string };
		return stdout || message;
	}
}

/** Run it and hear its output line by line -> what it complained of last, undefined if it ended well. Cancelling interrupts it. */
export function lines(
	program: string,
	args: string[],
	onLine: (line: string) => void,
	token: vscode.CancellationToken,
): Promise<string | undefined> {
	const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
	const cancelling = token.onCancellationRequested(() => child.kill('SIGINT'));
	let complaint = '';
	createInterface(child.stdout).on('line', onLine);
	createInterface(child.stderr).on('line', (line) => {
		complaint = line.trim() || complaint;
	});
	return new Promise((resolve) => {
		child.on('error', (error) => resolve(error.message));
		child.on('close', (code) => {
			cancelling.dispose();
			resolve(code === 0 ? undefined : complaint || `it ended with code ${code}`);
		});
	});
}
