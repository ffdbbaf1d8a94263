package liar

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/alcove-room/alcove/daemon/keystore"
)

const (
	subprotocol = "alcove.relay.v1"
	relayLimit  = 1 << 20
)

// Proxy terminates both kinds of connections to a hub and hands what passes to the present [Run].
type Proxy struct {
	dir           string // of the clinic: the hub's key and the room's are there
	people        *url.URL
	devices       *url.URL
	origin        string
	peopleServer  *http.Server
	devicesServer *http.Server
	identity      func() (*keystore.Keystore, error) // the room's, with which the liar is the room to the real hub

	mu       sync.Mutex // guards all below
	byTicket map[string]*Run
	byBearer map[string]*Run
	current  *Run
	room     *leg
	sessions []map[string]any // as the hub last told the room
}

// leg is one end's relay connection and the one to the hub that belongs to it.
type leg struct{ end, hub *websocket.Conn }

func (l *leg) close() {
	l.end.CloseNow()
	l.hub.CloseNow()
}

// probe is the room's, which ends here: a hub that hears nothing gives a connection up.
func (l *leg) probe(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-time.After(2 * time.Second):
			_ = l.hub.Ping(ctx) // a connection that is gone is found by its reader
		}
	}
}

// newProxy serves in front of the hub whose state will be below dir.
func newProxy(dir string, people, devices *url.URL, origin string, atPeople, atDevices net.Listener) *Proxy {
	p := &Proxy{dir: dir, people: people, devices: devices, origin: origin,
		byTicket: make(map[string]*Run), byBearer: make(map[string]*Run)}
	p.identity = sync.OnceValues(func() (*keystore.Keystore, error) {
		return keystore.Open(filepath.Join(dir, "state", "keys"), slog.New(slog.DiscardHandler))
	})
	p.peopleServer = &http.Server{Handler: p.peopleHandler(), ReadHeaderTimeout: 5 * time.Second}
	p.devicesServer = &http.Server{Handler: p.devicesHandler(), ReadHeaderTimeout: 5 * time.Second,
		ErrorLog:  slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.RequestClientCert, GetCertificate: p.certificate}}
	go p.peopleServer.Serve(atPeople)
	go p.devicesServer.ServeTLS(atDevices, "", "")
	return p
}

func (p *Proxy) close() {
	p.peopleServer.Close()
	p.devicesServer.Close()
}

// certificate is the hub's own: who stands here is the hub.
func (p *Proxy) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	file := filepath.Join(p.dir, "hub", "devices.pem")
	cert, err := tls.LoadX509KeyPair(file, file)
	return &cert, err
}

// stranger dials the hub from a loopback address of its own: the hub counts by address, and each run is somebody else.
func stranger(ctx context.Context, network, addr string) (net.Conn, error) {
	from := net.IPv4(127, byte(1+rand.IntN(250)), byte(rand.IntN(256)), byte(1+rand.IntN(250)))
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: from}}
	return d.DialContext(ctx, network, addr)
}

func (p *Proxy) peopleHandler() http.Handler {
	transport := &http.Transport{DialContext: stranger, DisableKeepAlives: true}
	pass := p.reverse(p.people, transport)
	join := p.reverse(p.people, transport)
	join.ModifyResponse = p.joined
	mux := http.NewServeMux()
	mux.Handle("/", pass)
	mux.Handle("/sfu/", p.sfu(pass))
	mux.HandleFunc("POST /v1/join", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(io.LimitReader(r.Body, 1<<16))
		var asked struct {
			Invitation string `json:"invitation"`
		}
		if err != nil || json.Unmarshal(body, &asked) != nil {
			http.Error(w, "body", http.StatusBadRequest)
			return
		}
		p.mu.Lock()
		run := p.byTicket[asked.Invitation]
		p.mu.Unlock()
		r.Body = io.NopCloser(bytes.NewReader(body))
		join.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), runKey{}, run)))
	})
	mux.HandleFunc("GET /v1/relay", p.pageRelay)
	return mux
}

