"""A CLIP tokenizer small enough for the demo: byte-pair merges learned on the captions.

    python -m demo.build_tokenizer

Same files as CLIP's (`vocab.json`, `merges.txt`), so diffusers, transformers and ComfyUI read it
with their own CLIP code. Ids: 256 byte symbols, the same with "</w>", one per merge, then start
and end; the end token also pads, as in SD1.5.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections import Counter
from pathlib import Path

from demo.dataset import DATA, FLAT, read_items

VOCABULARY = 1024
START, END = "<|startoftext|>", "<|endoftext|>"
MAX_LENGTH = 77


def byte_symbols() -> list[str]:
    """CLIP's printable stand-ins for the 256 bytes, in CLIP's order.

    Printable Latin-1 characters stand for themselves; the others get code points from 256 on.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in printable]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(len(rest))]


def join_pair(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """`word` with every occurrence of `pair` made one symbol."""
    joined: list[str] = []
    for symbol in word:
        if joined and (joined[-1], symbol) == pair:
            joined[-1] += symbol
        else:
            joined.append(symbol)
    return tuple(joined)


def learn_merges(words: Counter[str], count: int) -> list[tuple[str, str]]:
    """The `count` most frequent pairs, one after the other; ties go by the alphabet."""
    split = {(*word[:-1], word[-1] + "</w>"): n for word, n in sorted(words.items())}
    merges: list[tuple[str, str]] = []
    while len(merges) < count:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, n in split.items():
            for pair in itertools.pairwise(word):
                pairs[pair] += n
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        split = {join_pair(word, best): n for word, n in split.items()}
    return merges


def caption_words(captions: list[str]) -> Counter[str]:
    """Words as CLIP's pattern cuts them: runs of letters, single digits, runs of the rest."""
    words: Counter[str] = Counter()
    for caption in captions:
        spaced = "".join(c if c.isalpha() else f" {c} " for c in caption.lower())
        words.update(spaced.split())
    return words


def build(out: Path, captions: list[str]) -> None:
    """Write the tokenizer folder."""
    symbols = byte_symbols()
    symbols += [symbol + "</w>" for symbol in symbols]
    merges = learn_merges(caption_words(captions), VOCABULARY - len(symbols) - 2)
    tokens = symbols + ["".join(pair) for pair in merges]
    # Fewer merges than asked for leave ids free; start and end stay the last two all the same.
    vocabulary = {token: i for i, token in enumerate(tokens)}
    vocabulary |= {START: VOCABULARY - 2, END: VOCABULARY - 1}
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(vocabulary, ensure_ascii=False)
    (out / "vocab.json").write_text(text + "\n", encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (out / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": MAX_LENGTH,
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
        "pad_token": END,
        "do_lower_case": True,
    }
    special = {key: settings[key] for key in ("bos_token", "eos_token", "unk_token", "pad_token")}
    for name, content in (
        ("tokenizer_config.json", settings),
        ("special_tokens_map.json", special),
    ):
        (out / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(f"{out}: {len(vocabulary)} tokens, {len(merges)} merges")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "model" / "tokenizer")
    parser.add_argument("--data", type=Path, default=DATA)
    args = parser.parse_args()
    build(args.out, [item.text for item in read_items(FLAT, args.data)])


if __name__ == "__main__":
    main()
