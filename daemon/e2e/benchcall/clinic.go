package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/alcove-room/alcove/daemon/e2e/browser"
	"github.com/alcove-room/alcove/daemon/e2e/stack"
	"github.com/alcove-room/alcove/daemon/session"
)

// The picture of both sides.
const (
	width, height, fps = 640, 360, 15
	videoBits          = 800_000
	audioBits          = 32_000
)

const (
	keeper = "Keeper" // holds a session open
	viewer = "Viewer" // is measured
)

// clinic is a hub with a room, a LiveKit server that the rival may use as well, and a browser to receive in.
type clinic struct {
	*stack.Stack
	livekit *stack.LiveKit
	pages   *pages
	viewers *browser.Browser
	probe   string
	links   map[string]string // of the present session, by name
}

func newClinic(ctx context.Context, c config, sink session.Sink) (*clinic, error) {
	k := &clinic{}
	if err := k.start(ctx, c, sink); err != nil {
		k.Close()
		return nil, err
	}
	return k, nil
}

func (k *clinic) start(ctx context.Context, c config, sink session.Sink) error {
	probe, err := os.ReadFile(filepath.Join(c.root, "daemon", "e2e", "probe.js"))
	if err != nil {
		return err
	}
	k.probe = string(probe)
	if k.pages, err = servePages(ctx, c.root); err != nil {
		return err
	}
	if k.livekit, err = stack.StartLiveKit(ctx, c.bin); err != nil {
		return err
	}
	if k.viewers, err = browser.Start(ctx, browser.Options{}); err != nil {
		return err
	}
	k.Stack, err = stack.Start(ctx, stack.Options{
		Bin: c.bin, PageOrigin: k.pages.Origin, LiveKit: k.livekit.Section(k.signal()), Sink: sink,
		Width: width, Height: height, FPS: fps,
	})
	return err
}

// signal is where clients reach LiveKit.
func (k *clinic) signal() string { return "ws" + strings.TrimPrefix(k.livekit.URL, "http") }

// Close ends everything.
func (k *clinic) Close() {
	if k.Stack != nil {
		k.Stop()
	}
	if k.viewers != nil {
		k.viewers.Close()
	}
	if k.livekit != nil {
		k.livekit.Stop()
	}
	if k.pages != nil {
		k.pages.Close()
	}
}

// newSession makes a session for these people, who are role:name, and waits until the room has opened it.
func (k *clinic) newSession(ctx context.Context, people ...string) error {
	args := []string{"session", "add", "--socket", filepath.Join(k.Dir, "hub.sock"), "--room", k.Room, "--length", "2h", "--invite", "--json"}
	for _, p := range people {
		args = append(args, "--with", p)
	}
	out, err := k.Run(ctx, "alcove-hub", args...)
	if err != nil {
		return err
	}
	var made struct {
		Participants []struct{ Name, Link string } `json:"participants"`
	}
	if err := json.Unmarshal([]byte(out), &made); err != nil {
		return fmt.Errorf("read the new session: %w", err)
	}
	k.links = make(map[string]string)
	for _, p := range made.Participants {
		_, fragment, ok := strings.Cut(p.Link, "#")
		if !ok {
			return errors.New("an invitation has no fragment")
		}
		k.links[p.Name] = fragment
	}
	_, err = k.Await(ctx, 10*time.Second, "an open session", func(st stack.Status) bool { return st.Session != nil })
	return err
}

// knock opens the measuring page in b and has it knock, with the devices that it will send of.
func (k *clinic) knock(ctx context.Context, b *browser.Browser, name string, devices ...string) (*browser.Page, error) {
	p, err := b.Open(k.pages.url("receiver.html", k.links[name]), k.probe)
	if err != nil {
		return nil, err
	}
	quoted, err := json.Marshal(append([]string{}, devices...))
	if err != nil {
		return nil, err
	}
	if err := p.Eval("bench.member(..."+string(quoted)+")", nil); err != nil {
		return p, fmt.Errorf("%w\n%s", err, p.Said())
	}
	_, err = k.Await(ctx, 10*time.Second, name+" waits", func(st stack.Status) bool {
		return st.Session != nil && len(st.Session.Waiting) == 1 && st.Session.Waiting[0].Name == name
	})
	return p, err
}

// here waits until the room counts n people in.
func (k *clinic) here(ctx context.Context, n int) error {
	_, err := k.Await(ctx, 15*time.Second, fmt.Sprintf("%d people in", n), func(st stack.Status) bool {
		return st.Session != nil && len(st.Session.People) == n && st.Session.Sending
	})
	return err
}

// times are a receiving page's, in milliseconds since 1970.
type times struct {
	Token      float64 `json:"token"`
	Agreed     float64 `json:"agreed"`
	Subscribed float64 `json:"subscribed"`
	First      float64 `json:"first"`
	Asked      int     `json:"asked"`
	Over       string  `json:"over"`
}

// picture waits for the page's first frame.
func picture(p *browser.Page) (times, error) {
	var t times
	if err := p.Eval("Promise.race([bench.picture(), new Promise((_, no) => setTimeout(() => no(new Error('no picture in 20 s: ' + JSON.stringify(bench.times()))), 20000))])", &t); err != nil {
		return t, fmt.Errorf("%w\n%s", err, p.Said())
	}
	return t, nil
}

// delays watches a page for a while and returns, for each picture that it showed, the milliseconds from the clock
// burnt into it to its display.
func delays(p *browser.Page, watch time.Duration) ([]float64, error) {
	if err := p.Eval("probe.clear()", nil); err != nil {
		return nil, err
	}
	time.Sleep(watch)
	var stamps []struct{ Clock, Shown float64 }
	if err := p.Eval("probe.stamps()", &stamps); err != nil {
		return nil, err
	}
	var out []float64
	for _, s := range stamps {
		out = append(out, s.Shown-s.Clock)
	}
	// A machine that is too busy shows few of them, of either side; hardly any means that something is broken.
	if want := watch.Seconds() * fps / 10; float64(len(out)) < want {
		return nil, fmt.Errorf("only %d pictures in %v could be read", len(out), watch)
	}
	return out, nil
}

// goodbye lets a page leave and closes it.
func goodbye(p *browser.Page) {
	_ = p.Eval("bench.leave()", nil) // the page is closed in any case
	p.Close()
}
