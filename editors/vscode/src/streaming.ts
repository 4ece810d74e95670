// Ghost text before the model has finished.
//
// VS Code takes one answer to a request. So the request is answered as soon as its first line stands, and the editor is
// made to ask again when all of it is there, and gets that.

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
	/** All of a text whose first line is shown, for when the editor is made to ask again. */
	private kept: { place: Place; items: InlineCompletionItem[] } | undefined;
	/** The user asks, though the editor will say that it does by itself. */
	private invoking = false;
	private underWay = 0;
	/** Where the editor was last answered with one text alone, and would ask for no other because it was by hand. */
	private single: Place | undefined;
	/** Where others have been asked for, so that there are no more to ask for. */
	private exhausted: Place | undefined;

	/** Ask now, as if by hand. */
	async trigger(): Promise<void> {
		// After a request by hand the editor asks for no other candidates here; after one of its own it does.
		if (this.underWay === 0) {
			this.invoking = true;
			await vscode.commands.executeCommand(TRIGGER, { explicit: false });
			if (!this.invoking) {
				return;
			}
			this.invoking = false; // it had an answer already
		}
		await vscode.commands.executeCommand(TRIGGER);
	}

	/** Show another candidate, by the editor's own `command`, which asks for them unless its last request here was by hand. */
	async cycle(command: string): Promise<void> {
		if (this.single !== undefined && stands(this.single)) {
			this.exhausted = this.single;
			await vscode.commands.executeCommand(HIDE);
			await vscode.commands.executeCommand(TRIGGER);
		}
		await vscode.commands.executeCommand(command);
	}

	/** Answers `textDocument/inlineCompletion` in place of the library's own way. */
	async provide(
		client: BaseLanguageClient,
		document: vscode.TextDocument,
		position: vscode.Position,
		context: vscode.InlineCompletionContext,
		token: vscode.CancellationToken,
	): Promise<vscode.InlineCompletionItem[] | vscode.InlineCompletionList | undefined | null> {
		const place: Place = { document, version: document.version, position, selected: context.selectedCompletionInfo?.text };
		const explicit = context.triggerKind === vscode.InlineCompletionTriggerKind.Invoke;
		const { kept, invoking } = this;
		this.kept = undefined;
		this.invoking = false;
		if (kept !== undefined && same(place, kept.place)) {
			// Our own doing, not a user who asks for other candidates.
			return this.answer(client, kept.items, place, explicit, token);
		}
		this.underWay += 1;
		try {
			const items = await this.ask(client, place, context, invoking, token);
			return token.isCancellationRequested ? null : await this.answer(client, items, place, explicit, token);
		} finally {
			this.underWay -= 1;
		}
	}

	private answer(
		client: BaseLanguageClient,
		items: InlineCompletionItem[],
		place: Place,
		explicit: boolean,
		token: vscode.CancellationToken,
	): Promise<vscode.InlineCompletionItem[] | vscode.InlineCompletionList | undefined | null> {
		const again = this.exhausted !== undefined && same(place, this.exhausted);
		this.single = explicit && items.length === 1 && !again ? place : undefined;
		return client.protocol2CodeConverter.asInlineCompletionResult({ items }, token);
	}

	/** The server's answer, or its first line as soon as that stands. */
	private ask(
		client: BaseLanguageClient,
		place: Place,
		context: vscode.InlineCompletionContext,
		invoking: boolean,
		token: vscode.CancellationToken,
	): Promise<InlineCompletionItem[]> {
		const partialResultToken = `starfill-${++this.tokens}`;
		const asked = client.code2ProtocolConverter.asInlineCompletionParams(place.document, place.position, context);
		const params = { ...asked, partialResultToken };
		if (invoking) {
			params.context.triggerKind = InlineCompletionTriggerKind.Invoked;
		}
		// The editor cancels what it has an answer to; the model is to go on all the same when that was only the first line.
		const stop = new vscode.CancellationTokenSource();
		const cancelling = token.onCancellationRequested(() => shown === undefined && stop.cancel());
		let shown: string | undefined;
		let listening: vscode.Disposable | undefined;
		const early = new Promise<InlineCompletionItem[]>((resolve) => {
			listening = client.onProgress(PARTIAL, partialResultToken, ({ items }) => {
				const whole = wholeLines(items);
				if (whole !== undefined && shown === undefined) {
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
		const retrigger = final.then(async (items) => {
			const more = shown !== undefined && items[0] !== undefined && textOf(items[0]).length > shown.length;
			if (more && stands(place)) {
				this.kept = { place, items };
				// What is shown would stay the first choice otherwise.
				await vscode.commands.executeCommand(HIDE);
				// By hand it comes without the editor's delay, in which nothing is shown.
				await vscode.commands.executeCommand(TRIGGER, { explicit: !invoking });
			}
		});
		retrigger.catch(() => undefined); // the race below reports it
		return Promise.race([final, early]);
	}
}

interface Place {
	document: vscode.TextDocument;
	version: number;
	position: vscode.Position;
	/** The entry of the completion menu that the text goes on from. */
	selected: string | undefined;
}

function same(one: Place, other: Place): boolean {
	return (
		one.document === other.document &&
		one.version === other.version &&
		one.position.isEqual(other.position) &&
		one.selected === other.selected
	);
}

/** Whether the cursor is still where a request was made, in the text that it was made for. */
function stands({ document, version, position }: Place): boolean {
	const editor = vscode.window.activeTextEditor;
	return editor?.document === document && document.version === version && editor.selection.active.isEqual(position);
}
