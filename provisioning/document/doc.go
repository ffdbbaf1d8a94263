// Package document holds what a clinic says with its offline keys, and decides
// whether to believe it.
//
// Authority in Alcove lies in signed documents and not in any server: the hub
// stores and forwards them, and cannot make one. Each is a DSSE envelope whose
// payload type is "application/vnd.alcove.<type>.v1+json":
//
//   - owner-root: the clinic's keys per role, thresholds, hub pins, recovery
//     keys. Root n+1 is signed by the root thresholds of n and of n+1 (as in TUF
//     1.0.33, section 5.3.4). SHA-256 of the first root's payload is the clinic's
//     name; whoever knows that hash needs to trust nobody for the rest.
//   - roster: the devices that belong to the clinic. Absent means revoked.
//   - people: staff, and the passkeys that the clinic knows of them.
//   - config: the whole desired state of a device, never a patch.
//
// Verdicts are pure functions of (document, state, time): no clock, disk or
// network is read here. What a verdict promises when it is "yes":
//
//   - the bytes were signed by the role's threshold of distinct public keys of
//     the owner root given;
//   - they are of this clinic, for this device, not expired, and not older than
//     what was in force. Order is (root version, serial): after a stolen key has
//     signed the highest serial, the next root version still supersedes it.
//
// Not protected: a freeze. A hub that withholds documents keeps the old ones in
// force until they expire. A claim is not signed: it is believed because of the
// way it came, and the join token in it is a secret.
//
// Payloads are read as the bytes that were signed and are never encoded again.
// All JSON goes through Decode, here and in the programs that use this package.
package document

import (
	"encoding/json"
	"fmt"
	"time"
)

// Type names a kind of document.
type Type string

// The documents of version 1.
const (
	TypeOwnerRoot Type = "owner-root"
	TypeRoster    Type = "roster"
	TypePeople    Type = "people"
	TypeConfig    Type = "config"
)

// Types lists the documents in the order in which they must be applied.
func Types() []Type { return []Type{TypeOwnerRoot, TypeRoster, TypePeople, TypeConfig} }

// PayloadType is the DSSE payload type.
func (t Type) PayloadType() string { return "application/vnd.alcove." + string(t) + ".v1+json" }

// Type tells which document the envelope says it holds. Nothing is verified.
func (e *Envelope) Type() (Type, error) {
	for _, t := range Types() {
		if e.PayloadType == t.PayloadType() {
			return t, nil
		}
	}
	return "", fmt.Errorf("%w: %.80q", ErrPayloadType, e.PayloadType)
}

// Document is what Sign takes and Verify returns.
type Document interface {
	Type() Type
	Order() Order
	Validate() error
}

// Order decides which of two documents of one type is newer: the root version
// first, then the serial.
type Order struct {
	Root   uint32 `json:"root_version"`
	Serial uint64 `json:"serial"`
}

// String is "root.serial", as in the have parameter of /v1/device/documents.
func (o Order) String() string { return fmt.Sprintf("%d.%d", o.Root, o.Serial) }

// Less tells whether o is older than p.
func (o Order) Less(p Order) bool {
	return o.Root < p.Root || o.Root == p.Root && o.Serial < p.Serial
}

// ParseOrder reads what Order.String writes.
func ParseOrder(s string) (Order, error) {
	var o Order
	if _, err := fmt.Sscanf(s, "%d.%d", &o.Root, &o.Serial); err != nil || o.String() != s {
		return Order{}, fmt.Errorf("%.40q is not <root version>.<serial>", s)
	}
	return o, nil
}

// Header stands in every document under an owner root.
type Header struct {
	Owner       Hash      `json:"owner"` // the clinic
	RootVersion uint32    `json:"root_version"`
	Serial      uint64    `json:"serial"` // rises per type within a root version
	Issued      time.Time `json:"issued"`
	Expires     time.Time `json:"expires"`
	Target      string    `json:"target"` // TargetAll or a device's id
}

// Order is (root version, serial).
func (h *Header) Order() Order { return Order{Root: h.RootVersion, Serial: h.Serial} }

func (h *Header) header() *Header { return h }

