package provisioning

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/alcove-room/alcove/provisioning/document"
)

const (
	relayProtocol = "alcove.relay.v1"
	// maxRelayMessage is the largest message of the key agreement (PROTOCOL.md).
	maxRelayMessage = 64 << 10
	// maxRelayText is the largest message of the hub's own: the list of a busy room's sessions.
	maxRelayText = 1 << 20
	// probeEvery and probeLost find a dead path long before TCP does.
	probeEvery = time.Second
	probeLost  = 3 * time.Second
	// redialFirst and redialMost bound our own back-off: a therapy session waits for it.
	redialFirst = 200 * time.Millisecond
	redialMost  = time.Second
	sendTimeout = 5 * time.Second
)

// Control is one text message of the relay in either direction; PROTOCOL.md lists which fields each type has.
type Control struct {
	T           string         `json:"t"`
	SID         string         `json:"sid,omitempty"`
	D           string         `json:"d,omitempty"`
	URL         string         `json:"url,omitempty"`
	Token       string         `json:"token,omitempty"`
	Identity    string         `json:"identity,omitempty"`
	Reason      string         `json:"reason,omitempty"`
	Error       string         `json:"error,omitempty"`
	Message     string         `json:"message,omitempty"`
	N           uint64         `json:"n,omitempty"`
	Participant *Participant   `json:"participant,omitempty"`
	Sessions    []SessionEntry `json:"sessions,omitempty"`
}

// Participant is what the hub says of a person: for the lobby and for nothing else.
type Participant struct {
	ID   string `json:"id"`
	Role string `json:"role"`
	Name string `json:"name"`
}

// SessionEntry is one appointment of this room.
type SessionEntry struct {
	SID          string        `json:"sid"`
	Starts       time.Time     `json:"starts"`
	Ends         time.Time     `json:"ends"`
	Participants []Participant `json:"participants"`
}

// RelayHandler receives what the relay brings. Calls come from one goroutine, in order. A handler that blocks holds
// the hub back, and after probeLost it loses the connection.
type RelayHandler interface {
	// Connected says that a new connection stands; what is current must be sent again.
	Connected()
	// Disconnected says that the path to the hub is gone; the relay keeps dialling.
	Disconnected(err error)
	Control(Control)
	// Message is one key-agreement message; the slice is the handler's to keep.
	Message(raw []byte)
}

// ErrNotConnected is returned for a message while no connection stands.
var ErrNotConnected = errors.New("no connection to the hub")

// Relay keeps one connection to the hub's relay, dialling again whenever it is lost.
type Relay struct {
	client *Client
	log    *slog.Logger

	mu   sync.Mutex
	conn *websocket.Conn // nil while disconnected; guarded by mu
}

// NewRelay returns a relay of the client's hub; Run connects it.
func NewRelay(c *Client, log *slog.Logger) *Relay { return &Relay{client: c, log: log} }

// Run dials, delivers to h, and dials again until ctx ends.
func (r *Relay) Run(ctx context.Context, h RelayHandler) error {
	wait := redialFirst
	for {
		began := time.Now()
		err := r.once(ctx, h)
		h.Disconnected(err)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Since(began) > probeLost {
			wait = redialFirst
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		wait = min(2*wait, redialMost)
	}
}

// once holds one connection from dial to loss.
func (r *Relay) once(ctx context.Context, h RelayHandler) error {
	dialCtx, cancel := context.WithTimeout(ctx, sendTimeout)
	conn, res, err := websocket.Dial(dialCtx, r.client.base.String()+"/v1/device/relay", &websocket.DialOptions{
		HTTPClient:   &http.Client{Transport: r.client.http.Transport, CheckRedirect: refuseRedirect},
		Subprotocols: []string{relayProtocol},
	})
	cancel()
	if err != nil {
		if res != nil {
			return fmt.Errorf("dial the hub's relay: %w (status %d)", err, res.StatusCode)
		}
		return fmt.Errorf("dial the hub's relay: %w", err)
	}
	defer conn.CloseNow()
	if conn.Subprotocol() != relayProtocol {
		return fmt.Errorf("the hub's relay does not speak %s", relayProtocol)
	}
	conn.SetReadLimit(maxRelayText)
	r.setConn(conn)
	defer r.setConn(nil)
	h.Connected()

	ctx, cancel = context.WithCancel(ctx)
	defer cancel()
	go r.probe(ctx, conn)
	for {
		kind, raw, err := conn.Read(ctx)
		if err != nil {
			return fmt.Errorf("read from the hub's relay: %w", err)
		}
		if kind == websocket.MessageBinary {
			if len(raw) > maxRelayMessage {
				return fmt.Errorf("the hub's message has %d bytes, at most %d are allowed", len(raw), maxRelayMessage)
			}
			h.Message(raw)
			continue
		}
		var c Control
		if err := document.Decode(raw, &c); err != nil {
			return fmt.Errorf("the hub's message: %w", err)
		}
		h.Control(c)
	}
}

// probe pings each second; a path that does not answer is dropped, which ends the read loop. So is one to a key that the
// clinic has taken back.
func (r *Relay) probe(ctx context.Context, conn *websocket.Conn) {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		pingCtx, cancel := context.WithTimeout(ctx, probeLost)
		err := conn.Ping(pingCtx)
		cancel()
		if err != nil || !r.client.stillPinned() {
			conn.CloseNow()
			return
		}
	}
}

func (r *Relay) setConn(c *websocket.Conn) {
	r.mu.Lock()
	r.conn = c
	r.mu.Unlock()
}

// Send sends one control message.
func (r *Relay) Send(ctx context.Context, c Control) error {
	raw, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("encode control message: %w", err)
	}
	return r.write(ctx, websocket.MessageText, raw)
}

// SendMessage sends one key-agreement message to the other members of the open session.
func (r *Relay) SendMessage(ctx context.Context, raw []byte) error {
	if len(raw) > maxRelayMessage {
		return fmt.Errorf("message of %d bytes: the relay takes at most %d", len(raw), maxRelayMessage)
	}
	return r.write(ctx, websocket.MessageBinary, raw)
}

func (r *Relay) write(ctx context.Context, kind websocket.MessageType, raw []byte) error {
	r.mu.Lock()
	conn := r.conn
	r.mu.Unlock()
	if conn == nil {
		return ErrNotConnected
	}
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	if err := conn.Write(ctx, kind, raw); err != nil {
		return fmt.Errorf("write to the hub's relay: %w", err)
	}
	return nil
}
