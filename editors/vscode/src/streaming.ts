// Ghost text before the model has finished.
//
// VS Code takes one answer to a request. So the request is answered as soon as its first line stands, and the editor is
// made to ask again when all of it is there: the server has the longer text at hand then, and asks no model.

import * as vscode from 'vscode';
import {
	type BaseLanguageClient,
	InlineCompletionRequest,
	InlineCompletionTriggerKind,
	type InlineCompletionItem,
	type InlineCompletionList,
	ProgressType,
} from 'vscode-languageclient/node';

type Items = InlineCompletionItem[] | InlineCompletionList | null;

const PARTIAL = new ProgressType<InlineCompletionList>();
const HIDE = 'editor.action.inlineSuggest.hide';
const TRIGGER = 'editor.action.inlineSuggest.trigger';

function itemsOf(found: Items): InlineCompletionItem[] {
	return found === null ? [] : Array.isArray(found) ? found : found.items;
}

function textOf(item: InlineCompletionItem): string {
	return typeof item.insertText === 'string' ? item.insertText : item.insertText.value;
}

/** The first item up to the end of its last whole line; undefined while there is none. */
function wholeLines(items: InlineCompletionItem[]): InlineCompletionItem | undefined {
	const first = items[0];
	if (first === undefined) {
		return undefined;
	}
	const text = textOf(first);
	const end = text.lastIndexOf('\n');
	// Ghost text that is blank so far would only flicker.
	return text.slice(0, Math.max(end, 0)).trim() === '' ? undefined : { ...first, insertText: text.slice(0, end).replace(/\r$/, '') };
}

export class Streaming {
	private tokens = 0;
	/** Where the server has all of the text at hand: there is nothing to be early for. */
	private complete: Place | undefined;

	/** Answers `textDocument/inlineCompletion` in place of the library's own way. */
	async provide(
		client: BaseLanguageClient,
		document: vscode.TextDocument,
		position: vscode.Position,
		context: vscode.InlineCompletionContext,
		token: vscode.CancellationToken,
	): Promise<vscode.InlineCompletionItem[] | vscode.InlineCompletionList | undefined | null> {
		const partialResultToken = `starfill-${++this.tokens}`;
		const params = { ...client.code2ProtocolConverter.asInlineCompletionParams(document, position, context), partialResultToken };
		const place: Place = { document, version: document.version, position };
		const awaited = !same(place, this.complete);
		this.complete = undefined;
		if (!awaited) {
			// Our own doing, not a user who asks for other candidates.
			params.context.triggerKind = InlineCompletionTriggerKind.Automatic;
		}
		// The editor cancels what it has an answer to; the model is to go on all the same when that was only the first line.
		const stop = new vscode.CancellationTokenSource();
		const cancelling = token.onCancellationRequested(() => shown === undefined && stop.cancel());
		let shown: string | undefined;
		let listening: vscode.Disposable | undefined;
		const early = new Promise<InlineCompletionItem[]>((resolve) => {
			listening = client.onProgress(PARTIAL, partialResultToken, ({ items }) => {
				const whole = wholeLines(items);
				if (whole !== undefined && shown === undefined && awaited) {
					shown = textOf(whole);
					resolve([whole]);
				}
			});
		});
		const final = client
			.sendRequest(InlineCompletionRequest.type, params, stop.token)
			.then(itemsOf, (error) => itemsOf(client.handleFailedRequest(InlineCompletionRequest.type, stop.token, error, null)))
			.finally(() => {
				listening?.dispose();
				cancelling.dispose();
				stop.dispose();
			});
		const retrigger = final.then((items) => {
			const more = shown !== undefined && items[0] !== undefined && textOf(items[0]).length > shown.length;
			if (more && stands(place)) {
				this.complete = place;
				// What is shown would stay the first choice otherwise.
				void vscode.commands.executeCommand(HIDE).then(() => vscode.commands.executeCommand(TRIGGER));
			}
		});
		retrigger.catch(() => undefined); // the race below reports it
		const items = await Promise.race([final, early]);
		if (token.isCancellationRequested) {
			return null;
		}
		return client.protocol2CodeConverter.asInlineCompletionResult({ items }, token);
	}
}

interface Place {
	document: vscode.TextDocument;
	version: number;
	position: vscode.Position;
}

function same(one: Place, other: Place | undefined): boolean {
	return (
		one.document === other?.document && one.version === other.version && one.position.isEqual(other.position)
	);
}

/** Whether the cursor is still where a request was made, in the text that it was made for. */
function stands({ document, version, position }: Place): boolean {
	const editor = vscode.window.activeTextEditor;
	return editor?.document === document && document.version === version && editor.selection.active.isEqual(position);
}
