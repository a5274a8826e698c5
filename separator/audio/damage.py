"""The parts of a file that do not decode: position, length, and the limits of tolerance."""

from pathlib import Path

from separator.audio.info import AudioError, AudioInfo, Refused, tolerance

_NAMED = 5  # places that are named one by one


class Damage:
    """Places, in samples, whose sound is lost; called by decoders.

    Raises:
        AudioError: on the first loss, where `strict`.
    """

    def __init__(self, path: Path, rate: int, strict: bool = False) -> None:
        self.path, self.rate, self.strict = path, rate, strict
        self.places: list[tuple[int, int]] = []

    def __call__(self, start: int, samples: int) -> None:
        """Note that `samples` from `start` on are lost."""
        if self.strict:
            raise AudioError(
                f"{self.path}: damaged at {start / self.rate:.2f} s, {samples / self.rate:.2f} s "
                "do not decode; use another copy of it"
            )
        if self.places and self.places[-1][0] + self.places[-1][1] >= start:
            first, _ = self.places.pop()
            self.places.append((first, start + samples - first))
        else:
            self.places.append((start, samples))

    @property
    def samples(self) -> int:
        """Total length of the damaged parts."""
        return sum(samples for _, samples in self.places)

    def notices(self) -> tuple[str, ...]:
        """Return a short text for each place, or one for many."""
        if len(self.places) > _NAMED:
            first = self.places[0][0] / self.rate
            return (
                f"damaged in {len(self.places)} places, the first at {first:.2f} s: "
                f"{self.samples / self.rate:.2f} s in all do not decode",
            )
        return tuple(
            f"damaged at {start / self.rate:.2f} s: {samples / self.rate:.2f} s do not decode"
            for start, samples in self.places
        )

    def check(self, total: int, tolerated: int | None = None) -> None:
        """Refuse a sound of `total` samples if too many of them are lost.

        Args:
            total: samples asked for.
            tolerated: as many may be lost; by default as `tolerance` says.

        Raises:
            AudioError: more are lost.
        """
        tolerated = tolerance(total, self.rate) if tolerated is None else tolerated
        if self.samples > tolerated:
            raise AudioError(
                f"{self.path}: damaged, {self.samples / self.rate:.1f} s of "
                f"{total / self.rate:.1f} s do not decode, the first at "
                f"{self.places[0][0] / self.rate:.1f} s; use another copy of it"
            )


def refuse_truncated(info: AudioInfo, samples: int, declared: int) -> None:
    """Refuse a file of which too much is missing.

    Args:
        info: the file.
        samples: as many are there.
        declared: as many as its header says.

    Raises:
        Refused: more are missing than `tolerance` says.
    """
    if declared - samples > tolerance(declared, info.rate):
        raise Refused(
            f"{info.path}: truncated, {samples / info.rate:.1f} s of {declared / info.rate:.1f} s "
            "are there; copy it again"
        )
