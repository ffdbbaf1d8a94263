package hub

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/coder/websocket"

	"github.com/alcove-room/alcove/provisioning/document"
	"github.com/alcove-room/alcove/provisioning/hub/fleet"
	"github.com/alcove-room/alcove/provisioning/hub/sessions"
	"github.com/alcove-room/alcove/provisioning/hub/sfu"
	"github.com/alcove-room/alcove/provisioning/web"
)

// TestMain lets this binary be the media server's child, as alcove-hub is for itself.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "sfu" {
		if err := sfu.Child(); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// clinic is a demonstration's owner with one key for each role.
type clinic struct {
	t     *testing.T
	keys  map[string]*document.PrivateKey
	root  *document.Envelope
	hash  document.Hash
	pin   document.Hash
	demo  bool
	seral uint64
}

func newClinic(t *testing.T, pin document.Hash, demo bool) *clinic {
	t.Helper()
	c := &clinic{t: t, keys: make(map[string]*document.PrivateKey), pin: pin, demo: demo}
	for _, r := range []string{document.RoleRoot, document.RoleRoster, document.RolePeople, document.RoleConfig} {
		k, err := document.NewPrivateKey()
		if err != nil {
			t.Fatal(err)
		}
		c.keys[r] = k
	}
	c.root = c.signRoot(1, []document.Hash{pin})
	c.hash = c.root.PayloadHash()
	return c
}

func (c *clinic) signRoot(version uint32, pins []document.Hash) *document.Envelope {
	c.t.Helper()
	now := time.Now().UTC().Truncate(time.Second)
	r := &document.OwnerRoot{
		Version: version, Demo: c.demo, Clinic: "Test clinic", Roles: make(map[string]document.Role),
		HubPins: pins, RecoveryKeys: []document.Bytes{}, Issued: now.Add(-time.Minute), Expires: now.Add(24 * time.Hour),
	}
	if version > 1 {
		r.Owner = c.hash
	}
	for name, k := range c.keys {
		r.Roles[name] = document.Role{Threshold: 1, Keys: []document.PublicKey{k.Public()}}
	}
	e, err := document.Sign(r, c.keys[document.RoleRoot])
	if err != nil {
		c.t.Fatal(err)
	}
	return e
}

func (c *clinic) roster(devices ...document.Device) []byte {
	c.t.Helper()
	now := time.Now().UTC().Truncate(time.Second)
	c.seral++
	if devices == nil {
		devices = []document.Device{}
	}
	r := &document.Roster{Header: document.Header{
		Owner: c.hash, RootVersion: 1, Serial: c.seral, Issued: now.Add(-time.Minute), Expires: now.Add(time.Hour),
		Target: document.TargetAll,
	}, Devices: devices}
	e, err := document.Sign(r, c.keys[document.RoleRoster])
	if err != nil {
		c.t.Fatal(err)
	}
	return marshal(c.t, e)
}

