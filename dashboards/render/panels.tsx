// A dashboard as Grafana draws it: its own components for time series, stats, gauges and bars. Two kinds of panels are not
// exported by @grafana/ui and are drawn here: state timelines and heatmaps.
import 'uplot/dist/uPlot.min.css';
import React from 'react';
import { createRoot } from 'react-dom/client';
import { DataFrame, ThemeContext, VizOrientation, getDisplayProcessor, reduceField, ReducerID, formattedValueToString } from '@grafana/data';
import { BarGaugeDisplayMode, BigValueColorMode, BigValueGraphMode, BigValueTextMode, LegendDisplayMode, StackingMode } from '@grafana/schema';
import { BarGauge, BigValue, Gauge, GlobalStyles, PanelChrome, TimeSeries, VizRepeater } from '@grafana/ui';
import { Recorded, configured, instantFrames, seriesFrames, theme, valueField } from './frames';

const COLUMN = 60;
const ROW = 34;
const GAP = 6;

interface PanelModel {
  id: number;
  title: string;
  description: string;
  type: string;
  gridPos: { x: number; y: number; w: number; h: number };
  fieldConfig: any;
  options: any;
  recorded: Recorded[];
}

declare global {
  interface Window {
    DASHBOARD: { title: string; panels: PanelModel[] };
  }
}

function display(frame: DataFrame) {
  const field = valueField(frame);
  const value = reduceField({ field, reducers: [ReducerID.lastNotNull] })[ReducerID.lastNotNull];
  const processor = field.display ?? getDisplayProcessor({ field, theme });
  return { ...processor(value), title: field.config.displayNameFromDS ?? frame.name };
}

function Lines({ panel, frames, width, height }: any) {
  const range = { from: panel.recorded[0].start * 1000, to: panel.recorded[0].end * 1000 };
  const timeRange: any = { from: stamp(range.from), to: stamp(range.to), raw: { from: stamp(range.from), to: stamp(range.to) } };
  const legend = { displayMode: LegendDisplayMode.List, placement: 'bottom', showLegend: true, calcs: panel.options?.legend?.calcs ?? [] };
  return <TimeSeries frames={frames} structureRev={1} timeRange={timeRange} timeZone="utc" width={width} height={height} legend={legend as any} />;
}

function stamp(ms: number): any {
  return { valueOf: () => ms, toDate: () => new Date(ms), isValid: () => true };
}

function Stats({ frames, width, height }: any) {
  return (
    <VizRepeater
      getValues={() => frames.map(display)}
      renderValue={({ value, width, height }: any) => (
        <BigValue value={value} width={width} height={height} theme={theme} colorMode={BigValueColorMode.Value} graphMode={BigValueGraphMode.None} textMode={frames.length > 1 ? BigValueTextMode.ValueAndName : BigValueTextMode.Value} />
      )}
      width={width}
      height={height}
      source={frames}
      orientation={VizOrientation.Auto}
      renderCounter={0}
    />
  );
}

function Bars({ panel, frames, width, height }: any) {
  const shown = frames.slice(0, 24);
  return (
    <VizRepeater
      getValues={() => shown.map(display)}
      renderValue={({ value, width, height, count }: any) => {
        const field = valueField(shown.find((f: DataFrame) => (valueField(f).config.displayNameFromDS ?? f.name) === value.title) ?? shown[0]);
        const config = { ...field.config, max: field.config.max ?? Math.max(...shown.map((f: DataFrame) => Number(display(f).numeric) || 0), 1e-9) };
        return (
          <BarGauge value={value} width={width} height={height} theme={theme} field={config} display={field.display} orientation={VizOrientation.Horizontal} displayMode={BarGaugeDisplayMode.Basic} text={panel.options?.text} itemSpacing={6} lcdCellWidth={8} />
        );
      }}
      width={width}
      height={height}
      source={shown}
      orientation={VizOrientation.Horizontal}
      renderCounter={0}
      itemSpacing={6}
      minVizHeight={14}
    />
  );
}

function Dial({ frames, width, height }: any) {
  const frame = frames[0];
  return <Gauge value={display(frame)} width={width} height={height} theme={theme} field={valueField(frame).config} showThresholdLabels={false} showThresholdMarkers={true} />;
}