// TargetAll addresses every device of the clinic.
const TargetAll = "all"

// State is what a verdict depends on besides document and time. The zero State
// knows no document and belongs to no device.
type State struct {
	// In is the order of the document in force, and Payload its hash; zero when
	// there is none. The same document is accepted again, another one of the
	// same order is not.
	In      Order `json:"in"`
	Payload Hash  `json:"payload"`
	// Device is the asking device's id. Empty for hub and tools: any target.
	Device string `json:"device,omitempty"`
}

// After is the state once d, carried by e, is in force.
func (s State) After(e *Envelope, d Document) State {
	return State{In: d.Order(), Payload: e.PayloadHash(), Device: s.Device}
}

// maxSkew is how far in the future a document may be dated. Devices take the
// time of a verified document as a lower bound of the clock: a stolen key must
// not be able to move that bound to where everything has expired.
const maxSkew = 24 * time.Hour

// signed is what Verify can return: a document with a Header.
type signed[T any] interface {
	*T
	Document
	header() *Header
}

// Verify decides whether e is a T of the clinic that may be in force now:
//
//	roster, err := document.Verify[document.Roster](envelope, trust, state, now)
//
// The error wraps one of this package's Err values.
func Verify[T any, P signed[T]](e *Envelope, t *Trust, s State, now time.Time) (*T, error) {
	var d T
	p := P(&d)
	if e.PayloadType != p.Type().PayloadType() {
		return nil, fmt.Errorf("%s: %w: %.80q", p.Type(), ErrPayloadType, e.PayloadType)
	}
	// Signatures first: bytes of strangers reach no parser.
	if err := t.check(e, string(p.Type())); err != nil {
		return nil, fmt.Errorf("%s: %w", p.Type(), err)
	}
	if err := decodeComplete(e.Payload, &d); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", p.Type(), ErrInvalid, err)
	}
	if err := p.Validate(); err != nil {
		return nil, fmt.Errorf("%s: %w", p.Type(), err)
	}
	if err := judge(p.header(), e.PayloadHash(), t, s, now); err != nil {
		return nil, fmt.Errorf("%s %s: %w", p.Type(), p.Order(), err)
	}
	return &d, nil
}

func judge(h *Header, payload Hash, t *Trust, s State, now time.Time) error {
	switch {
	case h.Owner != t.clinic:
		return fmt.Errorf("%w: %s", ErrOtherClinic, h.Owner)
	case h.RootVersion > t.root.Version:
		return fmt.Errorf("%w: version %d, newest here is %d", ErrRootVersion, h.RootVersion, t.root.Version)
	case h.Order().Less(s.In):
		return fmt.Errorf("%w: %s", ErrReplay, s.In)
	case h.Order() == s.In && payload != s.Payload:
		return fmt.Errorf("%w", ErrConflict)
	case s.Device != "" && h.Target != TargetAll && h.Target != s.Device:
		return fmt.Errorf("%w: %s", ErrTarget, h.Target)
	}
	return timely(h.Issued, h.Expires, now)
}

func timely(issued, expires, now time.Time) error {
	if issued.After(now.Add(maxSkew)) {
		return fmt.Errorf("%w: %s; is this machine's clock right?", ErrNotYet, issued.Format(time.RFC3339))
	}
	if !now.Before(expires) {
		return fmt.Errorf("%w: on %s", ErrExpired, expires.Format(time.RFC3339))
	}
	return nil
}

// Inspect reads a document without verifying anything, for people who look.
func Inspect(e *Envelope) (Document, error) {
	t, err := e.Type()
	if err != nil {
		return nil, err
	}
	d := map[Type]Document{TypeOwnerRoot: &OwnerRoot{}, TypeRoster: &Roster{}, TypePeople: &People{}, TypeConfig: &Config{}}[t]
	if err := decodeComplete(e.Payload, d); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", t, ErrInvalid, err)
	}
	if err := d.Validate(); err != nil {
		return nil, fmt.Errorf("%s: %w", t, err)
	}
	return d, nil
}

// MarshalEnvelope is the envelope's JSON, as stored and sent.
func MarshalEnvelope(e *Envelope) ([]byte, error) { return json.Marshal(e) }
