package people

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"
)

// Method is how somebody signed in.
type Method string

// The methods. There is no password, and none that sends a code by telephone.
const (
	ByPasskey Method = "passkey"
	ByOIDC    Method = "oidc"
	ByTOTP    Method = "totp"
	ByPIN     Method = "pin"
)

// Methods lists every method once.
func Methods() []Method { return []Method{ByPasskey, ByOIDC, ByTOTP, ByPIN} }

// Level is how strong the hub counts a method: 3 for a passkey with user verification, 2 for the clinic's identity
// provider with more than one factor, 1 for what somebody could be talked out of. A room believes none of it: it takes the hub's word as level 1 and verifies an assertion by itself.
func (m Method) Level() int {
	switch m {
	case ByPasskey:
		return 3
	case ByOIDC:
		return 2
	}
	return 1
}

// Site is which of the clinic's pages a browser shows. Each is a WebAuthn relying party of its own, and a sign-in
// counts at the site that it was made at.
type Site string

// The sites.
const (
	Call    Site = "call"
	Console Site = "console"
)

// Identity is what a sign-in has shown.
type Identity struct {
	Subject string
	Name    string
	Roles   []Role
	Method  Method
	Level   int
	Time    time.Time
}

// Attempt is one try to sign in.
type Attempt struct {
	Site   Site
	Remote string // host:port
	// Browser is the token of a browser that may have signed in before; "" when it is new. It gives no right; it
	// only keeps strangers' failures from counting against this browser.
	Browser string
	Body    []byte // JSON, the method's own
	Now     time.Time
}

// Authenticator judges attempts by one method. It is safe for concurrent use. Its errors are ErrNoMatch, ErrMalformed,
// ErrLocked or a *SlowDownError; any other is a failure of the hub.
type Authenticator interface {
	Authenticate(ctx context.Context, a Attempt) (Identity, error)
}

// Errors that callers tell apart.
var (
	// ErrNoMatch says that something was wrong, and never what: not whether the person exists either.
	ErrNoMatch = errors.New("that did not match")
	// ErrMalformed is wrapped for a body that is none of ours.
	ErrMalformed = errors.New("request is damaged")
	// ErrLocked is returned for a PIN whose tries are used up; only the holder of an invitation can cause it.
	ErrLocked = errors.New("PIN is locked")
	// ErrNotFound is returned by a Store for what it does not hold.
	ErrNotFound = errors.New("not found")
	// ErrExists is returned by a Store for a subject that is taken, or a credential that is registered.
	ErrExists = errors.New("exists already")
	// ErrUnavailable is returned for passkeys at a site without a host name, which WebAuthn knows no relying party for,
	// and for a provider that is not configured.
	ErrUnavailable = errors.New("this way to sign in is not set up")
	// ErrRequest is wrapped by what the front desk or IT asked for and cannot have.
	ErrRequest = errors.New("request refused")
)

// SlowDownError refuses an attempt that came too early.
type SlowDownError struct{ Wait time.Duration }

func (e *SlowDownError) Error() string { return fmt.Sprintf("too many tries: wait %s", e.Wait) }

// Hash is the SHA-256 of a secret that the hub handed out: the only form in which it is kept.
type Hash [32]byte

// HashOf hashes the characters of a token, so that no second spelling of the same bits is accepted.
func HashOf(token string) Hash { return sha256.Sum256([]byte(token)) }

// newToken returns 32 random bytes in unpadded base64url, 43 characters.
func newToken() string {
	var raw [32]byte
	_, _ = rand.Read(raw[:]) // crypto/rand.Read never fails: it ends the program
	return base64.RawURLEncoding.EncodeToString(raw[:])
}

// Person is somebody who may sign in.
type Person struct {
	Subject  string // pseudonym, as in the clinic's signed people document
	Handle   []byte // 32 bytes, WebAuthn user handle
	Name     string
	Roles    []Role
	Created  time.Time
	Passkeys []Passkey
	TOTP     bool
	PIN      bool
	PINTries int
}

// Passkey is a registered WebAuthn credential.
type Passkey struct {
	ID      []byte
	RPID    string
	Record  []byte // JSON of webauthn.Credential
	Created time.Time
}

var subjectForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Check refuses a person that cannot be stored.
func (p Person) Check() error {
	if !subjectForm.MatchString(p.Subject) {
		return fmt.Errorf("%w: a pseudonym has 1 to 63 of a-z, 0-9 and inner hyphens", ErrRequest)
	}
	if err := CheckName(p.Name); err != nil {
		return fmt.Errorf("%w: %w", ErrRequest, err)
	}
	if len(p.Roles) == 0 {
		return fmt.Errorf("%w: name at least one role", ErrRequest)
	}
	for i, r := range p.Roles {
		if !slices.Contains(personRoles(), r) || slices.Contains(p.Roles[:i], r) {
			return fmt.Errorf("%w: role %.20q is unknown or named twice", ErrRequest, string(r))
		}
	}
	return nil
}

// PIN is a PIN as it is kept.
type PIN struct {
	Salt [16]byte
	Hash [32]byte // Argon2id
}

// Visit says which person an invitation is for.
type Visit struct {
	Subject string
	Room    string
}

// SignIn is a sign-in that lasts.
type SignIn struct {
	Hash    Hash
	Subject string
	Site    Site
	Method  Method
	Level   int
	At      time.Time
	Seen    time.Time
}

// Store keeps people. A call that returns nil is durable; calls are safe for concurrent use and each is one
// transaction. Removing a person removes everything of theirs, sign-ins too.
type Store interface {
	AddPerson(ctx context.Context, p Person) error // ErrExists
	// PutPerson adds a person, or gives the one with this subject the name and roles.
	PutPerson(ctx context.Context, p Person) error
	RemovePerson(ctx context.Context, subject string) error     // ErrNotFound
	Person(ctx context.Context, subject string) (Person, error) // ErrNotFound
	PersonByHandle(ctx context.Context, handle []byte) (Person, error)
	People(ctx context.Context) ([]Person, error) // by subject

	// SetRegistration makes hash the person's only registration. ErrNotFound.
	SetRegistration(ctx context.Context, subject string, hash Hash, expires time.Time) error
	// Registration returns whose an unexpired registration is; ErrNotFound.
	Registration(ctx context.Context, hash Hash, t time.Time) (subject string, err error)
	// AddPasskey uses the registration up and stores a passkey of its person. ErrNotFound, ErrExists.
	AddPasskey(ctx context.Context, registration Hash, k Passkey, t time.Time) error
	// UpdatePasskey replaces the record of a passkey. ErrNotFound.
	UpdatePasskey(ctx context.Context, id, record []byte) error

	// SetTOTP replaces the person's secret. ErrNotFound.
	SetTOTP(ctx context.Context, subject string, secret []byte) error
	TOTP(ctx context.Context, subject string) (secret []byte, err error) // ErrNotFound
	// UseTOTP notes that a time step was used; ErrNoMatch when it or a later one was before.
	UseTOTP(ctx context.Context, subject string, step int64) error

	// SetRecovery replaces the person's recovery codes. ErrNotFound.
	SetRecovery(ctx context.Context, subject string, codes []Hash) error
	// UseRecovery trades one code for a registration; ErrNoMatch when there is no such code.
	UseRecovery(ctx context.Context, subject string, code, registration Hash, expires time.Time) error

	// SetPIN replaces the person's PIN and gives all tries back. ErrNotFound.
	SetPIN(ctx context.Context, subject string, p PIN) error
	// TryPIN counts a try and returns the PIN to compare with; ErrLocked after most tries, ErrNotFound.
	TryPIN(ctx context.Context, subject string, most int) (PIN, error)
	// ClearPIN gives all tries back.
	ClearPIN(ctx context.Context, subject string) error
	// SetVisit says which person a participant of a session is. ErrNotFound.
	SetVisit(ctx context.Context, participant, subject string) error
	// Visit finds the person of an invitation to a session that has not ended; ErrNotFound.
	Visit(ctx context.Context, invitation Hash) (Visit, error)

	// AddSignIn stores a sign-in and notes the browser that made it.
	AddSignIn(ctx context.Context, s SignIn, browser Hash) error
	SignIn(ctx context.Context, hash Hash) (SignIn, error) // ErrNotFound
	// Touch notes that a sign-in was used at t.
	Touch(ctx context.Context, hash Hash, t time.Time) error
	DropSignIn(ctx context.Context, hash Hash) error
	// DropSignIns drops those not seen since idle, and those made before made.
	DropSignIns(ctx context.Context, idle, made time.Time) error
	// BrowserOf reports whether the person has signed in with this browser.
	BrowserOf(ctx context.Context, subject string, browser Hash) (bool, error)
	// BrowserSeen reports whether anybody has.
	BrowserSeen(ctx context.Context, browser Hash) (bool, error)
}
