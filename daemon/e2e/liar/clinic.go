package liar

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	_ "embed"

	"github.com/chromedp/chromedp"

	"github.com/alcove-room/alcove/daemon/e2e/browser"
	"github.com/alcove-room/alcove/daemon/e2e/stack"
	"github.com/alcove-room/alcove/daemon/e2ee/agreement"
)

//go:embed page.js
var pageScript string

// Clinic is a whole clinic with a liar in the place of its hub, and a browser.
type Clinic struct {
	*stack.Stack
	clock   *Clock
	proxy   *Proxy
	browser *browser.Browser
	control *http.Client
	admin   *http.Client
	hash    [32]byte
	bank    []banked // what honest ends of earlier runs said
}

// sink drops what arrives in the room; with it the room runs inside this process.
type sink struct{}

func (sink) Frame(string, string, []byte, uint32) {}

// Start starts the clinic from the built programs in bin.
func Start(ctx context.Context, bin string) (*Clinic, error) {
	dir, err := os.MkdirTemp("", "alcove-liar-")
	if err != nil {
		return nil, err
	}
	ports, err := stack.FreePorts("127.0.0.1", stack.PortCount)
	if err != nil {
		return nil, err
	}
	atPeople, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	atDevices, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	c := &Clinic{clock: NewClock()}
	people := &url.URL{Scheme: "http", Host: "127.0.0.1:" + strconv.Itoa(ports[1])}
	devices := &url.URL{Scheme: "https", Host: "127.0.0.1:" + strconv.Itoa(ports[2])}
	c.proxy = newProxy(dir, people, devices, "http://localhost:"+strconv.Itoa(ports[0]), atPeople, atDevices)
	port := func(l net.Listener) string { return strconv.Itoa(l.Addr().(*net.TCPAddr).Port) }
	c.Stack, err = stack.Start(ctx, stack.Options{Bin: bin, Dir: dir, Ports: ports, Sink: sink{}, Clock: c.clock,
		PeopleURL: "http://localhost:" + port(atPeople), DevicesURL: "https://127.0.0.1:" + port(atDevices)})
	if err != nil {
		c.proxy.close()
		return nil, err
	}
	c.control, c.admin = overSocket(filepath.Join(dir, "run", "control.sock")), overSocket(filepath.Join(dir, "hub.sock"))
	if c.browser, err = browser.Start(context.Background(), browser.Options{Flags: map[string]any{
		"window-size": "640,400", "force-prefers-reduced-motion": true}}); err != nil {
		c.Close()
		return nil, err
	}
	sid, _, link, err := c.appointment(agreement.RoleGuest, "Nobody")
	if err == nil {
		err = c.clinicHash(link)
	}
	if err == nil {
		err = c.cancel(sid)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Close ends everything.
func (c *Clinic) Close() {
	if c.browser != nil {
		c.browser.Close()
	}
	c.proxy.close()
	c.Stop()
}

func overSocket(path string) *http.Client {
	return &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}}}
}

func call(client *http.Client, method, path string, body, out any) error {
	raw, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequest(method, "http://socket"+path, bytes.NewReader(raw))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	raw, err = io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %s", method, path, res.Status, raw)
	}
	if out == nil || len(raw) == 0 {
		return nil
	}
	return json.Unmarshal(raw, out)
}

// page is a window of the browser that is used for one run after another.
type page struct {
	*browser.Page
	used bool
}

// open loads the link. A used window is given the new fragment: the page loads itself anew then, which costs a tenth of
// a renderer's start.
func (p *page) open(link string) error {
	if !p.used {
		p.used = true
		ctx, cancel := context.WithTimeout(p.Context(), 30*time.Second)
		defer cancel()
		return chromedp.Run(ctx, chromedp.Navigate(link))
	}
	_, fragment, _ := strings.Cut(link, "#")
	if err := p.Eval(fmt.Sprintf("(liar.old = true, location.hash = %q, true)", fragment), nil); err != nil {
		return err
	}
	return p.Await(30*time.Second, "!liar.old && document.readyState === 'complete'")
}

func (c *Clinic) newPage() (*page, error) {
	p, err := c.browser.Open("about:blank", pageScript)
	return &page{Page: p}, err
}

var roles = []agreement.Role{agreement.RoleTherapist, agreement.RolePatient, agreement.RoleGuest}

// appointment makes a session in the hub, with one person, and returns its id, theirs and the link.
func (c *Clinic) appointment(role agreement.Role, name string) (sid, person, link string, err error) {
	now := time.Now()
	var made struct {
		SID          string `json:"sid"`
		Participants []struct {
			ID string `json:"id"`
		} `json:"participants"`
	}
	err = call(c.admin, "POST", "/v1/sessions", map[string]any{"room": c.Room, "starts": now.UTC(), "ends": now.Add(time.Hour).UTC(),
		"participants": []any{map[string]any{"role": role.String(), "name": name}}}, &made)
	if err != nil {
		return "", "", "", err
	}
	var invited struct {
		Link string `json:"link"`
	}
	err = call(c.admin, "POST", "/v1/sessions/"+made.SID+"/invitations", map[string]any{"participant": made.Participants[0].ID}, &invited)
	return made.SID, made.Participants[0].ID, invited.Link, err
}

