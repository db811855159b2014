"""What the dashboards are made of: queries, panels, variables and annotations, in one look."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from service.telemetry.dashboards.queries import Series

SOURCE = dashboard.DataSourceRef(type_val="prometheus", uid="${datasource}")
RATIO = "percentunit"
SECONDS = "s"
PER_SECOND = "reqps"
NUMBER = "short"
BYTES = "bytes"
YES_NO = "bool_yes_no"
STEPS = ("green", "orange", "red")


@dataclass(frozen=True, slots=True)
class Query:
    """`limit` draws a dashed line: something that the others are held against. `instant` asks for the last value
    only."""

    expr: str
    legend: str
    limit: bool = False
    instant: bool = False

    def target(self, ref_id: str, form: PromQueryFormat = PromQueryFormat.TIME_SERIES) -> prometheus.Dataquery:
        query = prometheus.Dataquery().ref_id(ref_id).datasource(SOURCE).expr(self.expr)
        query = query.legend_format(self.legend).format(form)
        return query.instant() if self.instant else query.range()


def lines(
    title: str,
    description: str,
    unit: str,
    queries: Sequence[Query],
    *,
    width: int = 12,
    greatest: float | None = None,
    stacked: bool = False,
) -> timeseries.Panel:
    """Values over time, from 0."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .unit(unit)
        .datasource(SOURCE)
        .span(width)
        .height(8)
        .min(0)
        .line_width(2)
        .fill_opacity(30 if stacked else 8)
        .show_points(common.VisibilityMode.NEVER)
        .tooltip(common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI))
        .legend(
            common_builders.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.TABLE)
            .placement(common.LegendPlacement.BOTTOM)
            .calcs(["lastNotNull", "max"])
            .show_legend(True)
        )
    )
    if greatest is not None:
        panel = panel.max(greatest)
    if stacked:
        panel = panel.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
    for ref_id, query in _named(queries):
        panel = panel.with_target(query.target(ref_id))
        if query.limit:
            panel = panel.override_by_query(ref_id, _dashed())
    return panel


def number(
    title: str, description: str, unit: str, query: Query, *, steps: Sequence[float] = (), worse_below: bool = False
) -> stat.Panel:
    """The last value, large. `steps` are two: from where it is orange, and from where red; `worse_below` turns that
    around."""
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .unit(unit)
        .datasource(SOURCE)
        .span(4)
        .height(4)
        .graph_mode(common.BigValueGraphMode.NONE if query.instant else common.BigValueGraphMode.AREA)
        .color_mode(common.BigValueColorMode.VALUE)
        .reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]))
        .with_target(query.target("A"))
    )
    if not steps:
        return panel.color_scheme(builders.FieldColor().mode(dashboard.FieldColorModeId.FIXED).fixed_color("blue"))
    return panel.thresholds(
        builders.ThresholdsConfig()
        .mode(dashboard.ThresholdsMode.ABSOLUTE)
        .steps(
            [
                dashboard.Threshold(value=value, color=color)
                for value, color in zip((None, *steps), STEPS[::-1] if worse_below else STEPS, strict=True)
            ]
        )
    ).color_scheme(builders.FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS))


def rows(title: str, description: str, query: Query, *, width: int = 12) -> heatmap.Panel:
    """Ratios over time as colours, a row for each series."""
    return (
        _heat(title, description, RATIO, width)
        .color(_colors("Viridis").min(0).max(1))
        .rows_frame(heatmap.RowsHeatmapOptions().value(title).layout(common.HeatmapCellLayout.UNKNOWN))
        .cell_values(heatmap.CellValues().unit(RATIO).decimals(0))
        .with_target(query.target("A"))
    )


def histogram(title: str, description: str, unit: str, query: Query, *, width: int = 12) -> heatmap.Panel:
    """The buckets of a histogram over time, coloured by how much each one holds. The query's legend is `{{le}}`."""
    return (
        _heat(title, description, unit, width)
        .color(_colors("Blues"))
        .y_axis(heatmap.YAxisConfig().unit(unit))
        .cell_values(heatmap.CellValues().unit(NUMBER))
        .with_target(query.target("A", PromQueryFormat.HEATMAP))
    )


def datasource_variable() -> builders.DatasourceVariable:
    """Which Prometheus is asked."""
    return builders.DatasourceVariable("datasource").label("Data source").type("prometheus")


def label_variable(name: str, label: str, matchers: str = "", *, every: bool = True) -> builders.QueryVariable:
    """A label of the hosted models' series, among those that `matchers` leave; `every` allows several, and all."""
    selected = f"{{{matchers}}}" if matchers else ""
    variable = (
        builders.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query({"query": f"label_values(sluice_slo_latency_seconds{selected}, {name})", "refId": name})
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_ASC)
        .multi(every)
        .include_all(every)
    )
    if every:
        variable = variable.all_value(".+").current(dashboard.VariableOption(text=["All"], value=["$__all"]))
    return variable


class SloChanges(builders.AnnotationQuery):
    """A mark where the SLO or the floor of one of `series` changed."""

    def __init__(self, series: Series) -> None:
        super().__init__()
        self._internal = _PrometheusAnnotation(
            name="SLO changed", datasource=SOURCE, enable=True, icon_color="purple", expr=series.slo_changes()
        )


class _PrometheusAnnotation(dashboard.AnnotationQuery):
    """With the fields that Grafana's Prometheus data source reads, which the SDK does not know. Old versions take the
    expression from `expr`, new ones from `target`."""

    def to_json(self) -> dict[str, object]:
        return {
            **super().to_json(),
            "target": {"expr": self.expr, "interval": "10s", "range": True, "refId": "SLO"},
            "titleFormat": "SLO changed",
            "textFormat": "{{model}} on {{instance}}",
            "tagKeys": "model",
            "step": "10s",
        }


def page(
    title: str, uid: str, description: str, variables: Sequence[Builder[Any]], changes: Series
) -> builders.Dashboard:
    """An empty dashboard that nobody edits in the browser, with links to the others."""
    board = (
        builders.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["sluice"])
        .readonly()
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .refresh("5s")
        .time("now-15m", "now")
        .timezone("browser")
        .annotation(SloChanges(changes))
        .link(
            builders.DashboardLink("Sluice")
            .type(dashboard.DashboardLinkType.DASHBOARDS)
            .tags(["sluice"])
            .include_vars(True)
            .keep_time(True)
        )
    )
    for variable in variables:
        board = board.with_variable(variable)
    return board


def row(title: str) -> builders.Row:
    """A heading over the panels that follow."""
    return builders.Row(title)


def _named(queries: Sequence[Query]) -> list[tuple[str, Query]]:
    return [(chr(ord("A") + index), query) for index, query in enumerate(queries)]


def _dashed() -> list[dashboard.DynamicConfigValue]:
    return [
        dashboard.DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [8, 6]}),
        dashboard.DynamicConfigValue("custom.fillOpacity", 0),
        dashboard.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": "red"}),
    ]


def _heat(title: str, description: str, unit: str, width: int) -> heatmap.Panel:
    return (
        heatmap.Panel()
        .title(title)
        .description(description)
        .unit(unit)
        .datasource(SOURCE)
        .span(width)
        .height(8)
        .calculate(False)
        .cell_gap(1)
        .show_tooltip()
        .show_legend()
    )


def _colors(scheme: str) -> heatmap.HeatmapColorOptions:
    return heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme(scheme).steps(64)
