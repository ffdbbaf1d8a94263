package daemon

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/alcove-room/alcove/daemon/e2ee"
	"github.com/alcove-room/alcove/mediacap"
)

// pipelineMetrics counts what leaves the room and what does not.
type pipelineMetrics struct {
	units           *prometheus.CounterVec
	bytes           *prometheus.CounterVec
	drops           *prometheus.CounterVec
	captureUp       prometheus.Gauge
	captureRestarts prometheus.Counter
}

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
	for _, kind := range []string{"video", "audio"} {
		m.units.WithLabelValues(kind)
		m.bytes.WithLabelValues(kind)
		for _, r := range append([]string{"muted", "line_down", "write"}, e2ee.Reasons()...) {
			m.drops.WithLabelValues(kind, r)
		}
	}
	return m
}

func (m *pipelineMetrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.units, m.bytes, m.drops, m.captureUp, m.captureRestarts}
}

func kindOf(u *mediacap.Unit) string {
	if u.Codec.Medium() == mediacap.Audio {
		return "audio"
	}
	return "video"
}

func (m *pipelineMetrics) dropped(u *mediacap.Unit, reason string) {
	m.drops.WithLabelValues(kindOf(u), reason).Inc()
}

func (m *pipelineMetrics) sent(u *mediacap.Unit, bytes int) {
	m.units.WithLabelValues(kindOf(u)).Inc()
	m.bytes.WithLabelValues(kindOf(u)).Add(float64(bytes))
}