type runKey struct{}

// joined lets the run see, and change, the hub's answer to an invitation.
func (p *Proxy) joined(res *http.Response) error {
	run, _ := res.Request.Context().Value(runKey{}).(*Run)
	if run == nil || res.StatusCode != http.StatusOK {
		return nil
	}
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	var answer Control
	if err := json.Unmarshal(raw, &answer); err != nil {
		return err
	}
	p.mu.Lock()
	p.byBearer[answer.text("bearer")] = run
	p.mu.Unlock()
	raw, err = run.answer(answer)
	res.Body = io.NopCloser(bytes.NewReader(raw))
	res.ContentLength = int64(len(raw))
	res.Header.Set("Content-Length", fmt.Sprint(len(raw)))
	return err
}

func (p *Proxy) reverse(to *url.URL, transport http.RoundTripper) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(to); r.Out.Host = r.In.Host },
		Transport: transport, FlushInterval: -1,
		ErrorLog:     slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
}

// sfu passes LiveKit's signalling of a run with media. In the others nobody answers: whether a call may start is
// decided before any packet could flow.
func (p *Proxy) sfu(pass http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		run := p.current
		p.mu.Unlock()
		if run != nil && run.media() {
			pass.ServeHTTP(w, r)
			return
		}
		over := make(<-chan struct{})
		if run != nil {
			over = run.over
		}
		select {
		case <-r.Context().Done():
		case <-over:
		case <-time.After(20 * time.Second):
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	})
}

func (p *Proxy) devicesHandler() http.Handler {
	// The real hub knows the room by its key, so the liar shows it.
	asRoom := &http.Transport{TLSClientConfig: p.clientTLS(true)}
	asDesk := &http.Transport{TLSClientConfig: p.clientTLS(false)}
	room, desk := p.reverse(p.devices, asRoom), p.reverse(p.devices, asDesk)
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.PeerCertificates) > 0 {
			room.ServeHTTP(w, r)
			return
		}
		desk.ServeHTTP(w, r)
	})
	mux.Handle("/sfu/", p.sfu(room))
	mux.HandleFunc("GET /v1/device/relay", p.roomRelay)
	return mux
}

func (p *Proxy) clientTLS(asRoom bool) *tls.Config {
	conf := &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true} // the hub is next door
	if asRoom {
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			keys, err := p.identity()
			if err != nil {
				return nil, err
			}
			cert := keys.TLSCertificate()
			return &cert, nil
		}
	}
	return conf
}

func (p *Proxy) accept(w http.ResponseWriter, r *http.Request, to *url.URL, transport http.RoundTripper, header http.Header) *leg {
	dial := *to
	dial.Path = r.URL.Path
	hub, res, err := websocket.Dial(r.Context(), dial.String(), &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: transport}, Subprotocols: []string{subprotocol}, HTTPHeader: header})
	if err != nil {
		status := http.StatusBadGateway
		if res != nil {
			status = res.StatusCode
		}
		w.WriteHeader(status)
		return nil
	}
	end, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{subprotocol}, InsecureSkipVerify: true})
	if err != nil {
		hub.CloseNow()
		return nil
	}
	end.SetReadLimit(relayLimit)
	hub.SetReadLimit(relayLimit)
	return &leg{end: end, hub: hub}
}

func (p *Proxy) roomRelay(w http.ResponseWriter, r *http.Request) {
	l := p.accept(w, r, p.devices, &http.Transport{TLSClientConfig: p.clientTLS(true)}, nil)
	if l == nil {
		return
	}
	defer l.close()
	p.mu.Lock()
	p.room = l
	if p.current != nil {
		p.current.roomConnected(l)
	}
	p.mu.Unlock()
	present := func() *Run {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.current
	}
	go l.probe(r.Context())
	go p.pump(r.Context(), l, l.hub, l.end, HubToRoom, present)
	p.pump(r.Context(), l, l.end, l.hub, RoomToHub, present)
}

