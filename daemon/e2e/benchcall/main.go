// Command benchcall measures a call against its rivals, on the same input, in the same run, and prints one line for each
// figure:
//
//	BENCH name=… value=… unit=… goal=… stretch=… n=… spread=… on=script|guest|box ok|short
//
// A line without a goal is for information. The exit code is 1 when a goal is missed, and a goal is missed only beyond
// spread: how far the rival, measured against itself in the same way and in the same run, is from 1 in the median pair; of
// a share that was counted, its standard error. `short` marks a missed goal; stretch decides nothing.
//
// # What is measured
//
// Frame encryption (two figures) is BenchmarkGoals of daemon/e2ee, run by this program: CPU time against raw AES-GCM and
// against the LiveKit SDK's encryptor.
//
// Time to the first picture and time from capture to render compare the room, in a real session over hub, key agreement
// and LiveKit, with a browser that publishes by livekit-client with its own frame encryption to the same LiveKit server
// (page/rival.ts). Both send 640×360 at 15 frames a second with the same bit rates, and a voice. The receiving page is one
// (page/receiver.ts): the call page's own connection, worker and key ring. Its clock for the first picture starts when
// the token reaches it and ends when the first frame is presented; the publisher has been sending for a while. In the
// room's case everything that a newcomer of a session goes through lies within: the round of the key agreement, the keys,
// the switch. The rival's key is given to the page together with the token. Whoever waits 300 ms without a picture asks
// the publisher for a key frame, on both sides. Render time is the expected display time of a frame, capture time the
// clock burnt into it. Each pair measures the room once and the rival twice, in an order that changes from pair to pair.
//
// The CPU share of encryption comes from CPU profiles of a running call whose room runs inside this process; a page sends
// picture and sound to it and receives its own.
//
// Memory, goroutines and descriptors are those of a room's daemon after one session and after many, each time when the
// daemon has been idle for longer than Go's forced collection takes (2 min). Before is after one session: what is made
// once, with the first, is no leak.
//
// # What is not
//
// There is no camera and no network here: capture is the test source and a canvas, the way is loopback. One machine does
// everything, so figures are upper bounds, and only ratios compare machines.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// config is what can be asked of a run.
type config struct {
	root     string // of the clone
	bin      string
	pairs    int
	joins    int // first pictures in each half of a pair
	watch    time.Duration
	sessions int
	idle     time.Duration
	profile  time.Duration
}

// group is a set of figures that are measured together.
type group struct {
	name    string
	measure func(context.Context, config, *report) error
}

var groups = []group{
	{"frames", measureFrames},
	{"start", measureStart},
	{"picture", measurePicture},
	{"cpu", measureCPU},
	{"sessions", measureSessions},
}

func main() {
	var c config
	flag.IntVar(&c.pairs, "pairs", 7, "interleaved pairs")
	flag.IntVar(&c.joins, "joins", 3, "first pictures on each side of a pair")
	flag.DurationVar(&c.watch, "watch", 5*time.Second, "how long each side of a pair is watched for its delay")
	flag.IntVar(&c.sessions, "sessions", 50, "sessions between the two looks at the daemon's memory")
	flag.DurationVar(&c.idle, "idle", 150*time.Second, "how long the daemon is left idle before each look")
	flag.DurationVar(&c.profile, "profile", 30*time.Second, "length of one CPU profile")
	flag.StringVar(&c.bin, "bin", "", "folder of the built programs (default build/bin of the clone)")
	only := flag.String("only", "", "measure only these groups, by commas: frames, start, picture, cpu, sessions")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r := newReport(os.Stdout)
	if err := run(ctx, c, *only, r); err != nil {
		fmt.Fprintln(os.Stderr, "benchcall:", err)
		os.Exit(2)
	}
	if r.missed {
		os.Exit(1)
	}
}

func run(ctx context.Context, c config, only string, r *report) error {
	var err error
	if c.root, err = clone(); err != nil {
		return err
	}
	if c.bin == "" {
		c.bin = filepath.Join(c.root, "build", "bin")
	}
	wanted := strings.FieldsFunc(only, func(r rune) bool { return r == ',' })
	r.varied("pairs=%d joins=%d watch=%v sessions=%d idle=%v profile=%v picture=%dx%d@%d", c.pairs, c.joins, c.watch,
		c.sessions, c.idle, c.profile, width, height, fps)
	for _, g := range groups {
		if len(wanted) > 0 && !slices.Contains(wanted, g.name) {
			continue
		}
		if err := g.measure(ctx, c, r); err != nil {
			return fmt.Errorf("%s: %w", g.name, err)
		}
	}
	return nil
}

// clone is the top of the clone that the command runs in.
func clone() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", fmt.Errorf("run this inside the clone")
		}
		dir = up
	}
}
