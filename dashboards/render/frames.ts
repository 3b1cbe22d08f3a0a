// From Prometheus' answers to the data frames that Grafana's panels draw.
import {
  DataFrame,
  Field,
  FieldConfig,
  FieldType,
  createTheme,
  getDisplayProcessor,
  toDataFrame,
} from '@grafana/data';

export const theme = createTheme({ colors: { mode: 'light' } });

export interface Recorded {
  ref: string;
  legend: string;
  range: Array<{ metric: Record<string, string>; values: Array<[number, string]> }>;
  vector: Array<{ metric: Record<string, string>; value: [number, string] }>;
  start: number;
  end: number;
  step: number;
}

export function legendOf(pattern: string, metric: Record<string, string>): string {
  return pattern.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, label) => metric[label] ?? '');
}

// A quantile of nothing is NaN: there is no value.
function finite(value: string): number | null {
  const number = Number(value);
  return Number.isFinite(number) ? number : null;
}

// One frame per series, on one axis of time; what was not there is null, so that lines have gaps.
export function seriesFrames(recorded: Recorded[]): DataFrame[] {
  const frames: DataFrame[] = [];
  for (const one of recorded) {
    const times: number[] = [];
    for (let at = one.start; at <= one.end + 1e-6; at += one.step) {
      times.push(at);
    }
    for (const series of one.range) {
      const known = new Map(series.values.map(([at, value]) => [Math.round((at - one.start) / one.step), finite(value)]));
      const name = legendOf(one.legend, series.metric);
      frames.push(
        toDataFrame({
          refId: one.ref,
          name,
          fields: [
            { name: 'Time', type: FieldType.time, values: times.map((at) => at * 1000) },
            {
              name: 'Value',
              type: FieldType.number,
              values: times.map((_, index) => known.get(index) ?? null),
              config: { displayNameFromDS: name },
            },
          ],
        })
      );
    }
  }
  return frames;
}

export function instantFrames(recorded: Recorded[]): DataFrame[] {
  return recorded.flatMap((one) =>
    one.vector.map((sample) => {
      const name = legendOf(one.legend, sample.metric);
      return toDataFrame({
        refId: one.ref,
        name,
        fields: [
          { name: 'Time', type: FieldType.time, values: [sample.value[0] * 1000] },
          { name: 'Value', type: FieldType.number, values: [finite(sample.value[1])], config: { displayNameFromDS: name } },
        ],
      });
    })
  );
}

// Units, decimals, thresholds, mappings and colours as the panel says.
export function configured(frames: DataFrame[], defaults: FieldConfig): DataFrame[] {
  frames.forEach((frame, index) => {
    for (const field of frame.fields) {
      if (field.type === FieldType.number) {
        field.config = { ...defaults, color: defaults.color ?? { mode: 'palette-classic' }, ...field.config };
        field.state = { ...field.state, seriesIndex: index };
      }
      field.display = getDisplayProcessor({ field, theme, timeZone: 'utc' });
    }
  });
  return frames;
}

export function valueField(frame: DataFrame): Field {
  return frame.fields.find((field) => field.type === FieldType.number)!;
}
