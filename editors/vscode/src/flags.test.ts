import assert from 'node:assert/strict';
import test from 'node:test';

import manifest from '../package.json';
import { editorSettings, flag, machineFlags, snakeCase } from './flags';
import { decides, type Inspected, type Property, withEntry } from './layers';

const inspecting = (values: Record<string, Inspected>) => (name: string) => values[name];

const declared = manifest.contributes.configuration.properties as unknown as Record<string, Property>;

function property(name: string): Property {
	const found = declared[`starfill.${name}`];
	assert.ok(found, name);
	return found;
}

/** What is sent where these settings are made. */
function sent(values: Record<string, Inspected>): Record<string, unknown> {
	return editorSettings(Object.fromEntries(Object.keys(values).map((name) => [name, property(name)])), inspecting(values));
}

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
	const found = sent({ maxTokens: { globalValue: 32, workspaceValue: 16 }, enabled: { globalValue: true, workspaceValue: false }, trigger: {} });
	assert.deepEqual(found, { max_tokens: 16, enabled: false });
});

test('a workspace adds to what the user excludes, and takes nothing away', () => {
	const mine = ['**/secrets/**', '*.key'];
	assert.deepEqual(sent({ exclude: { globalValue: mine, workspaceValue: [] } }), { exclude: mine });
	assert.deepEqual(sent({ exclude: { globalValue: mine, workspaceValue: ['*.key', 'a'] } }), { exclude: [...mine, 'a'] });
});

test('what a workspace sets wrongly does not cost the user theirs', () => {
	for (const wrong of ['x', 7, {}, null, false, [''], [7], ['!**'], ['a\nb'], ['# a'], [' / '], ['x'.repeat(1001)]]) {
		assert.deepEqual(sent({ exclude: { globalValue: ['*.key'], workspaceValue: wrong } }), { exclude: ['*.key'] });
	}
	for (const wrong of ['x', 7, [], null, { rust: 'no' }]) {
		assert.deepEqual(sent({ languages: { globalValue: { go: false }, workspaceValue: wrong } }), { languages: { go: false } });
	}
	for (const wrong of ['off', 1, [], {}]) {
		assert.deepEqual(sent({ enabled: { globalValue: false, workspaceValue: wrong } }), { enabled: false });
	}
	assert.deepEqual(sent({ trigger: { globalValue: 'manual', workspaceValue: 'never' } }), { trigger: 'manual' });
	for (const wrong of [0, 1025, 1.5, '16', true]) {
		assert.deepEqual(sent({ maxTokens: { globalValue: 32, workspaceValue: wrong } }), { max_tokens: 32 });
	}
	for (const wrong of [-1, 101, 'none', true]) {
		assert.deepEqual(sent({ minConfidence: { globalValue: 'auto', workspaceValue: wrong } }), { min_confidence: 'auto' });
	}
});

test('what the user sets wrongly is sent, for the server to name', () => {
	assert.deepEqual(sent({ maxTokens: { globalValue: 0 } }), { max_tokens: 0 });
});

test('languages add up, and the workspace wins name by name', () => {
	const values = { globalValue: { markdown: false, '*': false }, workspaceValue: { markdown: true, python: true } };
	assert.deepEqual(sent({ languages: values }), { languages: { markdown: true, python: true, '*': false } });
});

test('a switch is thrown where it is decided', () => {
	const enabled = property('enabled');
	assert.equal(decides(enabled, { globalValue: false }), 'user');
	assert.equal(decides(enabled, { globalValue: false, workspaceValue: true }), 'workspace');
	assert.equal(decides(enabled, { workspaceValue: 'yes' }), 'user');
	const languages = property('languages');
	const found = { globalValue: { go: false }, workspaceValue: { rust: false, c: 'no' } };
	assert.equal(decides(languages, found, 'go'), 'user');
	assert.equal(decides(languages, found, 'rust'), 'workspace');
	assert.equal(decides(languages, found, 'c'), 'user');
});

test('a language is written among those of one source alone', () => {
	const found = { globalValue: { go: false }, workspaceValue: { rust: false } };
	assert.deepEqual(withEntry(found, 'user', 'python', false), { go: false, python: false });
	assert.deepEqual(withEntry(found, 'workspace', 'rust', true), { rust: true });
	assert.deepEqual(withEntry(undefined, 'user', 'python', false), { python: false });
});

test('every setting that a workspace may set is one of all of a window', () => {
	const scopes = new Set(Object.values(declared).map(({ scope }) => scope));
	assert.deepEqual(scopes, new Set(['machine', 'window']));
});
