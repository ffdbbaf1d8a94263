package hub

import (
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// TestMetrics reads the live exposition as Prometheus would: names as promtool wants them, and labels whose values
// are few and name nobody.
func TestMetrics(t *testing.T) {
	w := start(t)
	s := w.addSession()
	w.opened(s)
	res, err := http.Get("http://" + w.config.Metrics.Listen + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	labels := map[string]bool{"peer": true, "outcome": true, "kind": true, "reason": true, "decision": true, "version": true, "method": true}
	ours := 0
	for name, f := range families {
		if !strings.HasPrefix(name, "alcove_hub_") {
			if !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") && !strings.HasPrefix(name, "promhttp_") {
				t.Errorf("metric %s", name)
			}
			continue
		}
		ours++
		problems, err := promlint.NewWithMetricFamilies([]*dto.MetricFamily{f}).Lint()
		if err != nil || len(problems) > 0 {
			t.Errorf("%s: %v %v", name, problems, err)
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if !labels[l.GetName()] || len(l.GetValue()) > 32 {
					t.Errorf("%s: label %s=%q", name, l.GetName(), l.GetValue())
				}
			}
		}
	}
	if ours < 14 {
		t.Errorf("%d metrics of the hub", ours)
	}
}
