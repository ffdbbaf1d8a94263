package sessions

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/time/rate"
)

// WebSocket close codes of the relay, beside 1000 (left, or the session ended).
const (
	closeReplaced   websocket.StatusCode = 4001 // a newer connection of the same bearer or device
	closeSlowReader websocket.StatusCode = 4002 // did not read what it was sent
	closeSlowDown   websocket.StatusCode = 4003 // sent more than the limit
	closeBadMessage websocket.StatusCode = 4004 // sent what is no message of the protocol
	closeRefused    websocket.StatusCode = 4005 // unknown bearer, or a device that is no longer listed
	closeSilent     websocket.StatusCode = 4006 // no hello, or no sign of life
)

// Bounds of one connection.
const (
	queueMessages = 64
	queueBytes    = 1 << 20
	writeTimeout  = 5 * time.Second
	helloTimeout  = 5 * time.Second
	lifeTimeout   = 20 * time.Second // peers ping each second
)

type outgoing struct {
	kind websocket.MessageType
	data []byte
}

// conn is one relay connection. Its handler's goroutine reads; a goroutine of its own writes what others queue with
// send, so that nobody ever waits for a slow peer. A peer that lets its queue fill up is closed.
type conn struct {
	ws    *websocket.Conn
	peer  string // "page" or "room", for metrics
	limit Limits

	queue  chan outgoing
	queued atomic.Int64 // bytes in queue
	seen   atomic.Int64 // Unix nanoseconds of the last sign of life

	once   sync.Once
	done   chan struct{} // closed by shut
	code   websocket.StatusCode
	reason string

	count *rate.Limiter // messages; used by the reader alone
	bytes *rate.Limiter

	// Of a page: the participant and, once it has knocked on this connection, its document.
	participant Participant
	session     Session
	// Guarded by Service.mu:
	knocked bool
	d       D
	// Of a room:
	room   string
	listed func() bool
	// issuing is the kind of message that a token is being made for, "" when none is; guarded by Service.mu.
	issuing string
}

func newConn(ws *websocket.Conn, peer string, l Limits) *conn {
	ws.SetReadLimit(MaxMessage)
	return &conn{
		ws: ws, peer: peer, limit: l,
		queue: make(chan outgoing, queueMessages),
		done:  make(chan struct{}),
		count: rate.NewLimiter(rate.Limit(l.MessagesPerSecond), l.MessagesBurst),
		bytes: rate.NewLimiter(rate.Limit(l.BytesPerSecond), max(l.BytesBurst, MaxMessage)),
	}
}

// alive notes a sign of life; WebSocket pings count too.
func (c *conn) alive() { c.seen.Store(time.Now().UnixNano()) }

// send queues a text message. It never blocks.
func (c *conn) send(v any) {
	raw, err := json.Marshal(v)
	if err != nil {
		panic("sessions: a message of fixed types does not encode: " + err.Error())
	}
	c.enqueue(outgoing{websocket.MessageText, raw})
}

// relay queues a binary message as it is. It never blocks.
func (c *conn) relay(raw []byte) { c.enqueue(outgoing{websocket.MessageBinary, raw}) }

func (c *conn) enqueue(m outgoing) {
	if c.queued.Add(int64(len(m.data))) > queueBytes {
		c.shut(closeSlowReader, "slow_reader")
		return
	}
	select {
	case c.queue <- m:
	default:
		c.shut(closeSlowReader, "slow_reader")
	}
}

// shut asks the writer to send what is queued and to close. It never blocks; the first reason counts.
func (c *conn) shut(code websocket.StatusCode, reason string) {
	c.once.Do(func() {
		c.code, c.reason = code, reason
		close(c.done)
	})
}

// write runs until the connection is shut or lost, and closes it.
func (c *conn) write(ctx context.Context) {
	life := time.NewTicker(lifeTimeout / 4)
	defer life.Stop()
	for {
		select {
		case m := <-c.queue:
			if !c.writeOne(ctx, m) {
				return
			}
		case <-life.C:
			if time.Since(time.Unix(0, c.seen.Load())) > lifeTimeout {
				c.shut(closeSilent, "silent")
			}
		case <-ctx.Done():
			c.shut(websocket.StatusGoingAway, "going_away")
		case <-c.done:
			c.finish()
			return
		}
	}
}

func (c *conn) writeOne(ctx context.Context, m outgoing) bool {
	c.queued.Add(-int64(len(m.data)))
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	if err := c.ws.Write(ctx, m.kind, m.data); err != nil {
		c.shut(websocket.StatusGoingAway, "lost")
		_ = c.ws.CloseNow() // the peer is gone; nothing is left to tell it
		return false
	}
	return true
}

// finish sends what was queued before the close, unless the peer does not read.
func (c *conn) finish() {
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	for c.code != closeSlowReader && c.code != closeSilent {
		select {
		case m := <-c.queue:
			if c.ws.Write(ctx, m.kind, m.data) != nil {
				_ = c.ws.CloseNow()
				return
			}
			continue
		default:
		}
		_ = c.ws.Close(c.code, c.reason) // an error says that the peer went first
		return
	}
	// A close frame would wait behind the full socket.
	_ = c.ws.CloseNow()
}

// errLimit is returned by read when the peer sends more than it may.
var errLimit = errors.New("too many messages")

// read returns the peer's next message.
func (c *conn) read(ctx context.Context) (websocket.MessageType, []byte, error) {
	kind, raw, err := c.ws.Read(ctx)
	if err != nil {
		return 0, nil, err
	}
	c.alive()
	now := time.Now()
	if !c.count.AllowN(now, 1) || !c.bytes.AllowN(now, len(raw)) {
		return 0, nil, errLimit
	}
	return kind, raw, nil
}
