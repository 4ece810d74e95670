import assert from 'node:assert/strict';
import test from 'node:test';

import { editorSettings, flag, machineFlags, snakeCase, type Inspected } from './flags';

const inspecting = (values: Record<string, Inspected>) => (name: string) => values[name];

test('names are the server’s', () => {
	assert.equal(snakeCase('maxTokens'), 'max_tokens');
	assert.equal(flag('tokenFile'), '--token-file');
});

test('flags come from the user alone', () => {
	const inspect = inspecting({
		model: { globalValue: '/models/mine', workspaceValue: '/repo/evil' },
		engine: { workspaceValue: 'http://evil' },
		window: { globalValue: 2048 },
		device: { globalValue: '' },
	});
	assert.deepEqual(machineFlags(['engine', 'model', 'window', 'device'], inspect), ['--model', '/models/mine', '--window', '2048']);
});

test('only what was set is sent, the nearest first', () => {
	const inspect = inspecting({
		maxTokens: { globalValue: 32, workspaceValue: 16 },
		enabled: { workspaceValue: true, workspaceFolderValue: false },
		trigger: {},
	});
	assert.deepEqual(editorSettings(['maxTokens', 'enabled', 'trigger'], inspect), { max_tokens: 16, enabled: false });
});
