// Package sessions is the hub's session life: appointments and their single-use invitations, the lobby, admission,
// the relay of key-agreement messages, LiveKit tokens, and the sweep of LiveKit participants that nobody admitted.
//
// Parties: the front desk (a Unix socket, Desk), remote people's pages (an invitation, then a bearer) and rooms
// (a TLS key in the clinic's roster, checked by the caller). The wire contract is provisioning/hub/PROTOCOL.md.
//
// Promises:
//   - An invitation is used up by the first POST and belongs to that browser; a new one makes the former, and what
//     was opened with it, invalid. Whoever reads the store finds no token to use.
//   - Who waits has no LiveKit token and receives no message of the session. Only the room's word admits.
//   - Binary messages are relayed byte for byte, inside one opening of one session, between members only.
//   - A LiveKit participant whose identity is not admitted at the moment is removed within one sweep (2 s).
//   - No peer can make another wait: queues are bounded and a slow reader is closed; each connection and each
//     address has a rate.
//
// Not protected: the hub is trusted with delivery alone. Membership, keys and what people see of each other are
// decided by signatures between the endpoints (daemon/e2ee/agreement); a hub that lies here can refuse service and
// nothing more.
//
// An opening is one LiveKit room of a session, made for one document of the room device:
//
//	open(sid, d) -> opening{media room, d} -- same sid and d again: resumed -- new d: a new opening
//	   knock(d) -> waiting -- admit -> admitted -- remove, leave, new document -> out
//	close, cancel, window over: ended, for good
package sessions

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Media is the SFU that a session's LiveKit rooms live on. Calls may block for as long as their context allows;
// implementers bound them. They are safe for concurrent use.
type Media interface {
	// Ensure makes a room, or finds it.
	Ensure(ctx context.Context, room string) error
	// Token makes a token for one identity in one room.
	Token(room, identity string) (string, error)
	// Identities lists who is in a room, hidden ones too; ErrNoRoom when it does not exist.
	Identities(ctx context.Context, room string) ([]string, error)
	// Remove removes a participant; one who is not there is no error.
	Remove(ctx context.Context, room, identity string) error
	// Delete ends a room; one that does not exist is no error.
	Delete(ctx context.Context, room string) error
}

// ErrNoRoom is returned by Media for a room that the SFU does not know, as after its restart.
var ErrNoRoom = errors.New("the media server does not know the room")

// Directory is what the clinic's signed documents say of rooms. Calls do not block.
type Directory interface {
	// Label returns the name of the room that a device stands in; false when the device is not on the roster.
	Label(device string) (string, bool)
	// Clinic is the SHA-256 of the first owner root's payload in hex; "" while there is none.
	Clinic() string
	// Demo reports whether the owner root says that this is a demonstration.
	Demo() bool
}

// Limits of one connection.
type Limits struct {
	MessagesPerSecond float64
	MessagesBurst     int
	BytesPerSecond    float64
	BytesBurst        int
}

// DefaultLimits fit a session of five members: a round is some 30 messages and 40 kB for each.
func DefaultLimits() Limits {
	return Limits{MessagesPerSecond: 20, MessagesBurst: 100, BytesPerSecond: 128 << 10, BytesBurst: 1 << 20}
}

// Options of a Service; every field is needed.
type Options struct {
	Store     Store
	Media     Media
	Directory Directory
	Log       *slog.Logger
	Metrics   *Metrics
	// CallOrigin is the origin of the call page, PeopleURL the URL of the people listener: both stand in links.
	CallOrigin, PeopleURL string
	// PageMediaURL and RoomMediaURL are what tokens name for pages and for rooms (ws:// or wss://).
	PageMediaURL, RoomMediaURL string
	// Early is how long before a session begins its invitation and its room open.
	Early time.Duration
	// Overrun is how long after its end a session may still run.
	Overrun time.Duration
	// Limits bound each relay connection, Relays the connections that an address may make.
	Limits Limits
	Relays *AddressLimit
}

// Service is safe for concurrent use. Its mutex is never held over the network; it is held over the store (some
// milliseconds) where the order of a decision and its message matters.
type Service struct {
	o Options

	mu      sync.Mutex
	open    map[SID]*opening  // guarded by mu
	places  map[string]*place // by participant id; guarded by mu
	pages   map[string]*conn  // by participant id; guarded by mu
	devices map[string]*conn  // by device id; guarded by mu

	kick chan struct{} // wakes the sweep
	work sync.WaitGroup
	stop context.Context // ends when Run returns; background work hangs on it
	end  context.CancelFunc
}

// opening is the current opening of a session.
type opening struct {
	Opening
	session Session
	ready   bool // the room was told opened
}

// place is where a participant stands in their session.
type place struct {
	participant Participant
	sid         SID
	state       placeState
	d           D
	final       string // state refused or removed: why
}

type placeState int

const (
	stateNone placeState = iota
	stateWaiting
	stateAdmitted
	stateFinal // this document was refused or removed; a new one may knock
)

// New reads the openings that the store holds: a restart of the hub keeps admissions.
func New(ctx context.Context, o Options) (*Service, error) {
	stop, end := context.WithCancel(context.WithoutCancel(ctx))
	s := &Service{
		o: o, stop: stop, end: end,
		open: make(map[SID]*opening), places: make(map[string]*place),
		pages: make(map[string]*conn), devices: make(map[string]*conn),
		kick: make(chan struct{}, 1),
	}
	list, err := o.Store.Openings(ctx)
	if err != nil {
		end()
		return nil, err
	}
	for _, v := range list {
		if err := s.restore(ctx, v); err != nil {
			end()
			return nil, err
		}
	}
	o.Metrics.open.Set(float64(len(s.open)))
	return s, nil
}

func (s *Service) restore(ctx context.Context, v Opening) error {
	session, err := s.o.Store.Session(ctx, v.SID)
	if err != nil {
		return fmt.Errorf("restore opening: %w", err)
	}
	s.open[v.SID] = &opening{Opening: v, session: session}
	for _, a := range v.Admitted {
		for _, p := range session.Participants {
			if p.ID == a.Participant {
				s.places[p.ID] = &place{participant: p, sid: v.SID, state: stateAdmitted, d: a.D}
			}
		}
	}
	return nil
}

// Intervals of Run.
const (
	sweepEvery  = 2 * time.Second
	expireEvery = 15 * time.Second
)

// Run sweeps and ends what is over, until ctx ends; then it closes every relay connection and waits for them.
func (s *Service) Run(ctx context.Context) error {
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	expire := time.NewTicker(expireEvery)
	defer expire.Stop()
	for {
		select {
		case <-ctx.Done():
			s.end()
			s.work.Wait()
			return nil
		case <-sweep.C:
			s.sweep(ctx)
		case <-s.kick:
			s.sweep(ctx)
		case <-expire.C:
			s.expire(ctx)
		}
	}
}

// Sweep asks for a sweep now: the media server came back, or something changed.
func (s *Service) Sweep() {
	select {
	case s.kick <- struct{}{}:
	default: // one is waiting already
	}
}

// secret is 32 random bytes as 43 characters of base64url.
func secret() string { return random(32) }

func random(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails (crypto/rand, Go 1.24)
	return base64.RawURLEncoding.EncodeToString(b)
}
