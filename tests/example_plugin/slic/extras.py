"""The other kinds of plug-in: an annotator and a data source, a function each."""

from alpaca_farm_core.types import Instruction

WORDS = ("apple", "bridge", "candle", "dragon", "eagle", "forest", "garden", "hammer")


def shorter(pairs):
    """Prefer the shorter answer; cannot tell without an instruction."""
    lengths = [(len(pair.output_1), len(pair.output_2)) for pair in pairs]
    return [1.5 if first == second else 1.0 if first < second else 2.0 for first, second in lengths]


def echoes():
    """Instructions to say a word several times, with what to say."""
    return [
        Instruction(f"Say {word} {times} times, {tone}.", "", " ".join([word] * times), "echoes")
        for word in WORDS
        for times in range(1, 9)
        for tone in ("softly", "loudly", "slowly", "twice")
    ]
