// What holds where both the user and a workspace set something: as the server has it among its own sources, each adds to the
// one before. A workspace takes nothing away from the user's own lists and tables, whatever it writes.

/** As much of a setting's JSON schema as there is in the manifest. */
export interface Property {
	type?: string | readonly string[];
	scope?: string;
	enum?: readonly unknown[];
	minimum?: number;
	maximum?: number;
	maxLength?: number;
	pattern?: string;
	items?: Property;
	additionalProperties?: Property;
}

export interface Inspected {
	globalValue?: unknown;
	workspaceValue?: unknown;
}

export type Inspect = (name: string) => Inspected | undefined;

export type Table = Record<string, unknown>;

export type Source = 'user' | 'workspace';

const TYPES: Record<string, (value: unknown) => boolean> = {
	string: (value) => typeof value === 'string',
	boolean: (value) => typeof value === 'boolean',
	integer: (value) => Number.isInteger(value),
	array: (value) => Array.isArray(value),
	object: isTable,
	null: (value) => value === null,
};

function isTable(value: unknown): value is Table {
	return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Whether a value is one that the server takes. */
export function fits(property: Property, value: unknown): boolean {
	const { enum: words, minimum, maximum, maxLength, pattern } = property;
	const types = property.type === undefined ? [] : [property.type].flat();
	if (types.length > 0 && !types.some((type) => TYPES[type]?.(value))) {
		return false;
	}
	if (typeof value === 'number') {
		return value >= (minimum ?? value) && value <= (maximum ?? value);
	}
	if (typeof value === 'string') {
		return (pattern === undefined || new RegExp(pattern).test(value)) && value.length <= (maxLength ?? value.length) && (words?.includes(value) ?? true);
	}
	return true;
}

/** What is in force of one setting; undefined if nobody sets it. A value that is none at all is left to the server to name. */
export function inForce(property: Property, found: Inspected | undefined): unknown {
	const layers = [found?.globalValue, found?.workspaceValue].filter((value) => value !== undefined && value !== null);
	const good = layers.filter((value) => fits(property, value));
	if (good.length === 0) {
		return layers[0];
	}
	const { items, additionalProperties: entries } = property;
	if (items !== undefined) {
		return [...new Set((good as unknown[][]).flat().filter((item) => fits(items, item)))];
	}
	if (entries !== undefined) {
		const all = (good as Table[]).flatMap((table) => Object.entries(table));
		return Object.fromEntries(all.filter(([, value]) => fits(entries, value)));
	}
	return good.at(-1);
}

/** Whose value of a setting is in force, or whose entry of a table: a switch has to be thrown there to do anything. */
export function decides(property: Property, found: Inspected | undefined, entry?: string): Source {
	const value = found?.workspaceValue;
	if (value === undefined || value === null || !fits(property, value)) {
		return 'user';
	}
	if (entry === undefined) {
		return 'workspace';
	}
	const table = value as Table;
	return Object.hasOwn(table, entry) && fits(property.additionalProperties ?? {}, table[entry]) ? 'workspace' : 'user';
}

/** What one source sets itself, with one more entry: never what the other one sets. */
export function withEntry(found: Inspected | undefined, source: Source, entry: string, value: unknown): Table {
	const own = source === 'workspace' ? found?.workspaceValue : found?.globalValue;
	return { ...(isTable(own) ? own : {}), [entry]: value };
}
