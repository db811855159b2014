"""How long a run takes: time = overhead + MACs x seconds per MAC, fitted online, with an upper quantile of what it gets
wrong.

>>> model = LatencyModel()
>>> for macs in (100_000_000, 300_000_000) * 50:
...     model.observe(macs, seconds=0.001 + macs * 10e-12)
>>> round(model.seconds(200_000_000), 5)
0.003
"""

from dataclasses import dataclass, field

from service.control.quantile import UpperQuantile

_GIGA = 1e-9
_LARGEST_RATIO = 5.0


@dataclass(slots=True)
class LatencyModel:
    """Least squares with exponential forgetting, over errors relative to the prediction, kept as its sufficient
    statistics.

    The sums make the fit exact at any time and let both coefficients be held at or above 0, which the recursive form
    cannot do. Observations are Winsorised at `outlier` times off the prediction, so a stall moves the fit little while
    a true change of speed is followed at a geometric pace. While all runs do the same MACs, overhead and rate cannot be
    told apart: one pseudo-observation, never forgotten, says that `overhead_share` of a typical run is overhead.

    Before data the priors are those of a slow core, so that nothing is promised; `trusted` says whether there has been
    any.
    """

    memory: float = 100.0
    outlier: float = 3.0
    memory_of_variation: int = 1000
    overhead_share: float = 0.15
    overhead: float = 0.5e-3
    """Seconds."""
    seconds_per_gmac: float = 0.05
    tail: UpperQuantile = field(default_factory=lambda: UpperQuantile(1.3, lowest=1.0, highest=2.5))
    """Of time / predicted time."""
    variation: float = 0.0
    """Mean square of what single runs are off by, relative to the prediction."""
    observations: int = 0
    _w: float = 0.0
    _wx: float = 0.0
    _wy: float = 0.0
    _wxx: float = 0.0
    _wxy: float = 0.0

    @property
    def trusted(self) -> bool:
        return self.observations >= 3

    @property
    def tail_ratio(self) -> float:
        """What `seconds` is stretched by for the upper time of a single run."""
        return self.tail.value

    def seconds(self, macs: float) -> float:
        """The expected time of a run that does so many multiply-accumulates."""
        return self.overhead + macs * _GIGA * self.seconds_per_gmac

    def scalable(self, macs: float) -> float:
        """The part of `seconds` that shrinks as MACs are skipped."""
        return macs * _GIGA * self.seconds_per_gmac

    def upper(self, macs: float) -> float:
        """The time that a run stays below, at the tail's quantile."""
        return self.seconds(macs) * self.tail_ratio

    def observe(self, macs: float, seconds: float) -> None:
        """Learns from a run that did so many multiply-accumulates (those done, not the dense model's)."""
        predicted = max(self.seconds(macs), 1e-6)
        if self.observations >= 3:
            self.tail.follow(seconds / predicted)
            off = min(seconds / predicted, _LARGEST_RATIO) - 1
            self.variation += (off * off - self.variation) / min(self.observations, self.memory_of_variation)
            seconds = min(max(seconds, predicted / self.outlier), predicted * self.outlier)
        self.observations += 1
        keep = 1 - 1 / self.memory
        x, y = macs * _GIGA, max(seconds, 1e-7)
        # Errors are relative, so a small request counts as much as one of 64 images. The weight goes by size, not by
        # time, else a server that slows down would count its new runs for less than its old ones.
        weight = min(self.seconds(self._wx / self._w / _GIGA) / predicted, 10.0) ** 2 if self._w else 1.0
        self._w = keep * self._w + weight
        self._wx = keep * self._wx + weight * x
        self._wy = keep * self._wy + weight * y
        self._wxx = keep * self._wxx + weight * x * x
        self._wxy = keep * self._wxy + weight * x * y
        self._fit()

    def _fit(self) -> None:
        if self._wxx <= 0:
            self.overhead = self._wy / self._w
            return
        pull = self.overhead_share * self._wy / self._w
        w, wy = self._w + 1, self._wy + pull
        determinant = w * self._wxx - self._wx * self._wx
        overhead = (wy * self._wxx - self._wx * self._wxy) / determinant
        rate = (w * self._wxy - self._wx * wy) / determinant
        if overhead < 0:
            overhead, rate = 0.0, self._wxy / self._wxx
        elif rate < 0:
            overhead, rate = self._wy / self._w, 0.0
        self.overhead, self.seconds_per_gmac = overhead, rate
