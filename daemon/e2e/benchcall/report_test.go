package main

import (
	"math"
	"strings"
	"testing"
)

func TestVerdicts(t *testing.T) {
	nan := math.NaN()
	for _, c := range []struct {
		name                string
		value, goal, spread float64
		missed              bool
	}{
		{"reached", 1.05, 1.1, 0.02, false},
		{"missed within the spread", 1.11, 1.1, 0.02, false},
		{"missed", 1.13, 1.1, 0.02, true},
		{"no spread", 1.11, 1.1, nan, true},
		{"no goal", 7, nan, nan, false},
		{"not measured", nan, 1.1, 0.02, true},
		{"spread not measured", 1.2, 1.1, nan, true},
		{"nothing left over", 0, 0, nan, false},
		{"one left over", 1, 0, nan, true},
	} {
		var out strings.Builder
		r := newReport(&out)
		r.add(figure{name: "x", unit: "ratio", value: c.value, goal: c.goal, stretch: none, spread: c.spread, n: 7})
		verdict := "ok"
		if c.missed {
			verdict = "short"
		}
		if r.missed != c.missed || !strings.HasSuffix(out.String(), " on=script "+verdict+"\n") {
			t.Errorf("%s: missed %v, %s", c.name, r.missed, out.String())
		}
	}
}

func TestQuantiles(t *testing.T) {
	v := []float64{4, 1, 3, 2}
	for q, want := range map[float64]float64{0: 1, 0.5: 2.5, 1: 4, 0.95: 3.85} {
		if got := quantile(v, q); math.Abs(got-want) > 1e-9 {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	if !math.IsNaN(quantile(nil, 0.5)) {
		t.Error("nothing has a median")
	}
	if got := offOne([]float64{0.9, 1.2, 1}); math.Abs(got-0.1) > 1e-9 {
		t.Errorf("off one by %v", got)
	}
}

func TestPassedLinesDecide(t *testing.T) {
	var out strings.Builder
	r := newReport(&out)
	n := r.pass("goos: linux\nBENCH name=a value=1 ok\nBENCH name=b value=9 short\nPASS\n")
	if n != 2 || !r.missed || strings.Contains(out.String(), "PASS") {
		t.Errorf("%d lines, missed %v: %s", n, r.missed, out.String())
	}
}
