package fleet

import (
	"context"
	"crypto/sha256"
	"errors"
	"time"
)

// ErrNotFound is returned by a Store for what it does not hold.
var ErrNotFound = errors.New("not found")

// ErrExists is returned when a claim id was used by another request before.
var ErrExists = errors.New("already stored")

// Claim is the SHA-256 of a claim id; the id itself is a secret between the claim's maker and the box.
type Claim [32]byte

// ClaimOf hashes a claim id.
func ClaimOf(id string) Claim { return sha256.Sum256([]byte(id)) }

// Enrolment is one box's request to be put on the roster. The hub cannot check Proof; alcovectl does.
type Enrolment struct {
	TLSKey   []byte // SubjectPublicKeyInfo, DER
	SignKey  []byte // SubjectPublicKeyInfo, DER
	Nonce    []byte
	Proof    []byte // HMAC-SHA-256
	Received time.Time
}

// Store keeps documents and enrolment requests. A call that returns nil is durable; calls are safe for concurrent
// use. Envelopes are kept as the bytes that were verified.
type Store interface {
	// OwnerRoots returns every owner root from version 1 on, in order.
	OwnerRoots(ctx context.Context) ([][]byte, error)
	// AddOwnerRoot stores the next owner root; ErrExists when the version is there.
	AddOwnerRoot(ctx context.Context, version uint64, envelope []byte) error
	// Documents returns the envelopes by kind: "roster", "people", "config/<target>".
	Documents(ctx context.Context) (map[string][]byte, error)
	// PutDocument replaces the envelope of a kind.
	PutDocument(ctx context.Context, kind string, envelope []byte, t time.Time) error
	// AddEnrolment stores a request. The same request again is no error; another one under the same claim is ErrExists.
	AddEnrolment(ctx context.Context, c Claim, e Enrolment) error
	// Enrolment returns the request of a claim; ErrNotFound.
	Enrolment(ctx context.Context, c Claim) (Enrolment, error)
	// SweepEnrolments drops requests received before t and returns how many remain.
	SweepEnrolments(ctx context.Context, t time.Time) (int, error)
}
