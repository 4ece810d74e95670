// What the model answers to a code action that is no edit: a document of its own, beside the code.

import * as vscode from 'vscode';

export interface Answer {
	task: string;
	text: string;
	done: boolean;
	reason?: string;
	message?: string;
}

const WORDS = new Set(['explain', 'tests']);
/** An edit that did not come to pass is shown, so that it is not lost. */
const LOST = new Set(['outdated', 'not_applied']);
const KNOWN = new Set(['cancelled', 'superseded']);

export async function showAnswer({ task, text, done, reason, message }: Answer): Promise<void> {
	if (!done) {
		return;
	}
	if (message !== undefined && !KNOWN.has(reason ?? '')) {
		void vscode.window.showInformationMessage(`starfill: ${message}`);
	}
	if (text !== '' && (WORDS.has(task) || LOST.has(reason ?? ''))) {
		const document = await vscode.workspace.openTextDocument({ content: text, language: 'markdown' });
		await vscode.window.showTextDocument(document, { viewColumn: vscode.ViewColumn.Beside, preserveFocus: true });
	}
}
