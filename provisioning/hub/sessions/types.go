package sessions

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"time"

	"github.com/alcove-room/alcove/provisioning/hub/people"
)

// SID is a session's id: 16 random bytes.
type SID [16]byte

func (s SID) String() string { return base64.RawURLEncoding.EncodeToString(s[:]) }

// ParseSID reads the unpadded base64url of String, 22 characters, and no second spelling of it.
func ParseSID(s string) (SID, error) {
	var sid SID
	raw, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(raw) != len(sid) || base64.RawURLEncoding.EncodeToString(raw) != s {
		return sid, errors.New("session id is not 16 bytes of unpadded base64url")
	}
	copy(sid[:], raw)
	return sid, nil
}

// D is the hash of an endpoint document (daemon/e2ee/agreement): 32 bytes.
type D [32]byte

func (d D) String() string { return hex.EncodeToString(d[:]) }

// Identity is eid, the LiveKit identity of the endpoint: unpadded base64url of the first 16 bytes.
func (d D) Identity() string { return base64.RawURLEncoding.EncodeToString(d[:16]) }

// ParseD reads the lower-case hex form of String.
func ParseD(s string) (D, error) {
	var d D
	raw, err := hex.DecodeString(s)
	if err != nil || len(raw) != len(d) || hex.EncodeToString(raw) != s {
		return d, errors.New("document hash is not 64 lower-case hexadecimal digits")
	}
	copy(d[:], raw)
	return d, nil
}

// Hash is the SHA-256 of a secret that the hub handed out: the only form in which it is kept.
type Hash [32]byte

// HashOf hashes the characters of a token, so that no second spelling of the same bits is accepted.
func HashOf(token string) Hash { return sha256.Sum256([]byte(token)) }

// Session is one appointment of a room.
type Session struct {
	SID    SID
	Room   string // device id in the roster
	Starts time.Time
	Ends   time.Time
	// Ended is the zero time while the session may still take place; Reason says why it ended.
	Ended        time.Time
	Reason       string
	Participants []Participant
}

// Participant is one remote person of one session, as the front desk wrote them down.
type Participant struct {
	ID   string
	Role people.Role
	Name string
}

// Opening is one LiveKit room of a session: a new one for each new document of the room.
type Opening struct {
	MediaRoom string
	SID       SID
	D         D
	Admitted  []Admission
}

// Admission allows one endpoint document of one participant into an opening.
type Admission struct {
	D           D
	Participant string
}

// Ticket is what the store knows of an invitation or a bearer.
type Ticket struct {
	Session     Session
	Participant Participant
	Used        bool
	Browser     Hash // of the cookie that used the invitation; meaningful while Used
}

// ErrNotFound is returned by a Store for what it does not hold.
var ErrNotFound = errors.New("not found")

// ErrUsed is returned by UseInvitation when another browser was first.
var ErrUsed = errors.New("invitation already used")

// Store keeps sessions. A call that returns nil is durable; calls are safe for concurrent use and each is one
// transaction. Secrets come as hashes only.
type Store interface {
	// AddSession stores a session with its participants.
	AddSession(ctx context.Context, s Session) error
	// Session returns one session, ended or not; ErrNotFound.
	Session(ctx context.Context, sid SID) (Session, error)
	// Sessions lists sessions that have not ended and whose window ends after t, by start; room "" means all.
	Sessions(ctx context.Context, room string, t time.Time) ([]Session, error)
	// EndSession marks a session as ended, closes its opening and drops its bearers. Ending twice keeps the first.
	EndSession(ctx context.Context, sid SID, t time.Time, reason string) error

	// SetInvitation makes hash the participant's only invitation and drops their bearer. ErrNotFound when the
	// participant is not of that session or it has ended.
	SetInvitation(ctx context.Context, sid SID, participant string, hash Hash, t time.Time) error
	// Invitation returns what is known of an invitation; ErrNotFound.
	Invitation(ctx context.Context, hash Hash) (Ticket, error)
	// BrowserKnown reports whether a cookie with this hash was ever handed out.
	BrowserKnown(ctx context.Context, browser Hash) (bool, error)
	// UseInvitation binds the invitation to the browser, or finds it bound to it already, and makes bearer the
	// participant's only bearer. ErrUsed when it is bound to another one, ErrNotFound.
	UseInvitation(ctx context.Context, invitation, browser, bearer Hash, t time.Time) error
	// Bearer returns whom a bearer belongs to; ErrNotFound.
	Bearer(ctx context.Context, bearer Hash) (Ticket, error)
	// DropBearer makes the participant's bearer invalid.
	DropBearer(ctx context.Context, participant string) error

	// Open makes o the session's only current opening; the former one waits for deletion.
	Open(ctx context.Context, o Opening, t time.Time) error
	// Openings returns the current openings with their admissions, in the order of opening.
	Openings(ctx context.Context) ([]Opening, error)
	// Admit and Unadmit change an opening's admissions; Admit replaces the participant's former one.
	Admit(ctx context.Context, mediaRoom string, a Admission, t time.Time) error
	Unadmit(ctx context.Context, mediaRoom string, d D) error
	// ClosedRooms lists LiveKit rooms whose opening is closed and that were not yet deleted there.
	ClosedRooms(ctx context.Context) ([]string, error)
	// ForgetRoom drops an opening after the LiveKit room was deleted.
	ForgetRoom(ctx context.Context, mediaRoom string) error
}
