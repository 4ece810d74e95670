"""All blocks of a model, and its head, for a few rows: one function each, which all threads of a team run together.

A row's bits depend on its sequence alone: not on the other rows, and not on how many threads there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from llvmlite import ir

from engine.cpu_kernels import attention, choice, embedding, norm, product
from engine.cpu_kernels.attention import PIECE, Heads
from engine.cpu_kernels.embedding import Rows
from engine.cpu_kernels.emit import ADDRESS, INDEX, NOTHING, WORD, Emitter
from engine.cpu_kernels.product import End, Int8Matrix, Matrix

MAX_ROWS = 32
"""Rows of one call."""


class Entry(IntEnum):
    """What the table of 64-bit words holds that a call gets; addresses where nothing else is said.

    After `WEIGHTS` come, for each layer, weight and bias of ln_1, qkv, attn_proj, ln_2, fc and mlp_proj, then those of ln_f
    and the vocabulary. Rows of float32 are `Program.stride` apart, logits as wide as the vocabulary's matrix.
    """

    ROWS = 0  # how many
    RESIDUAL = 1  # float32 rows, changed in place
    SLOTS = 2  # for each row, the address of its slot's keys in the first layer
    POSITIONS = 3  # for each row, its position
    SCRATCH = 4  # see `Program.scratch_bytes`
    PIECES = 5  # pieces of attention that each row has room for
    LAYER_BYTES = 6  # from a layer's keys to the next layer's
    PLANE_BYTES = 7  # from a layer's keys to its values
    IDS = 8  # for each row, its token
    TOKENS = 9  # the embedding of tokens
    TOKEN_SCALES = 10  # of its rows, bfloat16, where they are int8
    PLACES = 11  # the embedding of positions
    HEADS = 12  # how many rows are predicted from
    HEAD_ROWS = 13  # which
    LOGITS = 14  # float32 [rows that are predicted from, width of the vocabulary's matrix]
    CHOSEN = 15  # for each row that is predicted from, the arg-max, and the sum of exp(logit - the greatest) as float32
    BARRIER = 16  # a function without arguments
    THREAD = 17  # a function that says which thread this is
    THREADS = 18  # a function that says how many there are
    WEIGHTS = 19


_PER_LAYER = 12

ENTRANCES = ("blocks", "head", "greedy")


@dataclass(frozen=True, slots=True)
class Program:
    """What is compiled. `brain`: activations are rounded to bfloat16. `eps`: LayerNorm's. `bytes_at_once`: of int8."""

    layers: int
    width: int
    heads: Heads
    eps: float
    gelu: End
    qkv: Matrix
    proj: Matrix
    fc: Matrix
    down: Matrix
    vocabulary: Matrix
    tokens: Rows
    places: Rows
    brain: bool
    tile: int
    bytes_at_once: int

    @property
    def entries(self) -> int:
        """Words in the table."""
        return Entry.WEIGHTS + _PER_LAYER * self.layers + 4

    @property
    def stride(self) -> int:
        """Floats from a row to the next, of residual and scratch alike."""
        matrices = (self.qkv, self.proj, self.fc, self.down)
        return _filled(max(self.width, *(max(matrix.width, matrix.inputs) for matrix in matrices)) + 1)

    @property
    def private(self) -> int:
        """Floats of scratch that each thread has to itself: rows, what int8 makes of them, and attention's."""
        return MAX_ROWS * 2 * self.stride + _filled(MAX_ROWS) + _filled(self.heads.scratch)

    def scratch_bytes(self, pieces: int, threads: int) -> int:
        """What a call needs of zeroed memory, and leaves fit for the next."""
        shared = MAX_ROWS * (2 * self.stride + pieces * self.heads.part)
        return 4 * (shared + threads * self.private)

    def module(self) -> ir.Module:
        """The functions of `ENTRANCES`, each (table): on one thread; and with `_team` in its name, on each of a team's.

        `blocks`: residual to residual; `head`: residual to logits; `greedy`: tokens to the next ones.
        """
        module = ir.Module("starfill")
        writer = _Writer(self, module)
        for name in ENTRANCES:
            e, (table, thread, threads) = Emitter.of(module, f"{name}_on", [ADDRESS, INDEX, INDEX])
            getattr(writer, name)(e, table, thread, threads)
            e.ret_void()
            for suffix in ("", "_team"):
                _entrance(module, name + suffix, e.function, team=bool(suffix))
        return module


