package sfu

import (
	"testing"

	dto "github.com/prometheus/client_model/go"
)

type metric struct{}

// of returns how often a supervisor has started its child.
func (metric) of(t *testing.T, s *Supervisor) float64 {
	t.Helper()
	var m dto.Metric
	if err := s.runs.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}
