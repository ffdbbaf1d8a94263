package daemon

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/alcove-room/alcove/daemon/e2ee"
)

// pipelineMetrics counts what leaves the room and what does not.
type pipelineMetrics struct {
	units           *prometheus.CounterVec
	bytes           *prometheus.CounterVec
	drops           *prometheus.CounterVec
	captureUp       prometheus.Gauge
	captureRestarts prometheus.Counter
	video, audio    unitCounts
}

// unitCounts is one medium's counters, looked up once: what is counted for each unit allocates nothing.
type unitCounts struct {
	sent, bytes                       prometheus.Counter
	notWanted, muted, lineDown, write prometheus.Counter
	reasons                           map[string]prometheus.Counter // of e2ee
}

func (c *unitCounts) refused(reason string) { c.reasons[reason].Inc() }

func newPipelineMetrics() *pipelineMetrics {
	m := &pipelineMetrics{
		units: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "alcove_media_sent_frames_total", Help: "Frames that were sealed and written."}, []string{"kind"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "alcove_media_sent_bytes_total", Help: "Bytes of sealed frames that were written."}, []string{"kind"}),
		drops: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "alcove_media_dropped_frames_total", Help: "Captured frames that were not sent, by reason."}, []string{"kind", "reason"}),
		captureUp: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "alcove_capture_up", Help: "1 while the capture process runs."}),
		captureRestarts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "alcove_capture_failures_total", Help: "Times that the capture process ended while it was wanted."}),
	}
	m.video, m.audio = m.counts("video"), m.counts("audio")
	return m
}

func (m *pipelineMetrics) counts(kind string) unitCounts {
	drop := func(reason string) prometheus.Counter { return m.drops.WithLabelValues(kind, reason) }
	c := unitCounts{
		sent: m.units.WithLabelValues(kind), bytes: m.bytes.WithLabelValues(kind),
		notWanted: drop("not_wanted"), muted: drop("muted"), lineDown: drop("line_down"), write: drop("write"),
		reasons: make(map[string]prometheus.Counter),
	}
	for _, r := range e2ee.Reasons() {
		c.reasons[r] = drop(r)
	}
	return c
}

func (m *pipelineMetrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.units, m.bytes, m.drops, m.captureUp, m.captureRestarts}
}