def _filled(count: int) -> int:
    return -(-count // 64) * 64


def _entrance(module: ir.Module, name: str, inner: ir.Function, *, team: bool) -> None:
    e, (table,) = Emitter.of(module, name, [ADDRESS])
    numbers = [e.index(0), e.index(1)]
    if team:
        numbers = [e.sext(_called(e, table, entry, WORD), INDEX) for entry in (Entry.THREAD, Entry.THREADS)]
    e.call(inner, [table, *numbers])
    e.ret_void()


class _Writer:
    """Writes the functions; `e` is the builder of the one that is being written."""

    def __init__(self, program: Program, module: ir.Module) -> None:
        self._program = program
        p, brain = program, program.brain
        self._norm = norm.layer_norm(module, p.width, p.eps, brain=brain)
        self._quantise = product.quantise(module)
        self._append = attention.append(module, p.heads)
        self._attend = attention.attend_piece(module, p.heads)
        self._merge = attention.merge_pieces(module, p.heads)
        self._embed = embedding.embed(module, p.tokens, p.places, p.width)
        self._choose = choice.greatest(module, p.vocabulary.outputs)
        self._products = {}
        for name, matrix, end, rounded in (
            ("qkv", p.qkv, End.STORE, brain), ("proj", p.proj, End.ADD, brain), ("fc", p.fc, p.gelu, brain),
            ("down", p.down, End.ADD, brain), ("vocabulary", p.vocabulary, End.STORE, False),
        ):  # fmt: skip
            if isinstance(matrix, Int8Matrix):
                written = product.int8_product(module, name, matrix, end, p.bytes_at_once, brain=rounded)
            else:
                written = product.panel_product(module, name, matrix, end, p.tile, brain=rounded)
            self._products[name] = written

    def greedy(self, e: Emitter, table: ir.Value, thread: ir.Value, threads: ir.Value) -> None:
        """From tokens to the likeliest next ones."""
        call = _Call(e, self._program, table, thread, threads)
        tokens, scales, places = (e.pointer(table, n) for n in (Entry.TOKENS, Entry.TOKEN_SCALES, Entry.PLACES))
        with e.loop(thread, call.rows, threads) as row:
            token = e.number(e.pointer(table, Entry.IDS), row)
            position = e.number(e.pointer(table, Entry.POSITIONS), row)
            residual = call.row(e.pointer(table, Entry.RESIDUAL), row)
            e.call(self._embed, [tokens, scales, token, places, position, residual])
        call.wait()
        self.blocks(e, table, thread, threads)
        self.head(e, table, thread, threads)
        call.wait()
        with e.loop(thread, e.number(table, Entry.HEADS), threads) as row:
            logits = e.at(e.pointer(table, Entry.LOGITS), e.product(row, self._program.vocabulary.width))
            e.call(self._choose, [logits, e.at(e.pointer(table, Entry.CHOSEN), e.product(row, 2), 8)])

    def blocks(self, e: Emitter, table: ir.Value, thread: ir.Value, threads: ir.Value) -> None:
        """All layers over the residual."""
        p, heads = self._program, self._program.heads
        call = _Call(e, p, table, thread, threads)
        residual = e.pointer(table, Entry.RESIDUAL)
        with e.loop(0, p.layers) as layer:
            first = e.sum(e.product(layer, _PER_LAYER), Entry.WEIGHTS)
            weights = [e.pointer(table, e.sum(first, n)) for n in range(_PER_LAYER)]
            offset = e.product(layer, e.number(table, Entry.LAYER_BYTES))

            self._normed(e, call, residual, weights[0], weights[1])
            self._multiply(e, call, "qkv", p.qkv, weights[2], weights[3], call.rows_private, call.fused)
            call.wait()
            with e.loop(thread, call.rows, threads) as row:
                keys, values = call.places(row, offset)
                place = e.product(e.number(e.pointer(table, Entry.POSITIONS), row), heads.width * _kv_size(heads))
                new = e.at(call.row(call.fused, row), heads.count * heads.width)
                e.call(self._append, [new, e.at(keys, place, 1)])
                e.call(self._append, [e.at(new, heads.width), e.at(values, place, 1)])
            call.wait()
            self._attended(e, call, offset)
            call.wait()
            with e.loop(0, call.rows) as row:
                parts = call.parts(row, e.index(0))
                e.call(self._merge, [parts, call.pieces_of(row), call.row(call.rows_private, row), call.attention])
            self._multiply(e, call, "proj", p.proj, weights[4], weights[5], call.rows_private, residual)
            call.wait()
            self._normed(e, call, residual, weights[6], weights[7])
            self._multiply(e, call, "fc", p.fc, weights[8], weights[9], call.rows_private, call.inner)
            call.wait()
            self._multiply(e, call, "down", p.down, weights[10], weights[11], call.inner, residual)
            call.wait()

    def head(self, e: Emitter, table: ir.Value, thread: ir.Value, threads: ir.Value) -> None:
        """Final LayerNorm and the product with the vocabulary."""
        p = self._program
        call = _Call(e, p, table, thread, threads)
        first = Entry.WEIGHTS + _PER_LAYER * p.layers
        weights = [e.pointer(table, first + n) for n in range(4)]
        residual = e.pointer(table, Entry.RESIDUAL)
        call.rows = e.number(table, Entry.HEADS)
        with e.loop(0, call.rows) as n:
            row = e.number(e.pointer(table, Entry.HEAD_ROWS), n)
            e.call(self._norm, [call.row(residual, row), weights[0], weights[1], call.row(call.rows_private, n)])
        out = e.pointer(table, Entry.LOGITS)
        self._multiply(
            e, call, "vocabulary", p.vocabulary, weights[2], weights[3], call.rows_private, out, p.vocabulary.width
        )

    def _normed(self, e: Emitter, call: _Call, source: ir.Value, weight: ir.Value, bias: ir.Value) -> None:
        """Into the thread's own rows: cheaper than to share it out and wait."""
        with e.loop(0, call.rows) as row:
            e.call(self._norm, [call.row(source, row), weight, bias, call.row(call.rows_private, row)])

    def _attended(self, e: Emitter, call: _Call, offset: ir.Value) -> None:
        """Pieces of all rows, dealt out to the threads."""
        heads = self._program.heads
        with e.loop(0, call.rows) as row:
            keys, values = call.places(row, offset)
            positions = e.sum(e.number(e.pointer(call.table, Entry.POSITIONS), row), 1)
            with e.loop(call.turn(row), call.pieces_of(row), call.threads) as piece:
                start = e.product(piece, PIECE)
                at = e.product(start, heads.width * _kv_size(heads))
                count = e.least(e.sub(positions, start), e.index(PIECE))
                e.call(
                    self._attend,
                    [
                        call.row(call.fused, row),
                        e.at(keys, at, 1),
                        e.at(values, at, 1),
                        count,
                        call.parts(row, piece),
                        call.attention,
                    ],
                )

    def _multiply(
        self, e: Emitter, call: _Call, name: str, matrix: Matrix, weight: ir.Value, bias: ir.Value,
        source: ir.Value, out: ir.Value, out_stride: int | None = None,
    ) -> None:  # fmt: skip
        stride = out_stride or self._program.stride
        tail = [out, e.index(stride), call.thread, call.threads]
        if not isinstance(matrix, Int8Matrix):
            e.call(self._products[name], [source, e.index(self._program.stride), call.rows, weight, bias, *tail])
            return
        with e.loop(0, call.rows) as row:
            quantised = e.at(call.quantised, e.product(row, 2 * matrix.inputs), 1)
            e.call(self._quantise, [call.row(source, row), e.index(matrix.inputs), quantised, e.at(call.scales, row)])
        e.call(self._products[name], [call.quantised, call.scales, call.rows, weight, bias, *tail])


class _Call:
    """The memory of one call, as its threads see it."""

    def __init__(self, e: Emitter, program: Program, table: ir.Value, thread: ir.Value, threads: ir.Value) -> None:
        self._e, self._program, self.table = e, program, table
        self.thread, self.threads = thread, threads
        self.rows = e.number(table, Entry.ROWS)
        self._room = e.number(table, Entry.PIECES)
        size = MAX_ROWS * program.stride
        self.fused = e.pointer(table, Entry.SCRATCH)
        self.inner = e.at(self.fused, size)
        self._parts = e.at(self.inner, size)
        shared = e.at(self._parts, e.product(self._room, MAX_ROWS * program.heads.part))
        self.rows_private = e.at(shared, e.product(thread, program.private))
        self.quantised = e.at(self.rows_private, size)
        self.scales = e.at(self.quantised, size)
        self.attention = e.at(self.scales, _filled(MAX_ROWS))

    def row(self, base: ir.Value, row: ir.Value) -> ir.Value:
        """One of those that are `stride` apart."""
        return self._e.at(base, self._e.product(row, self._program.stride))

    def places(self, row: ir.Value, offset: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Where a row's keys and values begin in the layer at `offset`."""
        e = self._e
        keys = e.at(e.pointer(e.pointer(self.table, Entry.SLOTS), row), offset, 1)
        return keys, e.at(keys, e.number(self.table, Entry.PLANE_BYTES), 1)

    def pieces_of(self, row: ir.Value) -> ir.Value:
        """How many a row's positions fill."""
        e = self._e
        return e.sum(e.sdiv(e.number(e.pointer(self.table, Entry.POSITIONS), row), e.index(PIECE)), 1)

    def parts(self, row: ir.Value, piece: ir.Value) -> ir.Value:
        """Where a piece's result stands."""
        e = self._e
        return e.at(self._parts, e.product(e.sum(e.product(row, self._room), piece), self._program.heads.part))

    def turn(self, row: ir.Value) -> ir.Value:
        """The thread's first piece of a row: each row begins with another thread."""
        e = self._e
        return e.srem(e.sum(self.thread, row), self.threads)

    def wait(self) -> None:
        """Until all threads are here."""
        e = self._e
        with e.if_then(e.icmp_signed(">", self.threads, e.index(1))):
            _called(e, self.table, Entry.BARRIER, NOTHING)


def _called(e: Emitter, table: ir.Value, entry: Entry, result: ir.Type) -> ir.Value:
    """What a function of the table says."""
    kind = ir.PointerType(ir.FunctionType(result, []))
    return e.call(e.load(e.at(table, entry, 8), typ=kind), [])


def _kv_size(heads: Heads) -> int:
    return 2 if heads.brain else 4
