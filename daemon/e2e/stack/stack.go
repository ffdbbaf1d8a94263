// Package stack starts a whole clinic for tests and measurements: hub with its LiveKit child, room, capture
// process, keys and documents, with the built programs and over their public interfaces alone. Everything
// listens on one address, on loopback unless told otherwise, and ends with Stop.
package stack

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/alcove-room/alcove/daemon"
	"github.com/alcove-room/alcove/daemon/session"
)

// Options is what differs between clinics. The zero value is a demonstration on loopback with a test source.
type Options struct {
	Bin     string   // folder of the built programs
	Capture []string // capture command; default: the test source
	// DevicesURL and PeopleURL, when set, are the addresses at which room and pages find the hub, instead of the
	// hub's own: a proxy stands there.
	DevicesURL, PeopleURL string
	// Ports are, for whoever has to know them before the start: page, people, devices, the hub's metrics, LiveKit's
	// signalling, LiveKit's media, the room's metrics. Default: FreePorts.
	Ports              []int
	HubYAML            string   // more lines of hub.yaml
	RoomNS             string   // network namespace that the room runs in
	Addr               string   // address that the hub listens on; default 127.0.0.1
	Width, Height, FPS int      // of the room's picture; default 640×360 at 15
	Codecs             []string // of the room's picture, the best first; default vp8
	// PageOrigin is where the pages are served, when that is not the hub.
	PageOrigin string
	// LiveKit are the lines of hub.yaml's livekit mapping, in flow form, for a media server that is not the hub's child.
	LiveKit string
	// Sink, when set, makes the room run inside this process, with what arrives handed to it.
	Sink session.Sink
	// Clock is what the sessions of a room inside this process go by; nil is the machine's.
	Clock session.Clock
	// Dir is an empty folder for everything, for whoever has to know the place before the start: the hub's state is
	// in hub, its admin socket hub.sock, the room's state in state, its control socket run/control.sock. Default: a
	// new one.
	Dir string
}

// Stack is a running clinic with one room.
type Stack struct {
	Dir         string
	PageOrigin  string
	PeopleURL   string
	DevicesURL  string
	MetricsURL  string // the room's
	Room        string
	opt         Options
	adminSocket string
	control     string
	hub, room   *Process
	endInside   func()
	ports       []int
}

// Process is one started program. Its output is kept in a file.
type Process struct {
	Cmd  *exec.Cmd
	Log  string
	done chan struct{}
	once sync.Once
}

// Start makes the clinic and waits until the room is enrolled.
func Start(ctx context.Context, opt Options) (*Stack, error) {
	dir, err := opt.Dir, error(nil)
	if dir == "" {
		dir, err = os.MkdirTemp("", "alcove-e2e-")
	}
	if err != nil {
		return nil, err
	}
	if opt.Addr == "" {
		opt.Addr = "127.0.0.1"
	}
	if opt.Width == 0 {
		opt.Width, opt.Height, opt.FPS = 640, 360, 15
	}
	if len(opt.Codecs) == 0 {
		opt.Codecs = []string{"vp8"}
	}
	s := &Stack{Dir: dir, opt: opt, Room: "room-1"}
	if err := s.start(ctx); err != nil {
		logs := s.Logs()
		s.Stop()
		return nil, fmt.Errorf("%w\n%s", err, logs)
	}
	return s, nil
}

