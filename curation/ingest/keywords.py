"""Words -> an automaton that finds all of them in one pass over bytes (Aho and Corasick, 1975)."""

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Automaton(NamedTuple):
    """next_state[state, symbols[byte]] is the next state, outputs[state] the kinds found there."""

    next_state: npt.NDArray[np.int16]
    symbols: npt.NDArray[np.uint8]
    outputs: npt.NDArray[np.uint64]


def automaton(kinds: Mapping[str, str], *, boundaries: bool = False) -> Automaton:
    """Return the automaton that tells which kinds of words a text has.

    kinds: at most 64, each with its words, separated by spaces or, where they hold "_" for a space,
    phrases. Case of ASCII does not matter. With `boundaries` all bytes but letters are one symbol,
    0, which "|" in a word stands for. State 0 is the start.
    """
    if len(kinds) > 64:
        raise ValueError(f"{len(kinds)} kinds of words; a mask has 64 bits")
    words = [
        (word.replace("_", " ").encode(), bit)
        for bit, text in enumerate(kinds.values())
        for word in text.split()
    ]
    symbols = np.zeros(256, np.uint8)
    if boundaries:
        words = [(word.replace(b"-", b"|"), bit) for word, bit in words]
        for i in range(26):
            symbols[ord("a") + i] = symbols[ord("A") + i] = i + 1
        num_symbols = 27
    else:
        used = sorted({byte for word, _ in words for byte in word})
        for i, byte in enumerate(used):
            symbols[byte] = i + 1
            if ord("a") <= byte <= ord("z"):
                symbols[byte - 32] = i + 1
        num_symbols = len(used) + 1
    children: list[dict[int, int]] = [{}]
    outputs = [0]
    for word, bit in words:
        state = 0
        for byte in word:
            symbol = int(symbols[byte])
            if symbol not in children[state]:
                children[state][symbol] = len(children)
                children.append({})
                outputs.append(0)
            state = children[state][symbol]
        outputs[state] |= 1 << bit
    next_state = np.zeros((len(children), num_symbols), np.int16)
    fallback = [0] * len(children)
    waiting = deque([0])
    while waiting:
        state = waiting.popleft()
        outputs[state] |= outputs[fallback[state]]
        for symbol in range(num_symbols):
            longer = int(next_state[fallback[state], symbol]) if state else 0
            child = children[state].get(symbol)
            if child is None:
                next_state[state, symbol] = longer
            else:
                next_state[state, symbol] = child
                fallback[child] = longer
                waiting.append(child)
    return Automaton(next_state, symbols, np.array(outputs, np.uint64))