function States({ frames, width, height, panel }: any) {
  const labels = 190;
  const line = Math.min(24, (height - 26) / Math.max(1, frames.length));
  const span = width - labels - 10;
  const used = new Map<string, string>();
  return (
    <svg width={width} height={height} style={{ fontFamily: 'Inter, DejaVu Sans, sans-serif', fontSize: 11 }}>
      {frames.map((frame: DataFrame, row: number) => {
        const field = valueField(frame);
        const processor = field.display ?? getDisplayProcessor({ field, theme });
        const count = field.values.length;
        return (
          <g key={row}>
            <text x={labels - 6} y={row * line + line / 2 + 4} textAnchor="end" fill={theme.colors.text.primary}>{field.config.displayNameFromDS}</text>
            {Array.from(field.values).map((value: any, index: number) => {
              if (value === null || value === undefined) {
                return null;
              }
              const shown = processor(value);
              used.set(formattedValueToString(shown), shown.color ?? 'grey');
              return <rect key={index} x={labels + (span * index) / count} y={row * line + 2} width={span / count + 0.6} height={line - 4} fill={shown.color} />;
            })}
          </g>
        );
      })}
      {[...used].map(([text, color], index) => (
        <g key={text} transform={`translate(${labels + index * 130}, ${height - 16})`}>
          <rect width={12} height={12} fill={color} />
          <text x={18} y={10} fill={theme.colors.text.primary}>{text}</text>
        </g>
      ))}
    </svg>
  );
}

function Heat({ frames, width, height }: any) {
  const rows = frames
    .map((frame: DataFrame) => ({ frame, bound: Number(String(valueField(frame).config.displayNameFromDS).replace('+Inf', 'Infinity')) }))
    .sort((a: any, b: any) => a.bound - b.bound);
  const counts = rows.map((row: any, index: number) =>
    Array.from(valueField(row.frame).values).map((value: any, column: number) => Math.max(0, (value ?? 0) - (index ? (valueField(rows[index - 1].frame).values[column] ?? 0) : 0)))
  );
  const most = Math.max(...counts.flat(), 1e-9);
  const lowest = counts.findIndex((row: number[]) => row.some((value) => value > 0));
  const highest = counts.length - 1 - [...counts].reverse().findIndex((row: number[]) => row.some((value) => value > 0));
  const shown = counts.slice(Math.max(0, lowest), highest + 1);
  const bounds = rows.slice(Math.max(0, lowest), highest + 1);
  const left = 64;
  const line = (height - 8) / Math.max(1, shown.length);
  return (
    <svg width={width} height={height} style={{ fontFamily: 'Inter, DejaVu Sans, sans-serif', fontSize: 11 }}>
      {shown.map((row: number[], index: number) => (
        <g key={index}>
          <text x={left - 6} y={height - (index + 0.5) * line} textAnchor="end" fill={theme.colors.text.primary}>{`${bounds[index].bound} s`}</text>
          {row.map((value, column) => (
            <rect key={column} x={left + ((width - left) * column) / row.length} y={height - (index + 1) * line} width={(width - left) / row.length + 0.6} height={line} fill={`rgba(31, 96, 196, ${value / most})`} />
          ))}
        </g>
      ))}
    </svg>
  );
}

const OF_NOW = ['stat', 'gauge', 'bargauge', 'table'];
const KINDS: Record<string, any> = { timeseries: Lines, stat: Stats, gauge: Dial, bargauge: Bars, 'state-timeline': States, heatmap: Heat };

function Panel({ panel }: { panel: PanelModel }) {
  const { x, y, w, h } = panel.gridPos;
  const box = { left: x * COLUMN, top: y * ROW, width: w * COLUMN - GAP, height: h * ROW - GAP };
  if (panel.type === 'row') {
    return <div style={{ position: 'absolute', ...box, height: ROW, fontWeight: 500, fontSize: 16, paddingTop: 6 }}>{panel.title}</div>;
  }
  const frames = configured(OF_NOW.includes(panel.type) ? instantFrames(panel.recorded) : seriesFrames(panel.recorded), panel.fieldConfig.defaults);
  const Kind = KINDS[panel.type];
  return (
    <div style={{ position: 'absolute', ...box }}>
      <PanelChrome title={panel.title} width={box.width} height={box.height} padding="md">
        {(width: number, height: number) => (frames.length ? <Kind panel={panel} frames={frames} width={width} height={height} /> : <div data-empty={panel.title}>No data</div>)}
      </PanelChrome>
    </div>
  );
}

function Dashboard() {
  const { title, panels } = window.DASHBOARD;
  const height = Math.max(...panels.map((panel) => panel.gridPos.y + panel.gridPos.h)) * ROW + 60;
  return (
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <div style={{ background: theme.colors.background.canvas, width: 24 * COLUMN + 24, height, padding: 12 }}>
        <h3>{title}</h3>
        <div style={{ position: 'relative' }}>{panels.map((panel) => <Panel key={panel.id} panel={panel} />)}</div>
      </div>
    </ThemeContext.Provider>
  );
}

createRoot(document.getElementById('root')!).render(<Dashboard />);
