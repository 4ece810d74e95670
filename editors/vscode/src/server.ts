// One language server for this window: started, configured, started anew when its flags change.

import * as vscode from 'vscode';
import { LanguageClient, NotificationType, RevealOutputChannelOn } from 'vscode-languageclient/node';

import { type Answer, showAnswer } from './answers';
import { findExecutable, offerInstallation, tellWrongPath } from './executable';
import { SECTION, type Settings } from './settings';
import type { ServerStatus, StatusBar } from './status';
import { Streaming } from './streaming';

const DID_CHANGE_STATUS = new NotificationType<ServerStatus>('didChangeStatus');
const ANSWER = new NotificationType<Answer>('starfill/answer');
const STOP_MS = 2000;
/** Where it is kept that the user wants no offer to install the server. */
const NO_OFFER = 'noOfferToInstall';

export class Server implements vscode.Disposable {
	private client: LanguageClient | undefined;
	/** Starts and stops one after the other, whatever happens in between. */
	private queue: Promise<void> = Promise.resolve();
	readonly streaming = new Streaming();

	constructor(
		private readonly settings: Settings,
		private readonly bar: StatusBar,
		readonly log: vscode.LogOutputChannel,
		private readonly memory: vscode.Memento,
	) {}

	/** The program that runs, for commands that start it with other arguments. */
	executable: string | undefined;

	start(): Promise<void> {
		return this.enqueue(() => this.doStart());
	}

	stop(): Promise<void> {
		return this.enqueue(() => this.doStop());
	}

	/** `asked`: by the user, who hears again what they did not want to hear unasked. */
	restart(asked = false): Promise<void> {
		return this.enqueue(async () => {
			await this.doStop();
			await this.doStart(asked);
		});
	}

	/** Send the settings that an editor may send. */
	async configure(): Promise<void> {
		await this.client?.sendNotification('workspace/didChangeConfiguration', { settings: { [SECTION]: this.settings.sent } });
	}

	/** What the server says of its last requests; undefined while it does not run. */
	async describe(): Promise<unknown> {
		return this.client?.sendRequest('workspace/executeCommand', { command: 'starfill.status' });
	}

	/** Have a range rewritten; the server has the edit applied, or says why not. */
	async rewrite(document: vscode.Uri, selection: vscode.Range, instruction: string): Promise<void> {
		const { client } = this;
		if (client === undefined) {
			return;
		}
		const { code2ProtocolConverter: convert } = client;
		const argument = { uri: convert.asUri(document), range: convert.asRange(selection), instruction };
		await client.sendRequest('workspace/executeCommand', { command: 'starfill.rewrite', arguments: [argument] });
	}

	dispose(): void {
		void this.stop();
	}

	private enqueue(work: () => Promise<void>): Promise<void> {
		this.queue = this.queue.then(work).catch((error: unknown) => {
			this.bar.show({ kind: 'Error', message: String(error), busy: false });
			this.log.error(String(error));
		});
		return this.queue;
	}

	private async doStart(asked = false): Promise<void> {
		if (this.client !== undefined) {
			return;
		}
		this.executable = await findExecutable(this.settings.executable);
		if (this.executable === undefined) {
			this.bar.show({ kind: 'Error', message: 'the starfill program was not found', busy: false });
			void this.explain(asked);
			return;
		}
		this.bar.show({ kind: 'Inactive', message: 'starting', busy: true });
		const client: LanguageClient = new LanguageClient(
			SECTION,
			'starfill',
			{ command: this.executable, args: ['lsp', ...this.settings.flags] },
			{
				documentSelector: [{ scheme: 'file' }, { scheme: 'untitled' }, { scheme: 'vscode-notebook-cell' }],
				outputChannel: this.log,
				revealOutputChannelOn: RevealOutputChannelOn.Never,
				initializationOptions: { starfill: { ...this.settings.sent, status: true, answers: true } },
				middleware: {
					provideInlineCompletionItems: (document, position, context, token) =>
						this.streaming.provide(client, document, position, context, token),
					// The library would send every default too, and those of machine scope.
					workspace: {
						configuration: ({ items }) => items.map(({ section }) => (section === SECTION ? this.settings.sent : null)),
					},
				},
			},
		);
		let told = false;
		client.onNotification(DID_CHANGE_STATUS, (status) => {
			told = true;
			this.bar.show(status);
		});
		client.onNotification(ANSWER, showAnswer);
		this.client = client;
		await client.start();
		if (!told) {
			this.bar.show({ kind: 'Normal', message: '', busy: false });
		}
	}

	/** Why there is no server, and what can be done about it. */
	private async explain(asked: boolean): Promise<void> {
		if (this.settings.executable !== undefined) {
			return tellWrongPath(this.settings.executable);
		}
		if (this.memory.get(NO_OFFER) === true && !asked) {
			return;
		}
		const installation = await offerInstallation();
		if (installation === 'there') {
			await this.start();
		}
		if (installation !== 'not now') {
			await this.memory.update(NO_OFFER, installation === 'never');
		}
	}

	private async doStop(): Promise<void> {
		const { client } = this;
		this.client = undefined;
		if (client?.needsStop()) {
			await client.dispose(STOP_MS);
		}
		this.bar.show({ kind: 'Inactive', message: 'stopped', busy: false });
	}
}
