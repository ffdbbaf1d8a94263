package e2e

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// wire is the network between one party and the clinic. Cut, it carries nothing in either direction and says so to
// nobody: connections stay, new ones hang, datagrams are lost.
type wire struct {
	mu   sync.Mutex
	open chan struct{} // closed while the wire is whole
	// datagrams counts media packets that passed.
	datagrams atomic.Uint64
}

func newWire() *wire {
	w := &wire{open: make(chan struct{})}
	close(w.open)
	return w
}

func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.whole() {
		w.open = make(chan struct{})
	}
}

func (w *wire) repair() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.whole() {
		close(w.open)
	}
}

// whole needs mu.
func (w *wire) whole() bool {
	select {
	case <-w.open:
		return true
	default:
		return false
	}
}

func (w *wire) isWhole() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.whole()
}

// wait returns when the wire is whole.
func (w *wire) wait(ctx context.Context) error {
	w.mu.Lock()
	open := w.open
	w.mu.Unlock()
	select {
	case <-open:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// relayTCP carries connections over the wire to target and returns the address to dial. What is inside is not looked at.
func (w *wire) relayTCP(t *testing.T, target string) string {
	t.Helper()
	l := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() { cancel(); l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go w.carry(ctx, c, target)
		}
	}()
	return l.Addr().String()
}

func (w *wire) carry(ctx context.Context, near net.Conn, target string) {
	defer near.Close()
	if w.wait(ctx) != nil {
		return
	}
	far, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer far.Close()
	stop := context.AfterFunc(ctx, func() { near.Close(); far.Close() })
	defer stop()
	done := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
		go func() {
			defer func() { done <- struct{}{} }()
			buf := make([]byte, 32<<10)
			for {
				n, err := way[0].Read(buf)
				if w.wait(ctx) != nil {
					return
				}
				if n > 0 {
					if _, err := way[1].Write(buf[:n]); err != nil {
						return
					}
				}
				if err != nil {
					return
				}
			}
		}()
	}
	<-done
}

// relayUDP carries datagrams over the wire to target, each sender through a socket of its own, and returns the port
// to send to.
func (w *wire) relayUDP(target *net.UDPAddr) (port int, end io.Closer, err error) {
	near, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return 0, nil, err
	}
	r := &udpRelay{wire: w, near: near, target: target, far: make(map[string]*net.UDPConn)}
	go r.outward()
	return near.LocalAddr().(*net.UDPAddr).Port, r, nil
}

type udpRelay struct {
	wire   *wire
	near   *net.UDPConn
	target *net.UDPAddr

	mu  sync.Mutex
	far map[string]*net.UDPConn // by the sender's address; guarded by mu
}

func (r *udpRelay) outward() {
	buf := make([]byte, 2048)
	for {
		n, from, err := r.near.ReadFromUDP(buf)
		if err != nil {
			return
		}
		far := r.socket(from)
		if far == nil || !r.wire.isWhole() {
			continue
		}
		r.wire.datagrams.Add(1)
		_, _ = far.Write(buf[:n]) // a datagram may be lost
	}
}

func (r *udpRelay) socket(from *net.UDPAddr) *net.UDPConn {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := from.String()
	if c, ok := r.far[key]; ok {
		return c
	}
	c, err := net.DialUDP("udp", nil, r.target)
	if err != nil {
		return nil
	}
	r.far[key] = c
	go func() {
		buf := make([]byte, 2048)
		for {
			n, err := c.Read(buf)
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					continue // the far port was closed for a moment (ICMP)
				}
				return
			}
			if r.wire.isWhole() {
				r.wire.datagrams.Add(1)
				_, _ = r.near.WriteToUDP(buf[:n], from) // a datagram may be lost
			}
		}
	}()
	return c
}

// Close ends the relay.
func (r *udpRelay) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.far {
		c.Close()
	}
	return r.near.Close()
}
