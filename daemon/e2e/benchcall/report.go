package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// none is a goal, stretch or spread that a figure does not have.
var none = math.NaN()

// figure is one line. Less is better in all of them.
type figure struct {
	name, unit           string
	value, goal, stretch float64
	spread               float64
	n                    int
	comparison           string // printed beside the line, for people
}

// missed says that the goal was missed. What could not be measured reaches no goal; what has none misses none.
func (f figure) missed() bool {
	switch {
	case math.IsNaN(f.goal):
		return false
	case math.IsNaN(f.spread):
		return !(f.value <= f.goal)
	}
	return !(f.value <= f.goal+f.spread)
}

// report prints figures as they come and remembers whether a goal was missed.
type report struct {
	w      io.Writer
	missed bool
}

func newReport(w io.Writer) *report { return &report{w: w} }

func (r *report) add(f figure) {
	verdict := "ok"
	if f.missed() {
		verdict, r.missed = "short", true
	}
	fmt.Fprintf(r.w, "BENCH name=%s value=%s unit=%s goal=%s stretch=%s n=%d spread=%s on=script %s\n",
		f.name, number(f.value), f.unit, number(f.goal), number(f.stretch), f.n, number(f.spread), verdict)
	if f.comparison != "" {
		fmt.Fprintf(r.w, "  %s\n", f.comparison)
	}
}

// varied prints what a run varied.
func (r *report) varied(format string, a ...any) { fmt.Fprintf(r.w, "varied: "+format+"\n", a...) }

// pass passes on the lines of another benchmark.
func (r *report) pass(lines string) (n int) {
	for line := range strings.Lines(lines) {
		if strings.HasPrefix(line, "BENCH ") {
			n++
			fmt.Fprint(r.w, line)
			r.missed = r.missed || strings.HasSuffix(strings.TrimSpace(line), " short")
		}
	}
	return n
}

func number(f float64) string {
	if math.IsNaN(f) {
		return "-"
	}
	return strconv.FormatFloat(f, 'f', decimals(f), 64)
}

func decimals(f float64) int {
	if math.Abs(f) >= 100 || f == math.Trunc(f) {
		return 0
	}
	return 3
}

// quantile is the q-th quantile of values, between neighbours by their distance; NaN of none.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	v := slices.Sorted(slices.Values(values))
	at := q * float64(len(v)-1)
	low := int(at)
	if low+1 >= len(v) {
		return v[len(v)-1]
	}
	return v[low] + (at-float64(low))*(v[low+1]-v[low])
}

func median(values []float64) float64 { return quantile(values, 0.5) }

// histogram says how many values are in each bucket of a width.
func histogram(values []float64, width float64) string {
	if len(values) == 0 {
		return "nothing"
	}
	buckets := map[int]int{}
	var order []int
	for _, v := range values {
		b := int(v / width)
		if buckets[b] == 0 {
			order = append(order, b)
		}
		buckets[b]++
	}
	slices.Sort(order)
	var out []string
	for _, b := range order {
		out = append(out, fmt.Sprintf("%g–%g:%d", float64(b)*width, float64(b+1)*width, buckets[b]))
	}
	return strings.Join(out, " ")
}

// compared is one quantity, measured in pairs: ours once and the rival twice in each.
type compared struct {
	ours, rival, again [][]float64 // by pair
}

// ratios are, pair by pair, one side's median by the other's.
func ratios(one, other [][]float64) []float64 {
	out := make([]float64, len(one))
	for i := range one {
		out[i] = median(one[i]) / median(other[i])
	}
	return out
}

// offOne is how far ratios of something with itself are from 1: the median of their distances. Of normally distributed
// ratios it is two thirds of their standard deviation, and so, with seven pairs, one and a half standard errors of the
// median that is judged by it.
func offOne(ratios []float64) float64 {
	out := make([]float64, len(ratios))
	for i, r := range ratios {
		out[i] = math.Abs(r - 1)
	}
	return median(out)
}

// both is what the rival showed in either of its halves.
func (c compared) both() [][]float64 {
	out := make([][]float64, len(c.rival))
	for i := range c.rival {
		out[i] = append(slices.Clone(c.rival[i]), c.again[i]...)
	}
	return out
}

func pooled(pairs [][]float64) []float64 { return slices.Concat(pairs...) }

// report adds the median and the 95th percentile against the rival's.
func (c compared) report(r *report, name string, goal, stretch, goal95, bucket float64) {
	ours, rival := pooled(c.ours), pooled(c.both())
	quantiles := func(q float64) string {
		return fmt.Sprintf("room %.1f ms, rival %.1f ms", quantile(ours, q), quantile(rival, q))
	}
	r.add(figure{
		name: name + "_p50", unit: "ratio", value: median(ratios(c.ours, c.both())), goal: goal, stretch: stretch,
		spread: offOne(ratios(c.rival, c.again)), n: len(c.ours), comparison: quantiles(0.5),
	})
	r.add(figure{
		name: name + "_p95", unit: "ratio", value: quantile(ours, 0.95) / quantile(rival, 0.95), goal: goal95, stretch: none,
		spread: math.Abs(quantile(pooled(c.rival), 0.95)/quantile(pooled(c.again), 0.95) - 1), n: len(ours),
		comparison: quantiles(0.95),
	})
	r.varied("%s of the room, ms: %s", name, histogram(ours, bucket))
	r.varied("%s of the rival, ms: %s", name, histogram(rival, bucket))
}
