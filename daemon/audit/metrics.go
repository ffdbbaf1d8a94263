package audit

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	entries *prometheus.CounterVec
	refused prometheus.Counter
	lost    prometheus.Counter
	waiting prometheus.Gauge
	reserve prometheus.Gauge
}

func newMetrics() metrics {
	m := metrics{
		entries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "alcove_audit_entries_total", Help: "Audit entries written, by action.",
		}, []string{"action"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "alcove_audit_refused_total", Help: "Actions refused because their audit entry could not be written.",
		}),
		lost: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "alcove_audit_lost_total", Help: "Closing entries that could neither be written nor kept in memory.",
		}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "alcove_audit_waiting_entries", Help: "Closing entries that wait in memory to be written.",
		}),
		reserve: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "alcove_audit_reserve_whole", Help: "1 while the space reserved for closing entries is untouched.",
		}),
	}
	for action := range classes() {
		m.entries.WithLabelValues(string(action))
	}
	return m
}

func (m *metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.entries, m.refused, m.lost, m.waiting, m.reserve}
}