func (c *Clinic) cancel(sid string) error {
	return call(c.admin, "DELETE", "/v1/sessions/"+sid, nil, nil)
}

// Prepare makes the i-th run of a lie and brings its page to the lobby.
func (c *Clinic) Prepare(p *page, lie *Lie, i int) (*Run, error) {
	start := time.Now()
	random := rand.New(rand.NewPCG(uint64(i), hashName(lie.Name)))
	r := &Run{Lie: lie, Variant: lie.Variants[max(0, i)%len(lie.Variants)], Role: roles[random.IntN(len(roles))], Rand: random,
		clinic: c, window: p, over: make(chan struct{}), opened: make(chan struct{}), withMedia: lie.Media, leap: time.Second,
		varied: make(map[string]string), heard: make(map[Way][]Message), ends: make(map[Way]string)}
	if !lie.Media { // there the lease is measured to the second
		r.leap = time.Duration(800+random.IntN(1700)) * time.Millisecond
		r.vary("time leaps by", fmt.Sprintf("%.1f s–", float64(r.leap/(500*time.Millisecond))/2))
	}
	r.vary("variant", r.Variant)
	r.vary("role", r.Role.String())
	var err error
	if r.sid, r.participant, r.link, err = c.appointment(r.Role, "Ada Byron"); err != nil {
		return nil, err
	}
	r.invitation = invitationOf(r.link)
	if r.teller, err = lie.Begin(r); err != nil {
		return nil, err
	}
	c.proxy.mu.Lock()
	c.proxy.byTicket[r.invitation] = r
	c.proxy.mu.Unlock()
	if err := p.open(r.link); err != nil {
		return nil, err
	}
	var seen PageSeen
	if err := p.Eval(fmt.Sprintf("liar.enter(%v)", r.withMedia), &seen); err != nil {
		return nil, err
	}
	if seen.Screen != "waiting" {
		return nil, fmt.Errorf("the page did not come to the lobby: %+v", seen)
	}
	r.prepared = time.Since(start)
	return r, nil
}

func hashName(s string) uint64 {
	h := hash("name", []byte(s))
	return uint64(h[0])<<8 | uint64(h[1])
}

func (c *Clinic) clinicHash(link string) error {
	_, fragment, _ := strings.Cut(link, "#")
	v, err := url.ParseQuery(fragment)
	if err != nil {
		return err
	}
	c.hash = parseD(v.Get("c"))
	if c.hash == [32]byte{} {
		return errors.New("the link names no clinic")
	}
	return nil
}

func parseSID(s string) (sid [16]byte) {
	raw, err := base64.RawURLEncoding.DecodeString(s)
	if err == nil && len(raw) == len(sid) {
		copy(sid[:], raw)
	}
	return sid
}

// RoomSeen is what the room shows.
type RoomSeen struct {
	Open    bool
	State   string
	Code    string
	Sending bool
	Waiting int
	People  int
	LastEnd string
}

// PageSeen is what the page shows.
type PageSeen struct {
	Screen string `json:"screen"`
	Code   string `json:"code"`
	People int    `json:"people"`
	Words  string `json:"words"`
	// What its relay socket has received and sent, and whether it computes.
	In        int `json:"in"`
	Out       int `json:"out"`
	Computing int `json:"computing"`
}

// Seen is what both ends show. Leapt is the time that was leapt over so far.
type Seen struct {
	Room  RoomSeen
	Page  PageSeen
	Leapt time.Duration
}

func (s RoomSeen) up() bool {
	return s.Open && s.Code != "" && s.Sending && (s.State == "admitted" || s.State == "talking")
}

func (s PageSeen) up() bool { return s.Screen == "call" && s.Code != "" }

func (s Seen) same(o Seen) bool {
	a, b := s.Page, o.Page
	return s.Room == o.Room && a.Screen == b.Screen && a.Code == b.Code && a.People == b.People
}

func (c *Clinic) room() (RoomSeen, []stack.Person, error) {
	var st stack.Status
	if err := call(c.control, "GET", "/v1/status", nil, &st); err != nil {
		return RoomSeen{}, nil, err
	}
	seen := RoomSeen{LastEnd: st.LastEnd}
	if st.Session == nil {
		return seen, nil, nil
	}
	seen.Open, seen.State, seen.Code, seen.Sending = true, st.Session.State, st.Session.Code, st.Session.Sending
	seen.Waiting, seen.People = len(st.Session.Waiting), len(st.Session.People)
	return seen, st.Session.Waiting, nil
}

// press is the touch in the room.
func (c *Clinic) press(verb string, body map[string]any) error {
	return call(c.control, "POST", "/v1/"+verb, body, nil)
}
