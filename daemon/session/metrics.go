package session

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/alcove-room/alcove/daemon/e2ee"
)

// Metrics counts what sessions do. No label ever names a person, a session or an address.
type Metrics struct {
	rejectedFrames *prometheus.CounterVec
	refusedTracks  *prometheus.CounterVec
	keyFrames      prometheus.Counter
	rounds         prometheus.Counter
	failedRounds   prometheus.Counter
	epochNumber    prometheus.Gauge
	memberCount    prometheus.Gauge
	lost           *prometheus.CounterVec
	rate           prometheus.Gauge
}

// NewMetrics makes the metrics of a daemon's sessions; counters start at zero.
func NewMetrics() *Metrics {
	m := &Metrics{
		rejectedFrames: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "alcove_e2ee_rejected_frames_total", Help: "Received frames that were not opened, by reason."}, []string{"reason"}),
		refusedTracks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "alcove_session_refused_total", Help: "Tracks and messages from the SFU that were not taken, by reason."}, []string{"reason"}),
		keyFrames: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "alcove_session_key_frame_requests_total", Help: "Requests of receivers for a key frame."}),
		rounds: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "alcove_e2ee_rounds_total", Help: "Completed rounds of the key agreement."}),
		failedRounds: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "alcove_e2ee_failed_rounds_total", Help: "Rounds of the key agreement that failed."}),
		epochNumber: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "alcove_e2ee_key_epoch", Help: "Number of the round whose transcript is in force."}),
		memberCount: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "alcove_session_members", Help: "Remote members of the open session."}),
		lost: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "alcove_session_line_losses_total", Help: "Connections to the SFU that ended, by whether they ever stood."}, []string{"outcome"}),
		rate: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "alcove_media_available_bytes_per_second", Help: "Own estimate of what the line takes."}),
	}
	for _, r := range e2ee.Reasons() {
		m.rejectedFrames.WithLabelValues(r)
		m.refusedTracks.WithLabelValues(r)
	}
	for _, r := range []string{"not_a_member", "source", "data", "knock"} {
		m.refusedTracks.WithLabelValues(r)
	}
	m.lost.WithLabelValues("lost")
	m.lost.WithLabelValues("not_reached")
	return m
}

// Metrics lists the collectors for the registry.
func (m *Metrics) Metrics() []prometheus.Collector {
	return []prometheus.Collector{m.rejectedFrames, m.refusedTracks, m.keyFrames, m.rounds, m.failedRounds,
		m.epochNumber, m.memberCount, m.lost, m.rate}
}

func (m *Metrics) rejected(reason string) { m.rejectedFrames.WithLabelValues(reason).Inc() }
func (m *Metrics) refused(reason string)  { m.refusedTracks.WithLabelValues(reason).Inc() }
func (m *Metrics) keyFrameAsked()         { m.keyFrames.Inc() }
func (m *Metrics) roundFailed()           { m.failedRounds.Inc() }
func (m *Metrics) estimate(bps int)       { m.rate.Set(float64(bps) / 8) }

func (m *Metrics) epoch(number uint32, others int) {
	m.rounds.Inc()
	m.epochNumber.Set(float64(number))
	m.memberCount.Set(float64(others))
}

func (m *Metrics) left() { m.memberCount.Set(0) }

func (m *Metrics) lineLost(stood bool) {
	if stood {
		m.lost.WithLabelValues("lost").Inc()
		return
	}
	m.lost.WithLabelValues("not_reached").Inc()
}
