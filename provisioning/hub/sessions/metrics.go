package sessions

import "github.com/prometheus/client_golang/prometheus"

// Metrics of the package. No label names a session, a person or an address.
type Metrics struct {
	open        prometheus.Gauge
	connections *prometheus.GaugeVec
	joins       *prometheus.CounterVec
	messages    *prometheus.CounterVec
	closed      *prometheus.CounterVec
	decisions   *prometheus.CounterVec
	tokens      prometheus.Counter
	swept       prometheus.Counter
	mediaErrors prometheus.Counter
}

// NewMetrics makes the metrics; counters start at 0.
func NewMetrics() *Metrics {
	m := &Metrics{
		open: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "alcove_hub_sessions_open", Help: "Sessions that a room has open."}),
		connections: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "alcove_hub_relay_connections", Help: "Relay connections by kind of peer."}, []string{"peer"}),
		joins: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "alcove_hub_joins_total", Help: "Attempts to use an invitation, by outcome."}, []string{"outcome"}),
		messages: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "alcove_hub_relay_messages_total", Help: "Messages received on the relay, by peer and kind."}, []string{"peer", "kind"}),
		closed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "alcove_hub_relay_closed_total", Help: "Relay connections that the hub closed, by reason."}, []string{"reason"}),
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "alcove_hub_decisions_total", Help: "What rooms decided about knocks and members."}, []string{"decision"}),
		tokens: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "alcove_hub_media_tokens_total", Help: "LiveKit tokens handed out."}),
		swept: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "alcove_hub_swept_participants_total", Help: "LiveKit participants removed because they were not admitted."}),
		mediaErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "alcove_hub_media_errors_total", Help: "Calls to the media server that failed."}),
	}
	for _, peer := range []string{"page", "room"} {
		m.connections.WithLabelValues(peer)
		for _, kind := range []string{"text", "binary", "dropped"} {
			m.messages.WithLabelValues(peer, kind)
		}
	}
	for _, outcome := range []string{"joined", "unknown", "used", "over", "early", "slow_down", "failed"} {
		m.joins.WithLabelValues(outcome)
	}
	for _, reason := range []string{"replaced", "slow_reader", "slow_down", "silent", "bad_message", "ended", "unlisted"} {
		m.closed.WithLabelValues(reason)
	}
	for _, decision := range []string{"open", "admit", "refuse", "remove", "close"} {
		m.decisions.WithLabelValues(decision)
	}
	return m
}

// Metrics returns the collectors to register.
func (m *Metrics) Metrics() []prometheus.Collector {
	return []prometheus.Collector{m.open, m.connections, m.joins, m.messages, m.closed, m.decisions, m.tokens, m.swept, m.mediaErrors}
}

// Joins counts attempts to use an invitation by outcome: joined, unknown, used, over, early, slow_down, failed.
func (m *Metrics) Joins() *prometheus.CounterVec { return m.joins }
