// What a committed dashboard may be: Grafana's own types, with every panel's options by its kind.
import type * as schema from "@grafana/schema";
import type * as board from "@grafana/schema/dist/types/raw/dashboard/x/dashboard_types.gen.js";
import type * as heatmap from "@grafana/schema/dist/types/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen.js";
import type * as stat from "@grafana/schema/dist/types/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen.js";
import type * as lines from "@grafana/schema/dist/types/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen.js";

// Prometheus' queries are not part of the schema: the fields that its data source reads.
interface Query {
  refId: string;
  expr: string;
  legendFormat?: string;
  format?: "time_series" | "table" | "heatmap";
  datasource?: schema.DataSourceRef;
}

// As JSON has it: an enumeration's values instead of its members.
type Plain<T> = T extends string ? `${T}`
  : T extends number ? (`${T}` extends `${infer N extends number}` ? N : number)
  : T extends object ? { [K in keyof T]: Plain<T[K]> }
  : T;

// Grafana fills in what a panel does not say; what it says must be right.
type Some<T> = T extends readonly unknown[] ? T : T extends object ? { [K in keyof T]?: Some<T[K]> } : T;

interface Panel<Kind extends string, Options, Custom> {
  id: number;
  type: Kind;
  title: string;
  description: string;
  gridPos: board.GridPos;
  datasource: board.DataSourceRef;
  targets: Query[];
  options: Some<Options>;
  fieldConfig: { defaults: Omit<board.FieldConfig, "custom"> & { custom: Some<Custom> }; overrides: [] };
}

type Annotation = Omit<board.AnnotationQuery, "target"> & { target: Query; titleFormat: string };

export type Dashboard = Plain<
  Omit<board.Dashboard, "panels" | "annotations"> & {
    annotations: { list: Annotation[] };
    panels: (
      | Panel<"timeseries", lines.Options, lines.FieldConfig>
      | Panel<"stat", stat.Options, Record<string, never>>
      | Panel<"heatmap", heatmap.Options, heatmap.FieldConfig>
    )[];
  }
>;
