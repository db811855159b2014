"""The PromQL that both dashboards ask, over the series that the dashboard's variables select."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Series:
    """Series of the server's metrics, chosen by label matchers.

    >>> Series('job=~"$job"').rate("sluice_macs_total", "model")
    'sum by (model) (rate(sluice_macs_total{job=~"$job"}[$__rate_interval]))'
    """

    matchers: str

    def select(self, name: str, *matchers: str) -> str:
        return f"{name}{{{', '.join((self.matchers, *matchers))}}}"

    def gauge(self, name: str, by: str = "model", how: str = "max", where: tuple[str, ...] = ()) -> str:
        """Over instances, their greatest, or what `how` says."""
        return f"{how} by ({by}) ({self.select(name, *where)})"

    def rate(self, counter: str, by: str = "model", where: tuple[str, ...] = ()) -> str:
        """Per second."""
        return f"sum by ({by}) (rate({self.select(counter, *where)}[$__rate_interval]))"

    def ratio(self, part: str, whole: str, by: str = "model", where: tuple[str, ...] = ()) -> str:
        """Of two counters; `where` narrows the part down. It is absent where nothing was counted."""
        return f"{self.rate(part, by, where)}\n/\n({self.rate(whole, by)} > 0)"

    def attainment(self) -> str:
        return self.ratio("sluice_slo_requests_total", "sluice_slo_requests_total", where=('met="true"',))

    def burn_rate(self) -> str:
        missed = self.ratio("sluice_slo_requests_total", "sluice_slo_requests_total", where=('met="false"',))
        return f"{missed}\n/\n(1 - {self.gauge('sluice_slo_percentile_ratio')})"

    def budget_left(self) -> str:
        def requests(name: str) -> str:
            return f"sum by (model) (sum_over_time({self.select(f'job_instance_model:{name}:rate5m')}[30d]))"

        return (
            f"1 -\n  {requests('sluice_slo_missed')}\n  /\n  ({requests('sluice_slo_requests')} > 0)"
            f"\n  /\n  (1 - {self.gauge('sluice_slo_percentile_ratio')})"
        )

    def macs_skipped(self) -> str:
        return self.ratio("sluice_macs_skipped_total", "sluice_macs_total")

    def channels_skipped(self, by: str = "model") -> str:
        return self.ratio("sluice_channels_skipped_total", "sluice_channels_total", by)

    def live_agreement(self) -> str:
        return self.ratio("sluice_shadow_total", "sluice_shadow_total", where=('agree="true"',))

    def mean_seconds(self, histogram: str) -> str:
        return self.ratio(f"{histogram}_sum", f"{histogram}_count")

    def slo_changes(self) -> str:
        """1 and more where the SLO, or the floor, is another than before."""
        names = ("sluice_slo_latency_seconds", "sluice_slo_percentile_ratio", "sluice_quality_floor_ratio")
        return " + ".join(f"changes({self.select(name)}[$__rate_interval])" for name in names) + " > 0"


SERVERS = Series('job=~"$job", instance=~"$instance"')
MODELS = Series('job=~"$job", instance=~"$instance", model=~"$model"')
MODEL = Series('job=~"$job", instance=~"$instance", model="$model"')