func marshal(t *testing.T, e *document.Envelope) []byte {
	t.Helper()
	raw, err := document.MarshalEnvelope(e)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// box is a room's device: a self-signed TLS key.
type box struct {
	cert tls.Certificate
	spki []byte
}

func newBox(t *testing.T) box {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return box{tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, leaf.RawSubjectPublicKeyInfo}
}

func (b box) entry(t *testing.T, id, room string) document.Device {
	t.Helper()
	return document.Device{
		ID: id, Room: room, Label: "Room " + room, TLSSPKI: b.spki, SignSPKI: newBox(t).spki,
		KeyProtection: document.ProtectionHost, NotAfter: time.Now().UTC().Add(time.Hour).Truncate(time.Second),
	}
}

// world is a running hub with a clinic, one room and its box.
type world struct {
	t      *testing.T
	config Config
	clinic *clinic
	box    box
	stop   func()
	log    *logBuffer
}

type logBuffer struct{ lines atomic.Pointer[[]byte] }

func (b *logBuffer) Write(p []byte) (int, error) {
	for {
		old := b.lines.Load()
		var joined []byte
		if old != nil {
			joined = append(joined, *old...)
		}
		joined = append(joined, p...)
		if b.lines.CompareAndSwap(old, &joined) {
			return len(p), nil
		}
	}
}

func (b *logBuffer) String() string {
	if p := b.lines.Load(); p != nil {
		return string(*p)
	}
	return ""
}

// nextPort runs through ports below those that the kernel gives to outgoing connections (ip_local_port_range), so that
// nobody else's connection can take one between here and the hub's own listening.
var nextPort atomic.Uint32

func init() { nextPort.Store(15000 + uint32(os.Getpid()*37%12000)) }

// freePort finds a port on loopback that nobody listens on.
func freePort(t *testing.T, network string) int {
	t.Helper()
	for range 1000 {
		port := int(nextPort.Add(1))
		at := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		var c io.Closer
		var err error
		if network == "udp" {
			c, err = net.ListenPacket("udp", at)
		} else {
			c, err = net.Listen("tcp", at)
		}
		if err == nil {
			c.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

func testConfig(t *testing.T) Config {
	t.Helper()
	at := func() string { return "127.0.0.1:" + strconv.Itoa(freePort(t, "tcp")) }
	page := at()
	c := Defaults()
	c.State = filepath.Join(t.TempDir(), "state")
	c.CallOrigin = "http://" + page
	c.Page.Listen, c.People.Listen, c.Devices.Listen, c.Metrics.Listen = page, at(), at(), at()
	c.LiveKit.SignalPort, c.LiveKit.UDPPort = freePort(t, "tcp"), freePort(t, "udp")
	c.fill()
	// A Unix socket's path is short; the test's folder may not be.
	dir, err := os.MkdirTemp("", "hub")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c.Admin.Socket = filepath.Join(dir, "admin.sock")
	return c
}

// testPage has the real headers; the bytes of the real page are not built in every test run.
func testPage() Page {
	return Page{
		Files:  fstest.MapFS{"index.html": {Data: []byte("<!doctype html><title>call</title>")}},
		Header: web.Header,
	}
}

// start runs a hub until the test ends. Changes may alter its configuration before.
func start(t *testing.T, changes ...func(*Config)) *world {
	t.Helper()
	w := &world{t: t, config: testConfig(t), box: newBox(t), log: &logBuffer{}}
	for _, change := range changes {
		change(&w.config)
	}
	pin, err := MakeKey(w.config.State)
	if err != nil {
		t.Fatal(err)
	}
	w.clinic = newClinic(t, pin, true)
	if _, err := Trust(t.Context(), w.config, marshal(t, w.clinic.root), slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	w.run()
	w.put("roster", w.clinic.roster(w.box.entry(t, "box-1", "room-1")), http.StatusOK)
	return w
}

// run starts the hub on the state that is there.
func (w *world) run() {
	w.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- Run(ctx, w.config, Options{
			Log: slog.New(slog.NewTextHandler(w.log, nil)), Page: testPage(), SFU: []string{exe, "sfu"}, Version: "test",
			Ready: func() { close(ready) },
		})
	}()
	stopped := false
	w.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				w.t.Errorf("Run: %v", err)
			}
		case <-time.After(20 * time.Second):
			w.t.Error("the hub does not stop")
		}
	}
	w.t.Cleanup(w.stop)
	select {
	case <-ready:
	case err := <-ended:
		w.t.Fatalf("Run: %v\n%s", err, w.log)
	case <-time.After(30 * time.Second):
		w.t.Fatalf("the hub is not ready\n%s", w.log)
	}
}

// device returns an HTTP client with a box's key; zero box: none. The hub's key is pinned.
func (w *world) device(b box) *http.Client {
	conf := &tls.Config{
		MinVersion: tls.VersionTLS13, InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if fleet.PinOf(s.PeerCertificates[0].RawSubjectPublicKeyInfo) != w.clinic.pin {
				return io.ErrUnexpectedEOF
			}
			return nil
		},
	}
	if b.spki != nil {
		conf.Certificates = []tls.Certificate{b.cert}
	}
	tr := &http.Transport{TLSClientConfig: conf}
	w.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func (w *world) put(kind string, envelope []byte, want int) string {
	w.t.Helper()
	req, err := http.NewRequest(http.MethodPut, w.config.Devices.URL+"/v1/documents/"+kind, bytes.NewReader(envelope))
	if err != nil {
		w.t.Fatal(err)
	}
	return do(w.t, w.device(box{}), req, want, nil)
}

// do sends a request, checks the status and returns the error code of a refusal.
func do(t *testing.T, c *http.Client, req *http.Request, want int, out any) string {
	t.Helper()
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != want {
		t.Fatalf("%s %s: %d, want %d: %s", req.Method, req.URL.Path, res.StatusCode, want, raw)
	}
	if res.StatusCode == http.StatusOK && out != nil {
		if err := document.Decode(raw, out); err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
	}
	var refusal struct {
		Error string `json:"error"`
	}
	_ = json.Unmarshal(raw, &refusal) // an answer that is none has no code
	return refusal.Error
}

// admin makes a request on the front desk's socket.
func (w *world) admin(method, path string, in any, want int, out any) string {
	w.t.Helper()
	raw, err := json.Marshal(in)
	if err != nil {
		w.t.Fatal(err)
	}
	req, err := http.NewRequest(method, "http://hub"+path, bytes.NewReader(raw))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	tr := &http.Transport{DisableKeepAlives: true, DialContext: w.dialAdmin}
	return do(w.t, &http.Client{Transport: tr}, req, want, out)
}

func (w *world) dialAdmin(ctx context.Context, _, _ string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "unix", w.config.Admin.Socket)
}