func (p *Proxy) pageRelay(w http.ResponseWriter, r *http.Request) {
	l := p.accept(w, r, p.people, &http.Transport{DialContext: stranger}, http.Header{"Origin": {p.origin}})
	if l == nil {
		return
	}
	defer l.close()
	kind, raw, err := l.end.Read(r.Context())
	var hello Control
	if err != nil || kind != websocket.MessageText || json.Unmarshal(raw, &hello) != nil {
		return
	}
	p.mu.Lock()
	run := p.byBearer[hello.text("bearer")]
	p.mu.Unlock()
	if run == nil || l.hub.Write(r.Context(), kind, raw) != nil {
		return
	}
	run.connected(l)
	of := func() *Run { return run }
	go p.pump(r.Context(), l, l.hub, l.end, HubToPage, of)
	p.pump(r.Context(), l, l.end, l.hub, PageToHub, of)
}

// pump carries one direction until it ends; the other side is closed as this one was.
func (p *Proxy) pump(ctx context.Context, l *leg, from, to *websocket.Conn, way Way, run func() *Run) {
	for {
		kind, raw, err := from.Read(ctx)
		if err != nil {
			var closed websocket.CloseError
			if errors.As(err, &closed) {
				to.Close(closed.Code, closed.Reason)
			}
			l.close()
			return
		}
		present := run()
		if way == PageToHub {
			present.counted(l, 0, 1)
		}
		raw = p.pass(way, kind, raw, present)
		if raw == nil {
			continue
		}
		if way == HubToPage {
			present.counted(l, 1, 0)
		}
		if to.Write(ctx, kind, raw) != nil {
			l.close()
			return
		}
	}
}

// pass is what arrives of raw at the other side, nil for nothing.
func (p *Proxy) pass(way Way, kind websocket.MessageType, raw []byte, run *Run) []byte {
	if kind == websocket.MessageBinary {
		if run == nil {
			return nil
		}
		return run.message(way, raw)
	}
	var c Control
	if json.Unmarshal(raw, &c) != nil {
		return raw
	}
	if way == HubToRoom && c.text("t") == "sessions" {
		p.appointments(c)
		return nil
	}
	if run == nil {
		return raw
	}
	return run.control(way, c, raw)
}

// appointments keeps the hub's list from the room: it is shown one session at a time, when its run begins.
func (p *Proxy) appointments(c Control) {
	list, _ := c["sessions"].([]any)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sessions = p.sessions[:0]
	for _, e := range list {
		if entry, ok := e.(map[string]any); ok {
			p.sessions = append(p.sessions, entry)
		}
	}
}

// begin makes run the present one and shows its appointment to the room.
func (p *Proxy) begin(run *Run) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.sessions {
		if e["sid"] != run.sid {
			continue
		}
		if p.room == nil {
			return errors.New("the room is not connected")
		}
		p.current = run
		run.roomConnected(p.room)
		return send(p.room.end, Control{"t": "sessions", "sessions": []any{run.entry(e)}})
	}
	return errors.New("the hub has not told the room of the session")
}

// end takes the present run away; from now on the room knows of no appointment.
func (p *Proxy) end(run *Run) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current == run {
		p.current = nil
	}
	delete(p.byTicket, run.invitation)
	for bearer, r := range p.byBearer {
		if r == run {
			delete(p.byBearer, bearer)
		}
	}
}

func send(to *websocket.Conn, c Control) error {
	raw, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return write(to, websocket.MessageText, raw)
}

func write(to *websocket.Conn, kind websocket.MessageType, raw []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return to.Write(ctx, kind, raw)
}

// invitationOf reads the link's fragment.
func invitationOf(link string) string {
	_, fragment, _ := strings.Cut(link, "#")
	v, err := url.ParseQuery(fragment)
	if err != nil {
		return ""
	}
	return v.Get("i")
}
