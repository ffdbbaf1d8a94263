package sessions

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// AddressLimit bounds how often one address may do something. IPv6 addresses count by their /64, because one
// household or one attacker has a whole one. It is safe for concurrent use.
type AddressLimit struct {
	every rate.Limit
	burst int

	mu    sync.Mutex
	known map[netip.Prefix]*addressState // at most maxAddresses; guarded by mu
}

type addressState struct {
	limit *rate.Limiter
	last  time.Time
}

// maxAddresses bounds the memory that strangers can take (about 200 bytes each).
const maxAddresses = 10_000

// NewAddressLimit allows burst at once and one more each interval.
func NewAddressLimit(interval time.Duration, burst int) *AddressLimit {
	return &AddressLimit{every: rate.Every(interval), burst: burst, known: make(map[netip.Prefix]*addressState)}
}

// Allow reports whether the peer at remote ("host:port") may act at t. A peer without an address (a Unix socket)
// shares one budget with its like.
func (l *AddressLimit) Allow(remote string, t time.Time) bool {
	key := prefixOf(remote)
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.known[key]
	if s == nil {
		if len(l.known) >= maxAddresses {
			l.forgetLocked(t)
		}
		s = &addressState{limit: rate.NewLimiter(l.every, l.burst)}
		l.known[key] = s
	}
	s.last = t
	return s.limit.AllowN(t, 1)
}

// forgetLocked drops addresses whose budget is full again: forgetting them changes nothing. When all are busy it
// drops them all, which costs an attacker with ten thousand addresses one more burst each.
func (l *AddressLimit) forgetLocked(t time.Time) {
	for key, s := range l.known {
		if s.limit.TokensAt(t) >= float64(l.burst) {
			delete(l.known, key)
		}
	}
	if len(l.known) >= maxAddresses {
		clear(l.known)
	}
}

// AddressOf is what an address counts as: the address, of IPv6 its /64.
func AddressOf(remote string) string { return prefixOf(remote).String() }

func prefixOf(remote string) netip.Prefix {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Prefix{}
	}
	addr = addr.Unmap().WithZone("")
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	p, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}