// addSession makes a session that runs now, with a therapist and a guest.
func (w *world) addSession() sessionAnswer {
	w.t.Helper()
	var a sessionAnswer
	now := time.Now().UTC()
	w.admin(http.MethodPost, "/v1/sessions", sessionRequest{
		Room: "room-1", Starts: now, Ends: now.Add(time.Hour),
		Participants: []participant{{Role: "therapist", Name: "Dr. Weiß"}, {Role: "guest", Name: "Sam"}},
	}, http.StatusOK, &a)
	return a
}

// invite returns the invitation of a fresh link.
func (w *world) invite(sid, id string) string {
	w.t.Helper()
	var a struct {
		Link    string    `json:"link"`
		Expires time.Time `json:"expires"`
	}
	w.admin(http.MethodPost, "/v1/sessions/"+sid+"/invitations", map[string]string{"participant": id}, http.StatusOK, &a)
	base, fragment, ok := strings.Cut(a.Link, "/#")
	if !ok || base != w.config.CallOrigin {
		w.t.Fatalf("link %q", a.Link)
	}
	v, err := url.ParseQuery(fragment)
	if err != nil || v.Get("h") != w.config.People.URL || v.Get("c") != w.clinic.hash.String() {
		w.t.Fatalf("link %q", a.Link)
	}
	return v.Get("i")
}

// browser is one browser with its cookies. Go's jar does not send Secure cookies over plain HTTP, not even to
// loopback, as browsers do; so the jar is asked as if the listener had TLS.
type browser struct {
	w   *world
	jar http.CookieJar
}

func (w *world) browser() *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return &browser{w, jar}
}

