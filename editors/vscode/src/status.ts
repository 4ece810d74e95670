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
		const loading = this.status.reason === 'loading';
		const kind = this.off === undefined || this.status.kind === 'Error' ? this.status.kind : 'Inactive';
		this.item.text = `${busy || loading ? '$(loading~spin)' : ICONS[kind]} starfill${loading ? ': loading' : ''}`;
		this.item.tooltip = `starfill: ${this.line}\nClick for the menu.`;
		this.item.backgroundColor =
			kind === 'Error' ? new vscode.ThemeColor('statusBarItem.errorBackground') : undefined;
		this.item.accessibilityInformation = { label: `starfill: ${busy ? 'working' : this.line}` };
	}
}