func (s *Stack) start(ctx context.Context) error {
	var err error
	if s.ports = s.opt.Ports; len(s.ports) == 0 {
		if s.ports, err = FreePorts(s.opt.Addr, PortCount); err != nil {
			return err
		}
	}
	at := func(i int) string { return net.JoinHostPort(s.opt.Addr, strconv.Itoa(s.ports[i])) }
	s.PageOrigin = fmt.Sprintf("http://localhost:%d", s.ports[0])
	if s.opt.PageOrigin != "" {
		s.PageOrigin = s.opt.PageOrigin
	}
	media := fmt.Sprintf("node_ip: %s, signal_port: %d, udp_port: %d", s.opt.Addr, s.ports[4], s.ports[5])
	if s.opt.LiveKit != "" {
		media = s.opt.LiveKit
	}
	s.PeopleURL, s.DevicesURL = "http://localhost:"+strconv.Itoa(s.ports[1]), "https://"+at(2)
	if s.opt.PeopleURL != "" {
		s.PeopleURL = s.opt.PeopleURL
	}
	devices := s.DevicesURL
	if s.opt.DevicesURL != "" {
		devices = s.opt.DevicesURL
	}
	s.MetricsURL = "http://127.0.0.1:" + strconv.Itoa(s.ports[6]) + "/metrics"
	s.adminSocket, s.control = filepath.Join(s.Dir, "hub.sock"), filepath.Join(s.Dir, "run", "control.sock")
	passphrase := make([]byte, 16)
	if _, err := rand.Read(passphrase); err != nil {
		return err
	}
	capture := s.opt.Capture
	if len(capture) == 0 {
		capture = []string{filepath.Join(s.opt.Bin, "alcove-capture"), "--source=test"}
	}
	command, err := json.Marshal(capture)
	if err != nil {
		return err
	}
	codecs, err := json.Marshal(s.opt.Codecs)
	if err != nil {
		return err
	}
	files := map[string]string{
		// Sign-in by passkey or provider does not exist here, so the server's word is the clinic's policy.
		"config.json": fmt.Sprintf(`{"call_origin":%q,"video":{"codecs":%s,"width":%d,"height":%d,"fps":%d,"max_bitrate":800000},
"audio":{"bitrate":32000},"policy":{"min_assurance":{"therapist":1,"patient":1,"guest":1}},"crisis":{"line":"988","text":"","place":""}}`,
			s.PageOrigin, codecs, s.opt.Width, s.opt.Height, s.opt.FPS),
		"passphrase": hex.EncodeToString(passphrase),
		"hub.yaml": fmt.Sprintf(`state: %q
call_origin: %s
page: { listen: "127.0.0.1:%d" }
people: { listen: "127.0.0.1:%d", url: %q }
devices: { listen: %q, url: %q }
metrics: { listen: "127.0.0.1:%d" }
livekit: { %s }
admin: { socket: %q }
%s`, filepath.Join(s.Dir, "hub"), s.PageOrigin, s.ports[0], s.ports[1], s.PeopleURL, at(2), devices, s.ports[3],
			media, s.adminSocket, s.opt.HubYAML),
		"alcoved.yaml": fmt.Sprintf("state_dir: %q\nrun_dir: %q\nclaim: %q\ncapture: %s\nmetrics: \"127.0.0.1:%d\"\n",
			filepath.Join(s.Dir, "state"), filepath.Join(s.Dir, "run"), filepath.Join(s.Dir, "claim.json"), command, s.ports[6]),
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(s.Dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return s.provision(ctx, devices)
}

// provision follows the same steps as a person who tries Alcove out (provisioning/tryout/run).
func (s *Stack) provision(ctx context.Context, devices string) error {
	root, claim, hubConf := s.path("owner-root.json"), s.path("claim.json"), s.path("hub.yaml")
	pin, err := s.Run(ctx, "alcove-hub", "init", "--state", s.path("hub"))
	if err != nil {
		return err
	}
	for _, args := range [][]string{
		{"init"},
		{"root", "create", "--demo", "--clinic", "Test clinic", "--pin", strings.TrimSpace(pin), "--out", root},
	} {
		if err := s.ctl(ctx, args...); err != nil {
			return err
		}
	}
	if _, err := s.Run(ctx, "alcove-hub", "trust", "--config", hubConf, "--owner-root", root); err != nil {
		return err
	}
	if err := s.StartHub(ctx); err != nil {
		return err
	}
	if err := s.ctl(ctx, "claim", "create", "--hub", devices, "--room", s.Room, "--label", "Room 1", "--out", claim); err != nil {
		return err
	}
	if err := s.startRoom(); err != nil {
		return err
	}
	if err := s.until(ctx, 20*time.Second, func() error { return s.ctl(ctx, "enrol", "approve", claim) }); err != nil {
		return err
	}
	for _, args := range [][]string{{"roster", "sign"}, {"people", "sign"},
		{"config", "sign", s.path("config.json")}, {"documents", "push"}} {
		if err := s.ctl(ctx, args...); err != nil {
			return err
		}
	}
	return s.until(ctx, 20*time.Second, func() error {
		st, err := s.Status(ctx)
		if err == nil && (!st.Enrolled || !st.HubUp) {
			err = errors.New("the room is not enrolled yet")
		}
		return err
	})
}

func (s *Stack) path(name string) string { return filepath.Join(s.Dir, name) }

// StartHub starts the hub and waits until it answers.
func (s *Stack) StartHub(ctx context.Context) error {
	var err error
	if s.hub, err = s.spawn("hub", exec.Command(s.bin("alcove-hub"), "serve", "--config", s.path("hub.yaml"))); err != nil {
		return err
	}
	return s.until(ctx, 30*time.Second, func() error {
		_, err := s.Run(ctx, "alcove-hub", "session", "list", "--socket", s.adminSocket)
		return err
	})
}

func (s *Stack) startRoom() error {
	if s.opt.Sink != nil {
		return s.startInside()
	}
	args := []string{s.bin("alcoved"), "serve", "--config", s.path("alcoved.yaml")}
	if s.opt.RoomNS != "" {
		args = append([]string{"ip", "netns", "exec", s.opt.RoomNS}, args...)
	}
	var err error
	s.room, err = s.spawn("room", exec.Command(args[0], args[1:]...))
	return err
}

// startInside runs the room in this process.
func (s *Stack) startInside() error {
	conf, err := daemon.ReadConfig(s.path("alcoved.yaml"))
	if err != nil {
		return err
	}
	out, err := os.OpenFile(s.path("room.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer out.Close()
		if err := daemon.Run(ctx, conf, daemon.Options{Version: "e2e", Stderr: out, Sink: s.opt.Sink, Clock: s.opt.Clock}); err != nil {
			fmt.Fprintln(out, "room ended:", err)
		}
	}()
	s.endInside = func() { cancel(); <-done }
	return nil
}

// RestartRoom ends the room's daemon and starts it again.
func (s *Stack) RestartRoom(ctx context.Context) error {
	s.room.stop()
	if err := s.startRoom(); err != nil {
		return err
	}
	return s.until(ctx, 20*time.Second, func() error {
		st, err := s.Status(ctx)
		if err == nil && !st.HubUp {
			err = errors.New("the room has not reached the hub yet")
		}
		return err
	})
}

// HubPID and RoomPID are the processes that this stack started.
func (s *Stack) HubPID() int { return s.hub.Cmd.Process.Pid }

// RoomPID is the room daemon's process, or that of its namespace's launcher.
func (s *Stack) RoomPID() int { return s.room.Cmd.Process.Pid }

// SFUPID is the hub's LiveKit child.
func (s *Stack) SFUPID() (int, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", s.HubPID(), s.HubPID()))
	if err != nil {
		return 0, err
	}
	// A child is listed under the thread that started it.
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", s.HubPID()))
	if err != nil {
		return 0, err
	}
	for _, t := range tasks {
		if more, err := os.ReadFile(t); err == nil {
			raw = append(raw, more...)
		}
	}
	for _, f := range strings.Fields(string(raw)) {
		cmdline, err := os.ReadFile("/proc/" + f + "/cmdline")
		if err == nil && bytes.Contains(cmdline, []byte("\x00sfu")) {
			return strconv.Atoi(f)
		}
	}
	return 0, errors.New("the hub has no SFU child")
}

func (s *Stack) bin(name string) string { return filepath.Join(s.opt.Bin, name) }

func (s *Stack) spawn(name string, cmd *exec.Cmd) (*Process, error) {
	p := &Process{Cmd: cmd, Log: s.path(name + ".log"), done: make(chan struct{})}
	out, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		_ = cmd.Wait() // how a process ends is judged by what it did, not by its status
		close(p.done)
	}()
	return p, nil
}

func (p *Process) stop() {
	if p == nil {
		return
	}
	p.once.Do(func() {
		_ = p.Cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(8 * time.Second):
			_ = p.Cmd.Process.Kill()
			<-p.done
		}
	})
}

// Run runs one of the built programs to its end and returns what it printed.
func (s *Stack) Run(ctx context.Context, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, s.bin(program), args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

func (s *Stack) ctl(ctx context.Context, args ...string) error {
	_, err := s.Run(ctx, "alcovectl", append([]string{"--keys", s.path("keys"), "--passphrase-file", s.path("passphrase")}, args...)...)
	return err
}

func (s *Stack) until(ctx context.Context, limit time.Duration, try func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := try()
		if err == nil || time.Now().After(deadline) || ctx.Err() != nil {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

var linkForm = regexp.MustCompile(`https?://[^ \n"]*#[^ \n"]*`)

// Session makes a session now with one person, as role:name, and returns the link of the invitation.
func (s *Stack) Session(ctx context.Context, who string) (string, error) {
	links, err := s.Links(ctx, who)
	if err != nil {
		return "", err
	}
	return links[0], nil
}

// Links makes a session now with these people, as role:name, and returns the links of their invitations.
func (s *Stack) Links(ctx context.Context, who ...string) ([]string, error) {
	args := []string{"session", "add", "--socket", s.adminSocket, "--room", s.Room, "--length", "2h", "--invite"}
	for _, w := range who {
		args = append(args, "--with", w)
	}
	out, err := s.Run(ctx, "alcove-hub", args...)
	if err != nil {
		return nil, err
	}
	links := linkForm.FindAllString(out, -1)
	if len(links) != len(who) {
		return nil, fmt.Errorf("%d links for %d people in %q", len(links), len(who), out)
	}
	return links, nil
}

// Press runs `alcoved room verb…`.
func (s *Stack) Press(ctx context.Context, verb ...string) (Status, error) {
	var st Status
	out, err := s.Run(ctx, "alcoved", append([]string{"room", "--socket", s.control, "--json"}, verb...)...)
	if err != nil {
		return st, err
	}
	return st, json.Unmarshal([]byte(out), &st)
}

// Status is `alcoved room status`.
func (s *Stack) Status(ctx context.Context) (Status, error) { return s.Press(ctx, "status") }

// Await polls the room's status until ok, for at most limit.
func (s *Stack) Await(ctx context.Context, limit time.Duration, what string, ok func(Status) bool) (Status, error) {
	deadline := time.Now().Add(limit)
	for {
		st, err := s.Status(ctx)
		if err == nil && ok(st) {
			return st, nil
		}
		if time.Now().After(deadline) {
			raw, _ := json.Marshal(st)
			return st, fmt.Errorf("%s did not come about in %v; the room says %s (%v)", what, limit, raw, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// Status is the part of the room's state that tests look at.
type Status struct {
	Enrolled bool           `json:"enrolled"`
	HubUp    bool           `json:"hub_up"`
	Camera   string         `json:"camera"`
	Trouble  string         `json:"trouble"`
	LastEnd  string         `json:"last_end"`
	Session  *SessionStatus `json:"session"`
}

// SessionStatus is the open session.
type SessionStatus struct {
	State    string   `json:"state"`
	Reason   string   `json:"reason"`
	Code     string   `json:"code"`
	Pictures []string `json:"pictures"`
	Epoch    uint32   `json:"epoch"`
	Sending  bool     `json:"sending"`
	LineUp   bool     `json:"line_up"`
	Waiting  []Person `json:"waiting"`
	People   []Person `json:"people"`
}

// Person waits or takes part.
type Person struct {
	ID       string   `json:"id"`
	Name     string   `json:"name"`
	Role     string   `json:"role"`
	Received Received `json:"received"`
}

// Received is what came from a person.
type Received struct {
	VideoFrames  uint64  `json:"video_frames"`
	Width        uint32  `json:"width"`
	Height       uint32  `json:"height"`
	AudioPackets uint64  `json:"audio_packets"`
	Level        float64 `json:"level_dbfs"`
	Rejected     uint64  `json:"rejected_frames"`
}

// Logs returns the end of what the programs said.
func (s *Stack) Logs() string {
	var b strings.Builder
	for _, name := range []string{"hub.log", "room.log"} {
		raw, err := os.ReadFile(s.path(name))
		if err != nil {
			continue
		}
		if len(raw) > 6000 {
			raw = raw[len(raw)-6000:]
		}
		fmt.Fprintf(&b, "--- %s\n%s\n", name, raw)
	}
	if m, err := s.Metrics(); err == nil {
		for _, line := range strings.Split(m, "\n") {
			if strings.HasPrefix(line, "alcove_") && !strings.HasSuffix(line, " 0") {
				fmt.Fprintln(&b, line)
			}
		}
	}
	return b.String()
}

// Metrics is the room's Prometheus page.
func (s *Stack) Metrics() (string, error) {
	client := http.Client{Timeout: 2 * time.Second}
	res, err := client.Get(s.MetricsURL)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	return string(raw), err
}

// Stop ends everything and removes the clinic.
func (s *Stack) Stop() {
	if s.endInside != nil {
		s.endInside()
	}
	s.room.stop()
	s.hub.stop()
	os.RemoveAll(s.Dir)
}

// PortCount is how many ports a clinic takes.
const PortCount = 7

// FreePorts finds n ports that are free for TCP and UDP at addr.
func FreePorts(addr string, n int) ([]int, error) {
	var out []int
	var open []net.Listener
	defer func() {
		for _, l := range open {
			l.Close()
		}
	}()
	// Below the ports that the kernel gives to outgoing connections (ip_local_port_range): nobody else's connection can
	// take one before the clinic listens.
	port := 15000 + mathrand.IntN(12000)
	for tries := 0; len(out) < n; tries++ {
		if tries > 5000 {
			return nil, errors.New("no free ports")
		}
		port++
		l, err := net.Listen("tcp", net.JoinHostPort(addr, strconv.Itoa(port)))
		if err != nil {
			continue
		}
		open = append(open, l)
		u, err := net.ListenPacket("udp", net.JoinHostPort(addr, strconv.Itoa(port)))
		if err != nil {
			continue
		}
		u.Close()
		out = append(out, port)
	}
	return out, nil
}