func (b *browser) join(invitation string, want int, out *joinAnswer) string {
	b.w.t.Helper()
	raw, err := json.Marshal(joinRequest{invitation})
	if err != nil {
		b.w.t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodPost, b.w.config.People.URL+"/v1/join", bytes.NewReader(raw))
	if err != nil {
		b.w.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Origin", b.w.config.CallOrigin)
	secure := *req.URL
	secure.Scheme = "https"
	for _, c := range b.jar.Cookies(&secure) {
		req.AddCookie(c)
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		b.w.t.Fatal(err)
	}
	b.jar.SetCookies(&secure, res.Cookies())
	for _, c := range res.Cookies() {
		if !c.HttpOnly || !c.Secure || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.Domain != "" {
			b.w.t.Errorf("cookie %v", c)
		}
	}
	return do(b.w.t, &http.Client{Transport: given{res}}, req, want, out)
}

// given answers with a response that was already received.
type given struct{ res *http.Response }

func (g given) RoundTrip(*http.Request) (*http.Response, error) { return g.res, nil }

// peer is one end of a relay.
type peer struct {
	t  *testing.T
	ws *websocket.Conn
	in chan frame
}

type frame struct {
	kind websocket.MessageType
	data []byte
	m    map[string]any
}

func (w *world) dial(client *http.Client, url, origin string) *peer {
	w.t.Helper()
	o := &websocket.DialOptions{HTTPClient: client, Subprotocols: []string{sessions.Subprotocol}, HTTPHeader: http.Header{}}
	if origin != "" {
		o.HTTPHeader.Set("Origin", origin)
	}
	ws, res, err := websocket.Dial(w.t.Context(), url, o)
	if err != nil {
		w.t.Fatalf("dial %s: %v (%v)", url, err, res)
	}
	ws.SetReadLimit(1 << 20)
	p := &peer{w.t, ws, make(chan frame, 256)}
	go p.pump()
	w.t.Cleanup(func() { ws.CloseNow() })
	return p
}

func (p *peer) pump() {
	defer close(p.in)
	for {
		kind, data, err := p.ws.Read(context.Background())
		if err != nil {
			p.in <- frame{data: []byte(err.Error()), m: map[string]any{"t": "closed", "code": int(websocket.CloseStatus(err))}}
			return
		}
		f := frame{kind: kind, data: data}
		if kind == websocket.MessageText {
			if json.Unmarshal(data, &f.m) != nil {
				f.m = map[string]any{"t": "garbage"}
			}
		}
		p.in <- f
	}
}

func (p *peer) send(m map[string]any) {
	p.t.Helper()
	raw, err := json.Marshal(m)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.ws.Write(p.t.Context(), websocket.MessageText, raw); err != nil {
		p.t.Fatalf("send %s: %v", raw, err)
	}
}

// want waits for a message of this type, dropping others.
func (p *peer) want(kind string) map[string]any {
	p.t.Helper()
	deadline := time.After(15 * time.Second)
	var seen []string
	for {
		select {
		case f, ok := <-p.in:
			if !ok {
				p.t.Fatalf("wanted %q; the connection ended after %v", kind, seen)
			}
			if f.m != nil && f.m["t"] == kind {
				return f.m
			}
			seen = append(seen, string(f.data))
		case <-deadline:
			p.t.Fatalf("wanted %q, got %v", kind, seen)
		}
	}
}

// wantBinary waits for a binary message.
func (p *peer) wantBinary() []byte {
	p.t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		select {
		case f, ok := <-p.in:
			if !ok {
				p.t.Fatal("wanted a binary message; the connection ended")
			}
			if f.kind == websocket.MessageBinary {
				return f.data
			}
		case <-deadline:
			p.t.Fatal("wanted a binary message")
		}
	}
}

// settle proves that everything sent so far was handled: the hub answers in order.
func (p *peer) settle() (before []frame) {
	p.t.Helper()
	p.send(map[string]any{"t": "ping", "n": 77})
	deadline := time.After(10 * time.Second)
	for {
		select {
		case f, ok := <-p.in:
			if !ok {
				p.t.Fatal("the connection ended")
			}
			if f.m != nil && f.m["t"] == "pong" {
				return before
			}
			before = append(before, f)
		case <-deadline:
			p.t.Fatal("no pong")
		}
	}
}

func (w *world) room(b box) *peer {
	w.t.Helper()
	return w.dial(w.device(b), w.config.Devices.URL+"/v1/device/relay", "")
}

// page joins with an invitation and says hello.
func (w *world) page(invitation string) *peer {
	w.t.Helper()
	var j joinAnswer
	w.browser().join(invitation, http.StatusOK, &j)
	return w.hello(j.Bearer)
}

func (w *world) hello(bearer string) *peer {
	w.t.Helper()
	p := w.dial(nil, w.config.People.URL+"/v1/relay", w.config.CallOrigin)
	p.send(map[string]any{"t": "hello", "bearer": bearer})
	return p
}

func newD() sessions.D {
	var d sessions.D
	rand.Read(d[:])
	return d
}

func hexD(d sessions.D) string { return hex.EncodeToString(d[:]) }
