// The status bar: what the engine is doing, and why nothing came.

import * as vscode from 'vscode';

/** What the server says of itself in `didChangeStatus`. */
export interface ServerStatus {
	kind: 'Normal' | 'Warning' | 'Error' | 'Inactive';
	message: string;
	busy: boolean;
	reason?: string;
}

const ICONS = { Normal: '$(sparkle)', Warning: '$(sparkle)', Error: '$(warning)', Inactive: '$(circle-slash)' };
/** Shorter waits than this would make the item flicker at every key. */
const BUSY_AFTER_MS = 300;
/** Of a message in the bar; the tooltip has all of it. */
const MOST_SIGNS = 70;

export class StatusBar implements vscode.Disposable {
	private readonly item = vscode.window.createStatusBarItem('starfill', vscode.StatusBarAlignment.Right, 100);
	private status: ServerStatus = { kind: 'Inactive', message: 'not started', busy: false };
	private off: string | undefined;
	private timer: NodeJS.Timeout | undefined;

	constructor() {
		this.item.name = 'starfill';
		this.item.command = 'starfill.menu';
		this.draw(false);
		this.item.show();
	}

	show(status: ServerStatus): void {
		this.status = status;
		if (!status.busy) {
			clearTimeout(this.timer);
			this.timer = undefined;
			this.draw(false);
		} else if (this.timer === undefined) {
			this.timer = setTimeout(() => {
				this.timer = undefined;
				this.draw(this.status.busy);
			}, BUSY_AFTER_MS);
		}
	}

	/** Say what is switched off here, if anything is: the server would say so only when it is next asked. */
	switched(off: string | undefined): void {
		if (off !== this.off) {
			this.off = off;
			this.draw(false);
		}
	}

	/** One line for the menu. */
	get line(): string {
		return this.off ?? (this.status.message || 'ready');
	}

	dispose(): void {
		clearTimeout(this.timer);
		this.item.dispose();
	}

	private draw(busy: boolean): void {
		const { message, reason } = this.status;
		const loading = reason === 'loading';
		const kind = this.off === undefined || this.status.kind === 'Error' ? this.status.kind : 'Inactive';
		// Without a reason why nothing is shown, a message is about what is shown: where it stands verbatim.
		const source = kind === 'Normal' && reason === undefined ? message : '';
		const icon = busy || loading ? '$(loading~spin)' : source === '' ? ICONS[kind] : '$(law)';
		const words = loading ? ': loading' : source === '' ? '' : `: ${shortened(source)}`;
		this.item.text = `${icon} starfill${words}`;
		this.item.tooltip = `starfill: ${this.line}\nClick for the menu.`;
		this.item.backgroundColor =
			kind === 'Error' ? new vscode.ThemeColor('statusBarItem.errorBackground') : undefined;
		this.item.accessibilityInformation = { label: `starfill: ${busy && !loading && source === '' ? 'working' : this.line}` };
	}
}

function shortened(text: string): string {
	return text.length > MOST_SIGNS ? `${text.slice(0, MOST_SIGNS - 1)}…` : text;
}
