package liar

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

var full = flag.Bool("full", false, "also what takes long")

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(m.Run())
}

func start(t *testing.T) *Clinic {
	t.Helper()
	bin, err := filepath.Abs("../../../build/bin")
	if err != nil {
		t.Fatal(err)
	}
	c, err := Start(t.Context(), bin)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(c.Logs())
		}
		c.Close()
	})
	return c
}

// ready is a run whose page waits in the lobby.
type ready struct {
	i    int
	run  *Run
	page *page
	err  error
}

// windows are the browser's, used again and again: while a run takes place in one, the next is prepared in another.
func (c *Clinic) windows(t *testing.T, n int) chan *page {
	t.Helper()
	out := make(chan *page, n)
	for range n {
		p, err := c.newPage()
		if err != nil {
			t.Fatal(err)
		}
		out <- p
	}
	return out
}

// lobby prepares n runs of a lie ahead of their turn, as many at a time as there are windows to spare.
func (c *Clinic) lobby(t *testing.T, windows chan *page, lie *Lie, n int) <-chan ready {
	out, next := make(chan ready), make(chan int, n)
	for i := range n {
		next <- i
	}
	close(next)
	for range cap(windows) - 1 {
		go func() {
			for i := range next {
				var p *page
				select {
				case p = <-windows:
				case <-t.Context().Done():
					return
				}
				r, err := c.Prepare(p, lie, i)
				select {
				case out <- ready{i, r, p, err}:
				case <-t.Context().Done():
					windows <- p
					return
				}
			}
		}()
	}
	return out
}

// seed is one honest session, whose messages are there to be replayed.
func (c *Clinic) seed(t *testing.T, windows chan *page) {
	t.Helper()
	p := <-windows
	defer func() { windows <- p }()
	r, err := c.Prepare(p, Truth(), -1)
	if err == nil {
		_, err = c.tell(t, r)
	}
	if err != nil {
		t.Fatalf("the honest session: %v", err)
	}
}

// histogram counts what was drawn.
type histogram map[string]map[string]int

func (h histogram) add(what, value string) {
	if h[what] == nil {
		h[what] = make(map[string]int)
	}
	h[what][value]++
}

// complete checks that what is drawn by chance came up in all its values.
func (h histogram) complete(t *testing.T) {
	t.Helper()
	want := map[string][]string{"role": {"therapist", "patient", "guest"}, "victim": {HubToRoom.String(), HubToPage.String()}}
	for what, values := range want {
		for _, v := range values {
			if len(h[what]) > 0 && h[what][v] == 0 {
				t.Errorf("%s %q never came up", what, v)
			}
		}
	}
}

func (h histogram) String() string {
	var b strings.Builder
	for _, what := range slices.Sorted(maps.Keys(h)) {
		fmt.Fprintf(&b, "\n    %s:", what)
		for _, value := range slices.Sorted(maps.Keys(h[what])) {
			fmt.Fprintf(&b, " %s %d,", value, h[what][value])
		}
	}
	return strings.TrimSuffix(b.String(), ",")
}

// TestLiar tells every lie, each time in a session of its own: the call refuses to start or the codes differ.
func TestLiar(t *testing.T) {
	c := start(t)
	windows := c.windows(t, 3)
	c.seed(t, windows)
	for _, lie := range append([]*Lie{Truth()}, All()...) {
		t.Run(strings.ReplaceAll(lie.Name, " ", "-"), func(t *testing.T) {
			began, h, arrived, bytes := time.Now(), histogram{}, 0, 0
			runs := c.lobby(t, windows, lie, count())
			for range count() {
				r := <-runs
				i := r.i
				if r.err != nil {
					windows <- r.page
					t.Fatalf("run %d: %v", i, r.err)
				}
				o, err := c.tell(t, r.run)
				windows <- r.page
				if errors.Is(err, ErrStuck) {
					all := make([]byte, 1<<20)
					t.Fatalf("run %d: %v\n%s", i, err, all[:runtime.Stack(all, true)]) // the room is in this process
				}
				if err != nil {
					t.Errorf("run %d, %v: %v\n%+v", i, r.run.varied, err, o)
				}
				for what, value := range r.run.varied {
					h.add(what, value)
				}
				h.add("ended", string(o.Class))
				for way, reason := range o.Ends {
					h.add("said by", way.String()+" "+reason)
				}
				if o.Held > 0 {
					h.add("ended with the attacker in the session", string(o.Class))
				}
				arrived, bytes = arrived+o.Arrived, bytes+o.Bytes
				if testing.Verbose() {
					t.Logf("run %d: prepared in %v, took %v, leapt %v, %v: %s", i, r.run.prepared.Round(time.Millisecond), o.Took.Round(time.Millisecond), o.Last.Leapt.Round(time.Second), r.run.varied, o.Class)
				}
			}
			if *full {
				h.complete(t)
			}
			for _, v := range lie.Variants[:min(count(), len(lie.Variants))] {
				if h["variant"][v] == 0 {
					t.Errorf("variant %q never came up", v)
				}
			}
			t.Logf("%s: %s: %d runs, %d lies of %d bytes arrived, %v%v",
				lie.Name, lie.Does, count(), arrived, bytes, time.Since(began).Round(time.Millisecond), h)
		})
	}
}

// tell lets one run take place and judges how it ended.
func (c *Clinic) tell(t *testing.T, r *Run) (Outcome, error) {
	o, err := c.Perform(t.Context(), r)
	if e := c.Finish(r); e != nil && err == nil {
		err = e
	}
	if r.Lie.Name == "truth" {
		c.keep(r)
	}
	if err == nil && !slices.Contains(r.Lie.Ends, o.Class) {
		err = fmt.Errorf("it ended as %q", o.Class)
	}
	return o, err
}

func count() int {
	if *full {
		return 100
	}
	return 5
}
